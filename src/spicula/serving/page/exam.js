// An exam: how far it is, then its views, its scores, and where they come from.
import { ask, fetched, hasToken } from "./api.js";
import { make, table, time, wait } from "./dom.js";
import { actions, toolbar } from "./tools.js";
import { Viewer } from "./viewer.js";

const FIRST_SECONDS = 0.5, MOST_SECONDS = 8;
const STEPS = {
  crop: "Finding the breasts", centers: "Choosing where the networks look", heatmaps: "Making heatmaps",
  visualize: "Making pictures",
};
const MODELS = { "image-and-heatmaps": "Images and heatmaps", "image-only": "Images alone" };
/** The model that sees more comes first. */
const byModel = (a, b) => Object.keys(MODELS).indexOf(a) - Object.keys(MODELS).indexOf(b);
const SIDES = ["right", "left"];
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/**
 * Show an exam, and wait until it is finished.
 * @param {HTMLElement} to where it is shown
 * @param {string} id the exam's
 * @param {(actions: object) => void} keys told what keys do
 * @param {string[]} names of the files that were sent from here, which the service does not keep
 */
export async function showExam(to, id, signal, keys, names = []) {
  const exam = await finished(to, id, signal);
  to.replaceChildren(head(exam));
  if (exam.reasons.length) to.append(reasons(exam, names));
  if (exam.images.length) to.append(views(exam, signal, keys));
  const told = [scores(exam), remarks(exam), origin(exam)].filter(Boolean);
  to.append(make("div.told", {}, told));
}

async function finished(to, id, signal) {
  const bar = make("progress", { max: 1, value: 0, "aria-label": "Progress" });
  const now = make("p", { role: "status" }), list = make("ol.steps");
  let seconds = FIRST_SECONDS, last = "";
  for (;;) {
    const exam = await ask(`/v1/exams/${encodeURIComponent(id)}`, signal);
    if (exam.finished !== null) return exam;
    if (!last) to.replaceChildren(make("div.narrow", {}, make("h1", {}, "Exam ", short(exam.id)), bar, now, list));
    const { done, total, steps, ahead } = exam.progress;
    bar.value = total ? done / total : 0;
    now.textContent = exam.status === "running" ? `${done} of ${total} steps are done.`
      : ahead ? `It waits; ${ahead} ${ahead === 1 ? "exam is" : "exams are"} before it.` : "It is next.";
    list.replaceChildren(...steps.map((one) => make(`li.${one.status}`, {}, stepName(one.step), make("span", {}, ` ${one.status}`))));
    const state = JSON.stringify(exam.progress);
    seconds = state === last ? Math.min(seconds * 1.5, MOST_SECONDS) : FIRST_SECONDS;
    last = state;
    await wait(seconds, signal);
  }
}

const short = (id) => make("code", { title: id }, id.slice(0, 8));
const stepName = (step) => STEPS[step] ?? `Scores: ${MODELS[step.split(":")[1]] ?? step}`;

function head(exam) {
  const { report, sr, sc, seg } = exam.links;
  const links = [
    [report, "Report", "report.html"], [sr, "DICOM SR", "report.dcm"], [sc, "DICOM heatmaps", "heatmaps.zip"],
    [seg, "DICOM SEG", "segmentations.zip"],
  ];
  return make("div.head", {},
    make("h1", {}, "Exam ", short(exam.id)),
    make(`span.state.${exam.status}`, {}, exam.status),
    make("span.quiet", {}, "received ", time(exam.time)),
    make("nav", { "aria-label": "Results" }, links.filter(([path]) => path).map(([path, text, name]) => link(path, text, name))));
}

/** Return a link to a file of the service; with a token it is fetched first, because a plain link would not carry it. */
function link(path, text, name) {
  if (!hasToken()) return make("a.button", { href: path, target: name.endsWith("html") ? "_blank" : "", rel: "noopener" }, text);
  const save = async () => {
    const address = URL.createObjectURL(await (await fetched(path)).blob());
    make("a", { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  };
  return make("button", { type: "button", onclick: save }, text);
}

function reasons(exam, names) {
  return make("section.reason", { role: "alert" },
    make("h2", {}, exam.status === "refused" ? "Why it was refused" : "What went wrong"),
    make("ul", {}, exam.reasons.map((reason) => make("li", {}, reason))),
    names.length ? [make("p", {}, "The files, as they were sent:"), make("ol", {}, names.map((name) => make("li", {}, name)))] : null);
}

function views(exam, signal, keys) {
  let follow = () => {};
  const viewer = new Viewer(exam.images, signal, () => follow());
  const [bar, following] = toolbar(viewer);
  follow = following;
  viewer.set({});
  keys(actions(viewer));
  return make("section.views", { "aria-label": "Views" }, bar, viewer.element);
}

function scores(exam) {
  if (!exam.predictions.length) return null;
  const models = [...new Set(exam.predictions.map((one) => one.model))].sort(byModel);
  const of = (side, model, target) => exam.predictions.find((one) => one.side === side && one.model === model && one.target === target)?.score;
  const sides = SIDES.filter((side) => exam.predictions.some((one) => one.side === side));
  const breast = (side) => make("div.breast", {},
    make("h3", {}, `${capital(side)} breast`),
    models.map((model) => make("dl", {},
      make("div.model", {}, models.length > 1 ? MODELS[model] ?? model : ""),
      ["malignant", "benign"].map((target) => level(target, of(side, model, target))))));
  const points = exam.operating_points.map((one) => make("li", {}, make("b", {}, MODELS[one.model] ?? one.model), `: ${one.meaning}`));
  return make("section.scores", {},
    make("h2", {}, "Scores"),
    make("div.breasts", {}, sides.map(breast)),
    make("h3", {}, "Operating point"),
    points.length ? make("ul", {}, points)
      : make("p", {}, "The model states none: its scores put breasts in an order, and no score means yes or no."),
    make("p.quiet", {}, "A score is what the networks answer, from 0 to 1. What share of breasts with such a score have cancer "
      + "depends on who is examined; it is not the probability for this breast."));
}

function level(target, score) {
  if (score === undefined) return null;
  return [make("dt", {}, capital(target)), make("dd", { title: String(score) },
    make(`meter.${target}`, { min: 0, max: 1, value: score, "aria-label": `${target} score` }), make("b", {}, score.toFixed(3)))];
}

function remarks(exam) {
  const of = (image) => image.notes.map((note) => `${image.view}${image.number > 1 ? ` (${image.number})` : ""}: ${note}`);
  const notes = [...exam.notes, ...exam.images.flatMap(of)];
  for (const image of exam.images) if (image.is_mirrored) notes.push(`${image.view}: stored as its mirror image; it is turned here`);
  return make("section", {},
    make("h2", {}, "Notes"),
    notes.length ? make("ul", {}, notes.map((note) => make("li", {}, note))) : make("p", {}, "Nothing odd was found, and nothing corrected."));
}

function origin(exam) {
  const models = [...exam.models].sort((a, b) => byModel(a.name, b.name)).map((one) => [
    MODELS[one.name] ?? one.name, one.bundle ?? "", one.version ?? "",
    make("code.digest", { title: one.digest }, one.digest.slice(0, 16)),
  ]);
  const steps = exam.stages.map((one) => [
    stepName(one.step), one.status, one.seconds === null ? "" : one.seconds.toFixed(2), one.engine ?? "", time(one.time),
  ]);
  return make("section", {},
    make("h2", {}, "Model"),
    models.length ? table("Models", ["Scores of", "Bundle", "Version", "Digest (SHA-256)"], models) : make("p", {}, "No model was asked."),
    make("p.quiet", {}, "Answered ", time(exam.finished), "."),
    make("details", {}, make("summary", {}, "Steps"), table("Steps", ["Step", "Status", "Seconds", "Engine", "Time"], steps)));
}
