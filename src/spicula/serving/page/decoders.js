// PNG files read by workers, as many as the views need and the machine has.

const MOST = 4;
const waiting = new Map();
const workers = [];
let count = 0;

/** Read a file of the service, see png.js; the buffer is gone afterwards. */
export function decoded(buffer) {
  const number = count++, at = number % Math.min(MOST, Math.max(1, (navigator.hardwareConcurrency || 2) - 1));
  workers[at] ??= worker();
  return new Promise((done, failed) => {
    waiting.set(number, { done, failed });
    workers[at].postMessage({ number, buffer }, [buffer]);
  });
}

function worker() {
  const made = new Worker("/page/decoder.js", { type: "module" });
  made.onmessage = ({ data: { number, image, why } }) => {
    const { done, failed } = waiting.get(number);
    waiting.delete(number);
    if (image) done(image);
    else failed(new Error(why));
  };
  return made;
}
