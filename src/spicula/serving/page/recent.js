// The list of exams: searched by how their id begins, newest or highest score first, some at a time.
import { ask } from "./api.js";
import { make, table, time } from "./dom.js";

const A_PAGE = 20;
const STATES = ["waiting", "running", "done", "refused", "failed"];

/** Return the list; `search` in it takes the focus. It throws Refused where the service reads no exams. */
export async function recent(signal) {
  const find = { q: "", sort: "time", status: "", offset: 0 };
  const list = make("div", { "aria-live": "polite" });
  const show = async () => {
    const { status, ...others } = find;
    const query = new URLSearchParams({ ...others, limit: A_PAGE, ...(status ? { status } : {}) });
    const found = await ask(`/v1/exams?${query}`, signal);
    list.replaceChildren(...shown(found, (offset) => change({ offset })));
  };
  const change = (changes) => {
    Object.assign(find, { offset: 0 }, changes);
    return show().catch((error) => signal.aborted || list.replaceChildren(make("p.reason", { role: "alert" }, error.message)));
  };
  const select = (text, id, options, name) => [make("label", { for: id }, text),
    make("select", { id, onchange: (event) => change({ [name]: event.target.value }) },
      options.map(([value, label]) => make("option", { value }, label)))];
  let timer = 0;
  const search = make("input", {
    type: "search", id: "search", maxLength: 32, autocomplete: "off", spellcheck: false,
    oninput: () => { clearTimeout(timer); timer = setTimeout(() => change({ q: search.value.trim().toLowerCase() }), 200); },
  });
  await show();
  return make("section.recent", {},
    make("h2", {}, "Exams"),
    make("div.find", { role: "search" }, make("label", { for: "search" }, "Number begins with"), search,
      select("Order", "sort", [["time", "Newest first"], ["score", "Highest malignant score first"]], "sort"),
      select("Status", "state", [["", "Any"], ...STATES.map((state) => [state, state])], "status")),
    list);
}

function shown(found, go) {
  if (!found.exams.length) return [make("p.quiet", {}, found.total ? "There are no more." : "There are none.")];
  const of = (exam, side) => {
    const scores = exam.predictions.filter((one) => one.side === side && one.target === "malignant").map((one) => one.score);
    return scores.length ? Math.max(...scores).toFixed(3) : "";
  };
  const rows = found.exams.map((exam) => [
    make("a", { href: `#exam/${exam.id}`, title: exam.id }, exam.id.slice(0, 12)),
    make(`span.state.${exam.status}`, {}, exam.status), time(exam.time), of(exam, "right"), of(exam, "left")]);
  const last = found.offset + found.exams.length;
  const button = (text, offset, is) => make("button", { type: "button", disabled: !is, onclick: () => go(offset) }, text);
  return [
    table("Exams", ["Number", "Status", "Received", "Malignant, right", "Malignant, left"], rows),
    make("div.pages", {},
      button("Back", Math.max(0, found.offset - A_PAGE), found.offset > 0),
      make("span", {}, `${found.offset + 1} to ${last} of ${found.total}`),
      button("Next", last, last < found.total)),
  ];
}
