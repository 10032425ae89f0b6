// Elements of the page. Text comes in as text alone, so nothing of a file or a DICOM header is ever read as HTML.

/**
 * Make an element.
 * @param {string} kind "p", or "p.class.class"
 * @param {object} given properties; on... are listeners, names with "-", "role" and "for" are attributes
 * @param {...(Node|string|null)} children strings become text
 */
export function make(kind, given = {}, ...children) {
  const [tag, ...classes] = kind.split(".");
  const element = document.createElement(tag);
  element.classList.add(...classes);
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "role" || name === "for" || name.includes("-")) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

/** Return a table with a caption for those who cannot see it; cells may be nodes. */
export function table(caption, head, rows) {
  return make("div.scroll", { tabIndex: 0, role: "region", "aria-label": caption },
    make("table", {},
      make("caption.unseen", {}, caption),
      make("thead", {}, make("tr", {}, head.map((cell) => make("th", { scope: "col" }, cell)))),
      make("tbody", {}, rows.map((row) => make("tr", {}, row.map((cell, at) => (at ? make("td", {}, cell) : make("th", { scope: "row" }, cell))))))));
}

/** Return a bar for a value from 0 to 1. */
export function meter(kind, value, label) {
  const bar = make(`span.meter${kind ? `.${kind}` : ""}`, {
    role: "meter", "aria-valuemin": 0, "aria-valuemax": 1, "aria-valuenow": value.toFixed(3), "aria-label": label,
  });
  bar.style.setProperty("--value", value);
  return bar;
}

const status = document.getElementById("status");

/** Say something above the page, which screen readers read out; "" takes it away. */
export function say(text, ...children) {
  status.hidden = !text;
  status.replaceChildren(text, ...children);
}

/** Return a time of the service as people here write it. */
export function time(text) {
  return text ? make("time", { dateTime: text, title: text }, new Date(text).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })) : "";
}

/** Wait; an aborted signal ends it with an error. */
export function wait(seconds, signal) {
  return new Promise((done, failed) => {
    signal?.throwIfAborted();
    const timer = setTimeout(() => { signal?.removeEventListener("abort", stop); done(); }, seconds * 1000);
    const stop = () => { clearTimeout(timer); failed(signal.reason); };
    signal?.addEventListener("abort", stop, { once: true });
  });
}
