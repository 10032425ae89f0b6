// The list of exams: searched by number or name, day, score and status, newest or highest score first, some at a time. What is
// searched for stands in the address, so that the way back from an exam leads to where one was.
import { ask } from "./api.js";
import { make, meter, table, time, wait } from "./dom.js";

const A_PAGE = 20, LOOK_SECONDS = 5, IDLE_SECONDS = 15, TYPING_SECONDS = 0.3;
/** Beyond any list: it asks how many there are, and for none of them. */
const NONE = "offset=10000000&limit=1";
const STATES = ["waiting", "running", "done", "refused", "failed"];
const ORDERS = [["time", "Newest first"], ["score", "Highest score first"]];
const ORIGINS = { sent: "sent here", ledger: "from the ledger" };
const NUMBER = /^[0-9a-f]+$/i;
const NOTHING = { q: "", from: "", to: "", least: "", most: "", status: "", sort: "time", offset: "0" };

/** What the list showed last: the neighbours of an exam are found in it. */
let last = { find: NOTHING, exams: [], offset: 0, total: 0 };
/** The exam that was looked at last. */
let seen = "";

/** Return where an exam is from. */
export const originOf = (exam) => ORIGINS[exam.origin] ?? "";

/** Return what an exam is called: what the ledger calls it, or how its number begins. */
export const nameOf = (exam, length) => exam.name ?? exam.id.slice(0, length);

/**
 * Return the list; #search in it takes the focus. It throws Refused where the service reads no exams.
 * @param {string} address what is searched for, as it stands in the page's address
 */
export async function recent(address, signal) {
  const find = { ...NOTHING, ...Object.fromEntries([...new URLSearchParams(address)].filter(([name]) => name in NOTHING)) };
  const list = make("div"), count = make("p.quiet", { role: "status" });
  const show = async () => {
    const found = await listed(find, signal);
    const focus = list.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    list.replaceChildren(...shown(found, (offset) => change({ offset: String(offset) })));
    if (focus) list.querySelector(`[href="${focus}"]`)?.focus();
    count.textContent = counted(found);
  };
  const change = async (changes) => {
    Object.assign(find, { offset: "0" }, changes);
    history.replaceState(null, "", `#${addressOf(find)}`);
    clear.hidden = isNothing(find);
    try {
      await show();
    } catch (error) {
      if (!signal.aborted) list.replaceChildren(make("p.reason", { role: "alert" }, error.message));
    }
  };
  const { form, clear } = fields(find, change);
  await show();
  watch(show, signal);
  return make("section.recent", {}, make("h2", {}, "Exams"), form, count, list);
}

/** Return the exam before (-1) or after (1) another in the list that was shown last; null where there is none. */
export async function neighbour(id, step, signal) {
  const at = last.exams.findIndex((one) => one.id === id), place = last.offset + at + step;
  if (at < 0 || place < 0 || place >= last.total) return null;
  if (!last.exams[at + step]) await listed({ ...last.find, offset: String(Math.floor(place / A_PAGE) * A_PAGE) }, signal);
  return last.exams[place - last.offset]?.id ?? null;
}

/** Return where an exam is in the list that was shown last, from 1, of how many, and the way back there; or null. */
export function placeOf(id) {
  seen = id;
  const at = last.exams.findIndex((one) => one.id === id);
  return at < 0 ? null : { number: last.offset + at + 1, total: last.total, back: `#${addressOf(last.find)}` };
}

async function listed(find, signal) {
  const found = await ask(`/v1/exams?${queryOf(find)}`, signal);
  last = { find: { ...find }, exams: found.exams, offset: found.offset, total: found.total };
  return found;
}

/** Names of what is searched for, in distinction from the order and the page. */
const SEARCHED = Object.keys(NOTHING).filter((name) => name !== "sort" && name !== "offset");
const isNothing = (find) => SEARCHED.every((name) => find[name] === NOTHING[name]);

function addressOf(find) {
  const given = new URLSearchParams(Object.entries(find).filter(([name, value]) => value !== NOTHING[name]));
  return given.size ? `?${given}` : "";
}

function queryOf({ q, from, to, least, most, status, sort, offset }) {
  const given = { q, since: dayOf(from, 0), until: dayOf(to, 1), least, most, status };
  return new URLSearchParams([...Object.entries({ sort, offset, limit: A_PAGE }), ...Object.entries(given).filter(([, value]) => value)]);
}

/** Return when a day of the reader's begins, or one that is some days later, in UTC. */
function dayOf(text, later) {
  const day = new Date(`${text}T00:00`);
  if (Number.isNaN(day.getTime())) return "";
  day.setDate(day.getDate() + later);
  return day.toISOString();
}

/** Return what can be searched for, and the button that takes it away. */
function fields(find, change) {
  let timer = 0;
  const typing = {};
  const soon = (changes) => {
    Object.assign(typing, changes);
    clearTimeout(timer);
    timer = setTimeout(() => change(typing), 1000 * TYPING_SECONDS);
  };
  const field = (text, name, input, whole = text) => {
    input.name = name;
    input.setAttribute("aria-label", whole);
    return make("label", {}, make("span", {}, text), input);
  };
  const typed = (name, given, read = (text) => text) => make("input", {
    ...given, value: find[name], autocomplete: "off",
    oninput: (event) => { if (event.target.validity.valid) soon({ [name]: read(event.target.value.trim()) }); },
  });
  const score = { type: "number", min: 0, max: 1, step: "any", inputMode: "decimal" };
  const picked = (name, options) => make("select", { onchange: (event) => change({ [name]: event.target.value }) },
    options.map(([value, label]) => make("option", { value, selected: value === find[name] }, label)));
  const clear = make("button", { type: "button", hidden: isNothing(find), onclick: () => { clearTimeout(timer); empty(); change({ ...NOTHING, sort: find.sort }); } }, "Clear");
  const form = make("form.find", { role: "search", "aria-label": "Exams", onsubmit: (event) => event.preventDefault() },
    field("Number or name", "q", typed("q", { type: "search", id: "search", maxLength: 32, placeholder: "begins with", spellcheck: false }, (text) => (NUMBER.test(text) ? text.toLowerCase() : text))),
    field("Received from", "from", typed("from", { type: "date" })),
    field("to", "to", typed("to", { type: "date" }), "Received to"),
    field("Score from", "least", typed("least", score), "Score from, highest malignant of an exam"),
    field("to", "most", typed("most", score), "Score to, highest malignant of an exam"),
    field("Status", "status", picked("status", [["", "Any"], ...STATES.map((state) => [state, state])])),
    field("Order", "sort", picked("sort", ORDERS)), clear);
  const empty = () => {
    for (const name of Object.keys(typing)) delete typing[name];
    for (const name of SEARCHED) form.elements[name].value = NOTHING[name];
  };
  return { form, clear };
}

function counted({ exams, offset, total }) {
  if (!exams.length) return "";
  return `${offset + 1} to ${offset + exams.length} of ${total.toLocaleString()}`;
}

function shown(found, go) {
  if (!found.exams.length) {
    return [make("p.quiet", {}, found.total ? "There are no more."
      : isNothing(last.find) ? "There are no exams yet. Those that are dropped above, or come from a PACS, stand here." : "There is none like this.")];
  }
  const has = found.exams.some((exam) => exam.origin === "ledger"), after = found.offset + found.exams.length;
  const button = (text, offset, is) => make("button", { type: "button", disabled: !is, onclick: () => go(offset) }, text);
  const rows = table("Exams", ["Exam", "Status", "Received", "Malignant, right", "Malignant, left", ...(has ? ["From"] : [])],
    found.exams.map((exam) => [
      make("a", { href: `#exam/${exam.id}`, title: exam.id, "aria-current": exam.id === seen ? "true" : null }, nameOf(exam, 12)),
      make(`span.state.${exam.status}`, {}, exam.status), time(exam.time), score(exam, "right"), score(exam, "left"),
      ...(has ? [originOf(exam)] : []),
    ]));
  return [rows, found.total <= A_PAGE ? "" : make("nav.pages", { "aria-label": "Pages of the list" },
    button("Previous", Math.max(0, found.offset - A_PAGE), found.offset > 0), button("Next", after, after < found.total))];
}

function score(exam, side) {
  const scores = exam.predictions.filter((one) => one.side === side && one.target === "malignant").map((one) => one.score);
  if (!scores.length) return "";
  const most = Math.max(...scores);
  return make("span.score", {}, meter("malignant", most, `Malignant, ${side}`), most.toFixed(3));
}

/** Show the list again whenever the number of exams under way, or of all, has changed. */
async function watch(show, signal) {
  let before = "", isIdle = false;
  try {
    for (;;) {
      if (!document.hidden) {
        const totals = await Promise.all(["", "&status=waiting&status=running"].map((status) => ask(`/v1/exams?${NONE}${status}`, signal)));
        const now = totals.map((one) => one.total).join(" ");
        if (before && now !== before) await show();
        before = now;
        isIdle = totals[1].total === 0;
      }
      await wait(isIdle ? IDLE_SECONDS : LOOK_SECONDS, signal);
    }
  } catch (error) {
    if (!signal.aborted) console.error(error);
  }
}
