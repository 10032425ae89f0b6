// Drawing without a graphics processor: where pixels lie is worked out when the view moves, and what window and level
// make of them is looked up. Software WebGL, as on virtual desktops, works out both again for each frame.

/** Return a renderer, see render.js, on a canvas' context of two dimensions. */
export function byTables(context) {
  const greys = new Uint32Array(65536), parts = [];
  let image = null, heat = null, key = "";
  return {
    image: (one) => { image = one; },
    heat: (one) => { heat = one; },
    draw(boxes, look) {
      const wanted = `${look.low} ${look.high} ${look.invert}`;
      if (wanted !== key) shades(greys, look);
      key = wanted;
      parts.length = boxes.length;
      boxes.forEach((box, at) => {
        const part = (parts[at] = laid(parts[at], box, look.flip, context.canvas.height, image, heat));
        if (box.overlay && heat) over(part, greys, look);
        else plain(part, greys);
        context.putImageData(part.made, box.x, 0);
      });
    },
    free() { image = heat = null; parts.length = 0; },
  };
}

/** Fill the table: opaque grey, four bytes, of each value. */
function shades(greys, { low, high, invert }) {
  const gain = 255 / (high - low);
  for (let value = 0; value < greys.length; value++) {
    const shade = Math.round(Math.min(255, Math.max(0, (value - low) * gain))), grey = invert ? 255 - shade : shade;
    greys[value] = 0xff000000 | (grey << 16) | (grey << 8) | grey;
  }
}

/** Return the values and the heat of each pixel of a part of the canvas: those of before where nothing has moved. */
function laid(before, box, flip, height, image, heat) {
  const place = [box.x, box.width, height, box.left, box.top, box.wide, box.high, flip].join(" ");
  const isSame = before?.place === place, wantsHeat = box.overlay && heat !== null;
  if (isSame && before.image === image && (!wantsHeat || before.heat === heat)) return before;
  const count = box.width * height, isAsLarge = before?.values.length === count && before.made.width === box.width;
  const part = { place, image, heat: wantsHeat ? heat : null };
  part.made = isAsLarge ? before.made : new ImageData(box.width, height);
  part.values = isAsLarge ? before.values : new Uint16Array(count);
  if (!isSame || before.image !== image) sample(image, box, flip, height, part.values);
  if (wantsHeat) {
    part.heats = isAsLarge && before.heats ? before.heats : new Uint8Array(count);
    sample(heat, box, flip, height, part.heats);
  }
  return part;
}

/** Sample an image between its pixels, as WebGL's linear filter does; 0 beside it. */
function sample({ width, height, pixels }, box, flip, rows, to) {
  to.fill(0);
  const first = Math.max(0, Math.ceil(box.left - box.x - 0.5));
  const last = Math.min(box.width, Math.ceil(box.left + box.wide - box.x - 0.5));
  const near = new Int32Array(box.width), far = new Int32Array(box.width), part = new Float64Array(box.width);
  for (let x = first; x < last; x++) {
    const across = (x + box.x + 0.5 - box.left) / box.wide, at = (flip ? 1 - across : across) * width - 0.5;
    const floor = Math.floor(at);
    near[x] = Math.max(0, floor);
    far[x] = Math.min(width - 1, floor + 1);
    part[x] = at - floor;
  }
  const top = Math.max(0, Math.ceil(box.top - 0.5)), bottom = Math.min(rows, Math.ceil(box.top + box.high - 0.5));
  for (let y = top; y < bottom; y++) {
    const at = ((y + 0.5 - box.top) / box.high) * height - 0.5, floor = Math.floor(at), down = at - floor;
    const upper = Math.max(0, floor) * width, lower = Math.min(height - 1, floor + 1) * width, row = y * box.width;
    for (let x = first; x < last; x++) {
      const above = pixels[upper + near[x]], below = pixels[lower + near[x]];
      const one = above + (pixels[upper + far[x]] - above) * part[x];
      const other = below + (pixels[lower + far[x]] - below) * part[x];
      to[row + x] = one + (other - one) * down + 0.5;
    }
  }
}

function plain({ made, values }, greys) {
  const to = new Uint32Array(made.data.buffer);
  for (let at = 0; at < to.length; at++) to[at] = greys[values[at]];
}

/** Mix heat over grey: shares of 255 in whole numbers, where times 257 and the upper 16 bits divide by 255. */
function over({ made, values, heats }, greys, { opacity, color }) {
  const to = new Uint32Array(made.data.buffer);
  const shares = Uint8Array.from({ length: 256 }, (_, heat) => Math.round(heat * opacity));
  const [reds, greens, blues] = color.map((value) => Int32Array.from(shares, (share) => Math.round(255 * value) * share * 257 + 32768));
  for (let at = 0; at < to.length; at++) {
    const value = values[at], grey = greys[value], heat = heats[at];
    if (value === 0 || heat === 0) {
      to[at] = grey;
      continue;
    }
    const shade = (grey & 255) * (255 - shares[heat]) * 257;
    to[at] = 0xff000000 | ((shade + blues[heat]) & 0xff0000) | (((shade + greens[heat]) >> 8) & 0xff00) | ((shade + reds[heat]) >> 16);
  }
}
