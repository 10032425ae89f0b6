// The four views as they hang: R-CC, L-CC, R-MLO, L-MLO, backs together, under one window, one zoom and one heatmap.
import { make } from "./dom.js";
import { follow } from "./gestures.js";
import { Pane } from "./pane.js";

/** One pixel may become so large, and any image so much larger than it fits. */
const MOST_SCALE = 16, MOST_ZOOM = 4, STEP = 1.25;
/** The heatmaps' colors, those of the report. */
const COLORS = { malignant: [1, 0.16, 0.16], benign: [0.1, 0.8, 0.3] };
/** From which part of the breast's pixels to which: black and white. */
const SHARES = { auto: [0.01, 0.995], dense: [0.5, 0.999], fat: [0, 0.6] };

const clamp = (value, least, most) => Math.min(most, Math.max(least, value));

export class Viewer {
  /**
   * @param {object[]} images as /v1/exams/ID answers them, in hanging order
   * @param {AbortSignal} signal ends it
   * @param {(look: object) => void} told called with how it looks, whenever that changes
   * @param {(scale: number) => void} drawn called with the pixels of the screen that one of the images has, after drawing
   */
  constructor(images, signal, told, drawn) {
    this.told = told;
    this.drawn = drawn;
    this.look = {
      low: 0, high: 65535, invert: false, zoom: 1, depth: 0, down: 0, preset: "auto", tool: "window",
      hasHeat: images.some((image) => image.links.heatmap_malignant), target: "malignant", opacity: 0.5,
      isBeside: false, shown: "all",
    };
    this.isDue = false;
    this.isSet = false;
    const views = [...new Set(images.map((image) => image.view))];
    this.panes = views.map((view) => new Pane(images.filter((image) => image.view === view), signal, () => this.arrived()));
    this.element = make("div.hanging", { role: "group", "aria-label": "Views, right breast left, backs together" },
      ["CC", "MLO"].map((name) => this.pair(name)));
    for (const pane of this.panes) follow(this, pane);
    const observer = new ResizeObserver(() => this.draw());
    observer.observe(this.element);
    signal.addEventListener("abort", () => {
      observer.disconnect();
      for (const pane of this.panes) pane.free();
      this.panes = [];
    });
  }

  /** Return the views of both breasts; the place of one that is missing stays empty. */
  pair(name) {
    const place = (side) => this.panes.find((pane) => pane.view === `${side}-${name}`)?.element
      ?? missing(`${side}-${name}`);
    return make("div.pair", {}, ["R", "L"].map(place));
  }

  /** Change how it looks. */
  set(changes) {
    Object.assign(this.look, changes);
    this.element.dataset.shown = this.look.shown;
    for (const pair of this.element.children) {
      for (const place of pair.children) place.hidden = !isShown(place.dataset.view, this.look.shown);
      pair.hidden = [...pair.children].every((place) => place.hidden);
    }
    this.told(this.look);
    this.draw();
  }

  /** Black, white and everything else as at the beginning. */
  reset() {
    this.set({ invert: false, zoom: 1, depth: 0, down: 0, isBeside: false, shown: "all" });
    this.preset("auto");
  }

  /** Set black and white by what is in the images. */
  preset(name) {
    const counts = this.counts();
    const [first, last] = name === "full" ? [0, 1] : SHARES[name];
    const low = first === 0 ? 0 : share(counts, first), high = share(counts, last);
    this.set({ low, high: Math.max(high, low + 1), preset: name });
  }

  /** Set the middle and the width of the grey scale. */
  window(center, width) {
    const wide = clamp(width, 1, 131070), middle = clamp(center, 0, 65535);
    this.set({ low: middle - wide / 2, high: middle + wide / 2, preset: "" });
  }

  /** Move the middle, and multiply the width. */
  adjust(by, factor) {
    const { low, high } = this.look;
    this.window((low + high) / 2 + by * (high - low), (high - low) * factor);
  }

  /** Zoom by some steps, around a point of a pane, or around its middle. */
  zoom(steps, pane = this.panes.find((one) => !one.element.hidden), point = null) {
    const { width } = pane.fit(), { zoom, depth, down, isBeside } = this.look;
    const { across, below } = point ?? { across: width / (isBeside ? 4 : 2), below: 0 };
    const scale = this.scale(), fitting = scale / zoom;
    if (!Number.isFinite(scale)) return;
    const next = clamp(zoom * STEP ** steps, 1, Math.max(MOST_ZOOM, MOST_SCALE / fitting));
    const after = fitting * next;
    this.place(next, depth + across / scale - across / after, down + below / scale - below / after);
  }

  /** Return how many steps of zoom make things so many times as large. */
  steps(times) {
    return Math.log(times) / Math.log(STEP);
  }

  /** Show a pixel of the images on each of the screen, or what fits again. */
  actual() {
    const scale = this.scale();
    if (Math.abs(scale - 1) < 1e-6) this.place(1, 0, 0);
    else this.zoom(this.steps(1 / scale));
  }

  /** Move all images, in canvas pixels: away from the chest wall, and down. */
  move(across, below) {
    const scale = this.scale();
    if (!Number.isFinite(scale)) return;
    this.place(this.look.zoom, this.look.depth - across / scale, this.look.down - below / scale);
  }

  place(zoom, depth, down) {
    const wide = Math.max(...this.panes.map((pane) => pane.stored?.width ?? 1));
    const high = Math.max(...this.panes.map((pane) => pane.stored?.height ?? 1));
    const isWhole = zoom === 1;
    this.set({
      zoom, depth: isWhole ? 0 : clamp(depth, -wide / 4, wide * 0.9), down: isWhole ? 0 : clamp(down, -high / 2, high / 2),
    });
  }

  /** Return how many pixels of the canvas one of the images has. */
  scale() {
    const visible = this.panes.filter((pane) => !pane.element.hidden && pane.stored);
    return Math.min(...visible.map((pane) => pane.fitting(this.look.isBeside))) * this.look.zoom;
  }

  arrived() {
    if (!this.panes) return;
    if (!this.isSet && this.panes.every((pane) => pane.picture)) {
      this.isSet = true;
      this.preset("auto");
    }
    this.draw();
  }

  draw() {
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      if (!this.isSet && this.panes.some((pane) => pane.picture)) this.window(...this.middle());
      const scale = this.scale();
      for (const pane of this.panes) if (!pane.element.hidden) pane.draw({ ...this.look, color: COLORS[this.look.target] }, scale);
      this.drawn(scale);
    });
  }

  /** Until all are there: by those that are. */
  middle() {
    const counts = this.counts(), low = share(counts, 0.01), high = share(counts, 0.995);
    return [(low + high) / 2, high - low];
  }

  /** Count the values of the breasts' pixels. */
  counts() {
    const counts = new Float64Array(65536);
    for (const { first } of this.panes) if (first) for (const value of first.pixels) counts[value] += 1;
    counts[0] = 0;
    return counts;
  }

  /** Show one view alone, or all again. */
  alone(pane = this.panes.find((one) => one.element === document.activeElement)) {
    if (pane) this.set({ shown: this.look.shown === pane.view ? "all" : pane.view });
  }
}

function missing(view) {
  const element = make(`div.pane.missing.${view.startsWith("R") ? "right" : "left"}`, {}, make("span.view", {}, `${view}: none`));
  element.dataset.view = view;
  return element;
}

/** Whether a view is to be seen where "all", "CC", "MLO" or one view is asked for. */
const isShown = (view, shown) => ["all", view, view.slice(2)].includes(shown);

/** Return the value that a share of all counted pixels has at most. */
function share(counts, part) {
  const total = counts.reduce((sum, count) => sum + count, 0);
  let sum = 0;
  for (let value = 0; value < counts.length; value++) {
    sum += counts[value];
    if (sum >= part * total && sum > 0) return value;
  }
  return counts.length - 1;
}


