// The page: what the address names is shown, #exam/ID or the place to drop files, and files go where they belong.
import { ask, Refused, send } from "./api.js";
import { make, say } from "./dom.js";
import { dropZone, isArchive, looksLikeExam } from "./drop.js";
import { showExam } from "./exam.js";
import { showImages } from "./images.js";
import { help, listen } from "./keys.js";
import { recent } from "./recent.js";

const main = document.getElementById("main");
let leaving = new AbortController();
let actions = {};
/** What was sent last: to be read in the other way. */
let sent = null;
/** How the reader wants files to be read. */
let choice = { as: "auto", model: "" };

/** Begin to show something else; what was under way for the last is ended. */
function begin(title) {
  leaving.abort();
  leaving = new AbortController();
  actions = {};
  say("");
  document.title = title ? `${title} · Spicula` : "Spicula";
  main.replaceChildren();
  window.scrollTo(0, 0);
  return leaving.signal;
}

/** Do something that may be refused, and show the reason in its place. */
async function attempt(signal, work) {
  try {
    await work();
  } catch (error) {
    if (signal.aborted) return;
    say("");
    if (!(error instanceof Refused)) console.error(error);
    const what = error instanceof Refused ? error.message : "This page has a fault; the browser's console has more.";
    main.replaceChildren(make("div.narrow", {}, make("h1", {}, "This did not work"),
      make("p.reason", { role: "alert" }, what), make("p", {}, make("a.button", { href: "#", onclick: again }, "Back to the beginning")),
      isOfWhatWasSent() ? otherWay() : null));
  }
}

/** Whether what is shown came of the files that were sent last. */
const isOfWhatWasSent = () => Boolean(sent) && !(location.hash.startsWith("#exam/") && location.hash !== `#exam/${sent.id}`);

function again(event) {
  if (location.hash.length < 2) { event.preventDefault(); home(); }
}

/** Return what is served: models of single images, and whether there is one for exams. */
async function served(signal) {
  const { models } = await ask("/v1/models", signal);
  try {
    await ask("/v1/exams?limit=1", signal);
    return { models, hasExams: true };
  } catch (error) {
    if (error.code === "no-exam-model") return { models, hasExams: false };
    throw error;
  }
}

function home(address = "") {
  const signal = begin("");
  main.append(make("div.narrow", {}, make("h1.unseen", {}, "Spicula"), make("p.quiet", {}, "Asking the service what it can read")));
  attempt(signal, async () => {
    const { models, hasExams } = await served(signal);
    const list = hasExams ? await recent(address, signal) : null;
    const zone = dropZone((files) => take(files, models, hasExams));
    main.replaceChildren(make("div.narrow", {}, make("h1.unseen", {}, "Spicula"), zone, ways(models, hasExams), list));
    actions = { search: () => document.getElementById("search")?.focus() };
    main.querySelector("[aria-current]")?.scrollIntoView({ block: "center" });
  });
}

/** Return how files are read: as the page guesses, or as the reader says. */
function ways(models, hasExams) {
  const options = [["auto", "Decide by the files"], ["exam", "An exam"], ["images", "Single images"]];
  const pick = (value, text) => make("label", {},
    make("input", { type: "radio", name: "as", value, checked: choice.as === value, onchange: () => { choice.as = value; } }), ` ${text}`);
  if (!models.some((one) => one.name === choice.model)) choice.model = models[0]?.name ?? "";
  return make("div.ways", {},
    hasExams && models.length ? make("fieldset", {}, make("legend", {}, "Read as"), options.map(([value, text]) => pick(value, text))) : null,
    models.length > 1 ? make("label", {}, "Model of single images ", make("select", { onchange: (event) => { choice.model = event.target.value; } },
      models.map((one) => make("option", { value: one.name, selected: one.name === choice.model }, one.name)))) : null,
    !models.length && !hasExams ? make("p.reason", {}, "The service serves no model that reads images.") : null);
}

function take(files, models, hasExams) {
  const model = models.find((one) => one.name === choice.model);
  const isExam = hasExams && (!model || (choice.as === "auto" ? looksLikeExam(files) : choice.as === "exam"));
  if (!isExam && !model) return;
  sent = { files, models, hasExams, isExam, model };
  if (isExam) readExam();
  else readImages();
}

/** Return a way to read what was sent last as the other thing. */
function otherWay() {
  if (!sent?.hasExams || !sent.model) return null;
  const turn = () => { sent.isExam = !sent.isExam; (sent.isExam ? readExam : readImages)(); };
  return make("p.other", {}, make("span.quiet", {}, `Read as ${sent.isExam ? "an exam" : "single images"}. `),
    make("button", { type: "button", onclick: turn }, sent.isExam ? "Read as single images instead" : "Read as an exam instead"));
}

function readExam() {
  const signal = begin("Sending"), { files } = sent;
  const bar = make("progress", { max: 1, value: 0, "aria-label": "Upload" }), now = make("p", { role: "status" });
  main.append(make("div.narrow", {}, make("h1", {}, `Sending ${files.length} ${files.length === 1 ? "file" : "files"}`), bar, now,
    make("p", {}, make("button", { type: "button", onclick: () => home() }, "Cancel")), otherWay()));
  attempt(signal, async () => {
    const answer = await send("/v1/exams", files, (part) => {
      bar.value = part;
      now.textContent = part < 1 ? `${Math.round(100 * part)} % is sent.` : "The service looks through the files.";
    }, signal);
    sent.id = answer.id;
    location.hash = `exam/${answer.id}`;
  });
}

function readImages() {
  const signal = begin("Images");
  if (location.hash !== "#images") history.pushState(null, "", "#images");
  attempt(signal, async () => {
    await showImages(main, sent.files, sent.model, signal);
    main.append(otherWay() ?? "");
    main.focus({ preventScroll: true });
  });
}

function show() {
  const hash = location.hash.slice(1), [what, id] = hash.split("/");
  if (what === "exam" && id) {
    const signal = begin(`Exam ${id.slice(0, 8)}`);
    attempt(signal, async () => {
      const names = sent?.id === id && !sent.files.some(isArchive) ? sent.files.map((file) => file.name) : [];
      await showExam(main, id, signal, (found) => { actions = found; }, names);
      if (isOfWhatWasSent()) main.append(otherWay() ?? "");
      main.focus({ preventScroll: true });
    });
  } else if (what === "images" && sent && !sent.isExam) readImages();
  else home(hash.startsWith("?") ? hash : "");
}

document.getElementById("help").addEventListener("click", help);
// the address is the page's own: a link to #main would take the exam out of it
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
// files that miss the place for them would replace the page
for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());
window.addEventListener("hashchange", show);
listen(() => ({ ...actions, help }));
show();
