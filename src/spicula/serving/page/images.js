// Single images, histology or mammograms: what a model says of each, with Grad-CAM where it has one.
import { send } from "./api.js";
import { make, meter, table, time } from "./dom.js";

/** Names of files that browsers show. */
const SHOWN = /\.(png|jpe?g)$/i;

/**
 * Send images, and show what comes of them.
 * @param {HTMLElement} to where it is shown
 * @param {File[]} files the images
 * @param {object} model as /v1/models lists it
 */
export async function showImages(to, files, model, signal) {
  const bar = make("progress", { max: 1, value: 0, "aria-label": "Upload" }), now = make("p", { role: "status" }, "Sending");
  to.replaceChildren(make("div.narrow", {}, make("h1", {}, files.length === 1 ? "One image" : `${files.length} images`), bar, now));
  const explain = model.explanations.includes("gradcam") ? "gradcam" : "none";
  const path = `/v1/predict?model=${encodeURIComponent(model.name)}&explain=${explain}`;
  const answer = await send(path, files, (part) => {
    bar.value = part;
    if (part === 1) { now.textContent = "The model is looking"; bar.removeAttribute("value"); }
  }, signal);
  const refused = answer.images.filter((one) => one.refused).length;
  to.replaceChildren(
    make("div.head", {},
      make("h1", {}, files.length === 1 ? "One image" : `${files.length} images`),
      refused ? make("span.state.refused", {}, `${refused} refused`) : null),
    make("div.cards", {}, answer.images.map((one) => card(answer, one, files[one.position], signal))),
    make("div.told", {}, origin(answer, model)));
}

function card(answer, image, file, signal) {
  const title = make("h2", {}, file?.name || `Image ${image.position + 1}`);
  if (image.refused) {
    return make("article.card.refused", {}, title, make("p.reason", { role: "alert" }, make("b", {}, "Refused: "), image.reason));
  }
  const scores = image.scores.map((one) => [make("dt", {}, one.class), make("dd", { title: String(one.probability) },
    meter("", one.probability, `${one.class} probability`), make("b", {}, one.probability.toFixed(3)))]);
  const decisions = image.decisions.map((one) => make("li", {},
    make("b", {}, one.decision), ` at the operating point ${one.operating_point}: the probability of ${answer.target} is `
    + `${image.score >= one.threshold ? "at least" : "below"} ${one.threshold.toPrecision(3)}.`));
  return make("article.card", {}, title,
    make("p.answer", {}, make("b", {}, image.class), image.side ? ` · side ${image.side}` : ""),
    make("dl", {}, scores),
    decisions.length ? make("ul", {}, decisions) : make("p", {}, "The model states no operating point."),
    image.explanation ? explained(image.explanation, file, signal) : make("p.quiet", {}, "No heatmap: the model's bundle holds none."));
}

function explained({ image_png, heatmap_png, class: of }, file, signal) {
  const png = (data, alt) => make("img", { src: `data:image/png;base64,${data}`, alt });
  const heat = png(heatmap_png, `Grad-CAM: what spoke for ${of}`);
  const opacity = make("input", { type: "range", min: 0, max: 1, step: 0.05, value: 0.7, oninput: () => { heat.style.opacity = opacity.value; } });
  const plain = make("figure", { hidden: true }, png(image_png, "The image as the model sees it"), make("figcaption", {}, "As the model sees it"));
  const whole = SHOWN.test(file?.name ?? "") ? make("figure", { hidden: true }, picture(file, signal), make("figcaption", {}, "As it was sent")) : null;
  const showing = (text, figure) => {
    const button = make("button", {
      type: "button", "aria-pressed": "false",
      onclick: () => { figure.hidden = !figure.hidden; button.setAttribute("aria-pressed", !figure.hidden); },
    }, text);
    return button;
  };
  heat.style.opacity = opacity.value;
  return make("div.explained", {},
    make("div.figures", {}, make("figure", {}, make("div.stack", {}, png(image_png, ""), heat), make("figcaption", {}, `Grad-CAM for ${of}`)), plain, whole),
    make("div.tools", {}, make("label.number", {}, "Heatmap", opacity), showing("Side by side", plain),
      whole ? showing("As sent", whole) : null));
}

/** Return the picture of a file as the browser shows it. */
function picture(file, signal) {
  const address = URL.createObjectURL(file);
  signal.addEventListener("abort", () => URL.revokeObjectURL(address));
  return make("img", { src: address, alt: "The image as it was sent" });
}

function origin(answer, model) {
  return make("section", {},
    make("h2", {}, "Model"),
    table("Model", ["Name", "Version", "Digest (SHA-256)"], [[
      answer.model.name, answer.model.version,
      make("code.digest", { title: answer.model.digest }, answer.model.digest.slice(0, 16)),
    ]]),
    make("p", {}, `Probabilities: ${answer.probability.how}.`),
    answer.operating_points.length ? make("p", {}, "Thresholds were chosen on: ",
      answer.operating_points.map((one) => `${one.name} on ${one.chosen_on}`).join(", "), ".") : null,
    make("p.quiet", {}, `Made for: ${model.scope.statement} Answered `, time(answer.time), "."));
}
