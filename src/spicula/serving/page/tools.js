// The controls above the views: they change how the viewer looks, and follow it.
import { make } from "./dom.js";

/**
 * Return the toolbar of a viewer, and a function that brings it in line with how the viewer looks.
 * @param {Viewer} viewer is changed
 * @param {(() => void)|null} full shows it on the whole screen, and back
 */
export function toolbar(viewer, full) {
  const followers = [];
  const add = (element, follow) => { followers.push(() => follow(viewer.look)); return element; };
  const switching = (text, name) => {
    const button = make("button", { type: "button", onclick: () => viewer.set({ [name]: !viewer.look[name] }) }, text);
    return add(button, (look) => button.setAttribute("aria-pressed", look[name]));
  };
  const choice = (legend, name, options, pick) => {
    const buttons = Object.entries(options).map(([value, text]) => {
      const button = make("button", { type: "button", onclick: () => pick(value) }, text);
      return add(button, (look) => button.setAttribute("aria-pressed", look[name] === value));
    });
    return make("div.choice", { role: "group", "aria-label": legend }, buttons);
  };
  const number = (text, read, write) => {
    const input = make("input", { type: "number", min: 0, max: 131070, step: 50, onchange: () => write(Number(input.value)) });
    return add(make("label.number", {}, text, input), (look) => {
      if (document.activeElement !== input) input.value = Math.round(read(look));
    });
  };
  const center = (look) => (look.low + look.high) / 2, width = (look) => look.high - look.low;
  const opacity = make("input", {
    type: "range", min: 0, max: 1, step: 0.05, oninput: () => viewer.set({ opacity: Number(opacity.value) }),
  });
  const hasMaps = viewer.look.hasHeat;
  const bar = make("div.tools", { role: "group", "aria-label": "How the views look" },
    choice("Views", "shown", { all: "All", CC: "CC", MLO: "MLO" }, (shown) => viewer.set({ shown })),
    choice("Window", "preset", { auto: "Auto", full: "Full", dense: "Dense", fat: "Fat" }, (name) => viewer.preset(name)),
    number("Level", center, (value) => viewer.window(value, width(viewer.look))),
    number("Width", width, (value) => viewer.window(center(viewer.look), value)),
    switching("Invert", "invert"),
    choice("Dragging", "tool", { window: "Drag: window", move: "Drag: move" }, (tool) => viewer.set({ tool })),
    make("div.choice", { role: "group", "aria-label": "Zoom" },
      make("button", { type: "button", "aria-label": "Zoom out", onclick: () => viewer.zoom(-1) }, "−"),
      make("button", { type: "button", "aria-label": "Zoom in", onclick: () => viewer.zoom(1) }, "+"),
      make("button", { type: "button", title: "A pixel of the images on each of the screen, and back", onclick: () => viewer.actual() }, "1:1")),
    make("button", { type: "button", onclick: () => viewer.reset() }, "Reset"),
    hasMaps ? make("div.maps", { role: "group", "aria-label": "Heatmap" },
      switching("Heatmap", "hasHeat"),
      choice("Heatmap of", "target", { malignant: "Malignant", benign: "Benign" }, (target) => viewer.set({ target })),
      add(make("label.number", {}, "Opacity", opacity), (look) => { opacity.value = look.opacity; }),
      switching("Side by side", "isBeside")) : make("p.quiet", {}, "No heatmaps"),
    full ? make("button", { type: "button", onclick: full }, "Full screen") : null);
  return [bar, () => followers.forEach((follow) => follow())];
}

/** Return what keys do to a viewer, by the names of keys.js. */
export function actions(viewer) {
  const look = viewer.look, toggle = (name) => () => viewer.set({ [name]: !look[name] });
  const more = (by) => () => viewer.set({ opacity: Math.min(1, Math.max(0, Math.round((look.opacity + by) * 20) / 20)) });
  const move = (x, y) => () => viewer.move(x, y);
  const has = viewer.panes.some((pane) => pane.image.links.heatmap_malignant);
  const maps = {
    heatmap: toggle("hasHeat"), beside: toggle("isBeside"), fainter: more(-0.1), stronger: more(0.1),
    target: () => viewer.set({ target: look.target === "malignant" ? "benign" : "malignant" }),
  };
  return {
    ...Object.fromEntries(["auto", "full", "dense", "fat"].map((name) => [name, () => viewer.preset(name)])),
    ...(has ? maps : {}),
    invert: toggle("invert"), actual: () => viewer.actual(), reset: () => viewer.reset(), alone: () => viewer.alone(),
    all: () => viewer.set({ shown: "all" }), cc: () => viewer.set({ shown: "CC" }), mlo: () => viewer.set({ shown: "MLO" }),
    closer: () => viewer.zoom(1), farther: () => viewer.zoom(-1),
    left: move(-40, 0), right: move(40, 0), up: move(0, -40), down: move(0, 40),
    narrower: () => viewer.adjust(0, 0.9), wider: () => viewer.adjust(0, 1 / 0.9),
    brighter: () => viewer.adjust(-0.05, 1), darker: () => viewer.adjust(0.05, 1),
  };
}
