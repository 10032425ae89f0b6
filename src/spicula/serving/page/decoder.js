// A worker that reads PNG files, so that the page goes on answering while it does.
import { decode } from "./png.js";

self.onmessage = async ({ data: { number, buffer } }) => {
  try {
    const image = await decode(buffer);
    self.postMessage({ number, image }, [image.pixels.buffer]);
  } catch (error) {
    self.postMessage({ number, why: error.message });
  }
};
