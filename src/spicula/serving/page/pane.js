// One view of an exam: its picture, fetched as large as it is shown, and where it lies on its canvas.
import { fetched } from "./api.js";
import { decoded } from "./decoders.js";
import { make } from "./dom.js";
import { rendererOf } from "./render.js";

/** Longest sides that the service makes pictures at. */
const SIZES = [1024, 2048, 4096];

export class Pane {
  /**
   * @param {object[]} images of one view, as /v1/exams/ID answers them
   * @param {AbortSignal} signal ends what is being fetched
   * @param {() => void} changed called when there is something new to draw
   */
  constructor(images, signal, changed) {
    this.images = images;
    this.signal = signal;
    this.changed = changed;
    this.view = images[0].view;
    this.isRight = this.view.startsWith("R");
    this.canvas = make("canvas", { role: "img" });
    this.name = make("span.view", {}, this.view);
    this.note = make("span.note");
    this.next = images.length > 1 ? make("button.next", { type: "button", onclick: () => this.turn() }) : null;
    this.element = make("div.pane", { tabIndex: 0, role: "group", "aria-label": `View ${this.view}` },
      this.canvas, this.name, this.note, this.next);
    this.element.classList.add(this.isRight ? "right" : "left");
    this.element.dataset.view = this.view;
    this.renderer = rendererOf(this.canvas);
    this.canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    this.canvas.addEventListener("webglcontextrestored", () => this.restore());
    this.at = -1;
    this.turn();
  }

  /** Show the next of several images of the view. */
  turn() {
    this.at = (this.at + 1) % this.images.length;
    this.image = this.images[this.at];
    this.picture = this.first = this.stored = null;
    this.heats = {};
    this.size = 0;
    this.shown = undefined;
    this.canvas.setAttribute("aria-label", `${this.view} mammogram${this.image.links.heatmap_malignant ? ", with heatmap" : ""}`);
    if (this.next) {
      this.next.textContent = `${this.at + 1} of ${this.images.length}`;
      this.next.setAttribute("aria-label", `${this.view}: image ${this.at + 1} of ${this.images.length}, show the next`);
    }
    this.changed();
    return this.load(SIZES[0]);
  }

  /** Fetch the picture at a size; `picture` is there when it has come. */
  async load(size) {
    const { image } = this, link = image.links.crop ?? image.links.whole;
    this.size = size;
    this.note.textContent = this.picture ? "" : "Loading";
    try {
      const picture = await this.fetch(`${link}&size=${size}`);
      if (image !== this.image) return;
      if (!(picture.pixels instanceof Uint16Array)) picture.pixels = Uint16Array.from(picture.pixels, (value) => 257 * value);
      this.picture = picture;
      this.first ??= picture; // presets stay the same when more pixels come
      this.stored ??= this.storedSize();
      this.renderer.image(picture);
      this.note.textContent = "";
      this.changed();
    } catch (error) {
      if (!this.signal.aborted) this.note.textContent = error.message;
    }
  }

  /** Return width and height of what is shown, in pixels of the stored image. */
  storedSize() {
    const [top, bottom, left, right] = (this.image.links.crop && this.image.geometry.window_location) || [];
    return right ? { width: right - left, height: bottom - top } : this.picture;
  }

  async loadHeat(target) {
    const { image } = this, link = image.links[`heatmap_${target}`];
    if (!link || target in this.heats) return;
    this.heats[target] = null;
    try {
      this.heats[target] = await this.fetch(`${link}&form=grey&size=${SIZES[0]}`);
      if (image === this.image) this.changed();
    } catch (error) {
      if (!this.signal.aborted) this.note.textContent = error.message;
    }
  }

  async fetch(path) {
    return decoded(await (await fetched(path, this.signal)).arrayBuffer());
  }

  /** Fit the canvas to its place on the screen; return its size in pixels. */
  fit() {
    const ratio = window.devicePixelRatio || 1;
    const width = Math.max(2, Math.round(this.element.clientWidth * ratio));
    const height = Math.max(2, Math.round(this.element.clientHeight * ratio));
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;
    return { width, height, ratio };
  }

  /**
   * Return the parts of the canvas: one, or with the plain image beside it two. The plain one is at the chest wall, so
   * that plain images of both breasts stay back to back.
   */
  parts(isBeside) {
    const { width } = this.fit();
    if (!isBeside) return [{ x: 0, width, overlay: true }];
    const half = Math.floor(width / 2), near = { x: 0, width: half }, far = { x: half, width: width - half };
    return [{ ...near, overlay: this.isRight }, { ...far, overlay: !this.isRight }];
  }

  /** Return how many canvas pixels a stored pixel may have for the whole image to fit. */
  fitting(isBeside) {
    if (!this.stored) return Infinity;
    return Math.min(this.parts(isBeside)[0].width / this.stored.width, this.canvas.height / this.stored.height);
  }

  /** Draw; the look is that of `Viewer`, the scale is in canvas pixels per stored pixel. */
  draw(look, scale) {
    this.canvas.hidden = !this.picture;
    if (!this.picture) return;
    if (look.hasHeat) this.loadHeat(look.target);
    const heat = this.heats[look.target] ?? null;
    if (heat !== this.shown) this.renderer.heat(heat);
    this.shown = heat;
    const wide = this.stored.width * scale, high = this.stored.height * scale;
    const top = this.canvas.height / 2 - high / 2 - look.down * scale;
    const boxes = this.parts(look.isBeside).map((part) => {
      const left = this.isRight ? part.x + part.width - wide + look.depth * scale : part.x - look.depth * scale;
      return { ...part, left, top, wide, high, overlay: part.overlay && look.hasHeat && heat !== null };
    });
    this.renderer.draw(boxes, { ...look, flip: this.image.is_mirrored === true });
    this.sharpen(Math.max(wide, high));
  }

  /** Fetch more pixels once less than one is there for each of the canvas. */
  sharpen(longest) {
    const have = Math.max(this.picture.width, this.picture.height);
    const wanted = SIZES.find((size) => size >= longest) ?? SIZES.at(-1);
    const isAll = have >= Math.max(this.stored.width, this.stored.height) || have < this.size;
    if (wanted > this.size && !isAll) this.load(wanted);
  }

  /** Return where a point of the screen is: canvas pixels from the chest wall, and down from the middle. */
  point(event, isBeside) {
    const { ratio, width, height } = this.fit(), box = this.canvas.getBoundingClientRect();
    const part = isBeside ? width / 2 : width;
    const x = ((event.clientX - box.left) * ratio) % part, y = (event.clientY - box.top) * ratio;
    return { across: this.isRight ? part - x : x, below: y - height / 2 };
  }

  restore() {
    this.renderer = rendererOf(this.canvas);
    this.shown = undefined;
    if (this.picture) this.renderer.image(this.picture);
    this.changed();
  }

  free() {
    this.renderer.free();
  }
}
