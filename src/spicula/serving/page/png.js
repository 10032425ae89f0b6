// PNG of 8 or 16 bits of grey, with all of its bits: browsers show 16 bits as 8.
// Chunks, filters and predictors: PNG (Third Edition), sections 5, 7 and 9.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const GREY = 0;

/**
 * Read a grey PNG that is not interlaced, as the service writes them.
 * @param {ArrayBuffer} buffer the file
 * @returns {Promise<{width: number, height: number, pixels: Uint8Array|Uint16Array}>} rows from the top
 */
export async function decode(buffer) {
  const bytes = new Uint8Array(buffer), view = new DataView(buffer);
  if (bytes.length < 33 || SIGNATURE.some((value, at) => bytes[at] !== value)) throw new Error("this is no PNG");
  const width = view.getUint32(16), height = view.getUint32(20), depth = bytes[24];
  if (bytes[25] !== GREY || bytes[28] !== 0 || (depth !== 8 && depth !== 16)) {
    throw new Error("this PNG is not grey of 8 or 16 bits");
  }
  const sample = depth / 8, line = width * sample;
  const raw = await inflated(dataOf(bytes, view));
  if (raw.length < (line + 1) * height) throw new Error("this PNG is cut short");
  const rows = unfiltered(raw, line, height, sample);
  return { width, height, pixels: depth === 8 ? rows : wide(rows) };
}

function dataOf(bytes, view) {
  const parts = [];
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at), kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (kind === "IDAT") parts.push(bytes.subarray(at + 8, at + 8 + length));
    if (kind === "IEND") break;
    at += length + 12;
  }
  return new Blob(parts);
}

async function inflated(blob) {
  const stream = blob.stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function unfiltered(raw, line, height, sample) {
  const found = new Uint8Array(line * height);
  let above = new Uint8Array(line);
  for (let row = 0; row < height; row++) {
    const begin = row * (line + 1), kind = raw[begin];
    const from = raw.subarray(begin + 1, begin + 1 + line), to = found.subarray(row * line, (row + 1) * line);
    unfilter(kind, from, to, above, sample);
    above = to;
  }
  return found;
}

function unfilter(kind, from, to, above, sample) {
  const length = to.length;
  if (kind === 0) to.set(from);
  else if (kind === 1) {
    for (let at = 0; at < sample; at++) to[at] = from[at];
    for (let at = sample; at < length; at++) to[at] = from[at] + to[at - sample];
  } else if (kind === 2) for (let at = 0; at < length; at++) to[at] = from[at] + above[at];
  else if (kind === 3) {
    for (let at = 0; at < sample; at++) to[at] = from[at] + (above[at] >> 1);
    for (let at = sample; at < length; at++) to[at] = from[at] + ((to[at - sample] + above[at]) >> 1);
  } else if (kind === 4) {
    for (let at = 0; at < sample; at++) to[at] = from[at] + above[at];
    for (let at = sample; at < length; at++) to[at] = from[at] + paeth(to[at - sample], above[at], above[at - sample]);
  } else throw new Error("this PNG has a filter that there is not");
}

function paeth(left, above, corner) {
  const guess = left + above - corner;
  const a = Math.abs(guess - left), b = Math.abs(guess - above), c = Math.abs(guess - corner);
  if (a <= b && a <= c) return left;
  return b <= c ? above : corner;
}

/** Return samples of two bytes, the first of them the higher one. */
function wide(rows) {
  const found = new Uint16Array(rows.length / 2);
  for (let at = 0; at < found.length; at++) found[at] = (rows[2 * at] << 8) | rows[2 * at + 1];
  return found;
}
