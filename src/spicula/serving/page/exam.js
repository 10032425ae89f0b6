// An exam: how far it is, then its views, its scores, and where they come from.
import { ask, fetched, hasToken, Refused, remove } from "./api.js";
import { make, meter, say, table, time, wait } from "./dom.js";
import { nameOf, neighbour, originOf, placeOf } from "./recent.js";
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
  const among = placeOf(id), turn = (step) => () => neighbour(id, step, signal).then((other) => { if (other) location.hash = `exam/${other}`; });
  const turns = among ? { next: turn(1), previous: turn(-1) } : {};
  to.replaceChildren(head(exam, among, turns));
  keys(turns);
  if (exam.reasons.length) to.append(reasons(exam, names));
  if (exam.images.length) to.append(views(exam, signal, (looks) => keys({ ...looks, ...turns })));
  const told = [scores(exam), remarks(exam), origin(exam)].filter(Boolean);
  to.append(make("div.told", {}, told));
}

async function finished(to, id, signal) {
  const bar = make("progress", { max: 1, value: 0, "aria-label": "Progress" });
  const now = make("p", { role: "status" }), list = make("ol.steps");
  const withdraw = make("button", { type: "button", onclick: () => withdrawn(id, signal) }, "Withdraw this exam");
  let seconds = FIRST_SECONDS, last = "";
  for (;;) {
    const exam = await ask(`/v1/exams/${encodeURIComponent(id)}`, signal);
    if (exam.finished !== null) return exam;
    if (!last) {
      to.replaceChildren(make("div.narrow", {}, make("h1", {}, "Exam ", short(exam)), bar, now, list,
        make("p.quiet", {}, "You can leave this page: the exam goes on, and stands in the list."), withdraw));
    }
    withdraw.hidden = exam.status !== "waiting";
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

async function withdrawn(id, signal) {
  try {
    await remove(`/v1/exams/${encodeURIComponent(id)}`, signal);
    location.hash = "";
  } catch (error) {
    if (error instanceof Refused) say(`It is not withdrawn: ${error.message}.`);
    else if (!signal.aborted) throw error;
  }
}

const short = (exam) => make("code", { title: exam.id }, nameOf(exam, 8));
const stepName = (step) => STEPS[step] ?? `Scores: ${MODELS[step.split(":")[1]] ?? step}`;

function head(exam, among, turns) {
  const { report, sr, sc, seg } = exam.links;
  const links = [
    [report, "Report", "report.html"], [sr, "DICOM SR", "report.dcm"], [sc, "DICOM SC", "heatmaps.zip"],
    [seg, "DICOM SEG", "segmentations.zip"],
  ];
  return make("div.head", {},
    make("h1", {}, "Exam ", short(exam)),
    make(`span.state.${exam.status}`, {}, exam.status),
    summary(exam),
    make("nav", { "aria-label": "Results" }, links.filter(([path]) => path).map(([path, text, name]) => link(path, text, name))),
    among ? make("nav", { "aria-label": "Exams" },
      make("button", { type: "button", disabled: among.number === 1, "aria-label": "Previous exam", title: "Previous exam", onclick: turns.previous }, "‹"),
      make("a.button", { href: among.back || "#", title: "The list", "aria-label": `${among.number} of ${among.total}, the list` }, `${among.number} of ${among.total.toLocaleString()}`),
      make("button", { type: "button", disabled: among.number === among.total, "aria-label": "Next exam", title: "Next exam", onclick: turns.next }, "›")) : null);
}

/** Return what there is to know before anything else: the malignant scores, and which model said so. */
function summary(exam) {
  const [model] = [...exam.models].sort((a, b) => byModel(a.name, b.name));
  const found = exam.predictions.filter((one) => one.model === model?.name && one.target === "malignant");
  if (!found.length) return null;
  const points = exam.operating_points.filter((one) => one.model === model.name && one.target === "malignant");
  const isReached = (side) => points.some((one) => one.breasts.some((breast) => breast.side === side && breast.is_reached));
  const of = (one) => make(isReached(one.side) ? "b.reached" : "b", { title: isReached(one.side) ? "It reaches an operating point" : "" },
    one.score.toFixed(3));
  return make("p.summary", {}, "Malignant: ",
    SIDES.flatMap((side) => found.filter((one) => one.side === side)).flatMap((one, at) => [at ? ", " : "", `${one.side} `, of(one)]),
    make("span.quiet", {}, ` by ${[model.bundle ?? model.name, model.version].filter(Boolean).join(" ")}`));
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
  const zoom = make("span"), legend = make("span.legend");
  const viewer = new Viewer(exam.images, signal, (look) => { follow(); explain(legend, look); },
    (scale) => { zoom.textContent = Number.isFinite(scale) ? `Zoom ${Math.round(100 * scale)} %` : ""; });
  const full = document.fullscreenEnabled ? () => (document.fullscreenElement ? document.exitFullscreen() : section.requestFullscreen()) : null;
  const [bar, following] = toolbar(viewer, full);
  const section = make("section.views", { "aria-label": "Views" }, bar, viewer.element,
    make("div.strip", {}, zoom, legend, make("span.notice", {}, "Research use only. Not a medical device.")));
  follow = following;
  viewer.set({});
  keys({ ...actions(viewer), ...(full ? { full_screen: full } : {}) });
  return section;
}

/** Say what the heatmap's colour means. */
function explain(legend, look) {
  if (!look.hasHeat) return legend.replaceChildren();
  const ramp = make(`span.ramp.${look.target}`, { "aria-hidden": "true" });
  ramp.style.setProperty("--strongest", look.opacity);
  return legend.replaceChildren(`Heatmap: a patch's probability of being ${look.target}, 0 `, ramp, " 1");
}

function scores(exam) {
  if (!exam.predictions.length) return null;
  const models = [...new Set(exam.predictions.map((one) => one.model))].sort(byModel);
  const of = (side, model, target) => exam.predictions.find((one) => one.side === side && one.model === model && one.target === target)?.score;
  const sides = SIDES.filter((side) => exam.predictions.some((one) => one.side === side));
  const breast = (side) => make("div.breast", {},
    make("h3", {}, `${capital(side)} breast`),
    models.map((model) => [
      models.length > 1 ? make("p.model", {}, MODELS[model] ?? model) : null,
      make("dl", {}, ["malignant", "benign"].map((target) => level(target, of(side, model, target)))),
      reached(exam, side, model),
    ]));
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

/** Say which operating points a breast's scores reach. */
function reached(exam, side, model) {
  const found = exam.operating_points.filter((one) => one.model === model).flatMap((one) => one.breasts.filter((breast) => breast.side === side)
    .map((breast) => make(breast.is_reached ? "li.reached" : "li", {},
      `${breast.is_reached ? "Reaches" : "Below"} ${one.threshold.toFixed(3)} for ${one.target} (${one.rule})`)));
  return found.length ? make("ul.points", {}, found) : null;
}

function level(target, score) {
  if (score === undefined) return null;
  return [make("dt", {}, capital(target)), make("dd", { title: String(score) },
    meter(target, score, `${target} score`), make("b", {}, score.toFixed(3)))];
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
    make("p.quiet", {}, "Received ", time(exam.time), originOf(exam) ? `, ${originOf(exam)}` : "", ". Answered ", time(exam.finished), "."),
    make("details", {}, make("summary", {}, "Steps"), table("Steps", ["Step", "Status", "Seconds", "Engine", "Time"], steps)));
}
