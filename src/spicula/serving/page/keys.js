// Keyboard shortcuts: what they do, the help that lists them, and who hears them.
import { make } from "./dom.js";

/** [keys, action, what it does]: docs/serve-page.md has the same table. */
export const KEYS = [
  ["1", "auto", "Window: automatic"],
  ["2", "full", "Window: all values"],
  ["3", "dense", "Window: dense tissue"],
  ["4", "fat", "Window: fat and skin"],
  ["I", "invert", "Invert"],
  ["H", "heatmap", "Heatmap on and off"],
  ["T", "target", "Heatmap: malignant or benign"],
  ["[", "fainter", "Heatmap: fainter"],
  ["]", "stronger", "Heatmap: stronger"],
  ["S", "beside", "Plain image beside the heatmap"],
  ["A", "all", "All four views"],
  ["C", "cc", "CC views alone"],
  ["M", "mlo", "MLO views alone"],
  ["V", "alone", "The chosen view alone, and back"],
  ["+", "closer", "Zoom in"],
  ["-", "farther", "Zoom out"],
  ["ArrowLeft", "left", "Move left"],
  ["ArrowRight", "right", "Move right"],
  ["ArrowUp", "up", "Move up"],
  ["ArrowDown", "down", "Move down"],
  ["Shift+ArrowLeft", "narrower", "Window: narrower"],
  ["Shift+ArrowRight", "wider", "Window: wider"],
  ["Shift+ArrowUp", "brighter", "Window: brighter"],
  ["Shift+ArrowDown", "darker", "Window: darker"],
  ["Z", "actual", "A pixel of the images on each of the screen, and back"],
  ["F", "full_screen", "Views on the whole screen, and back"],
  ["0", "reset", "Everything as at the beginning"],
  ["N", "next", "Next exam of the list"],
  ["P", "previous", "Previous exam of the list"],
  ["/", "search", "Search the list of exams"],
  ["?", "help", "This list"],
];

const OFF = "spicula-keys-off";

/** Call actions by their keys; `actions` is asked each time, {} where there are none. */
export function listen(actions) {
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.matches("input:not([type=range], [type=checkbox], [type=radio], [type=file]), select, textarea");
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.target.matches("[type=range], [type=radio]") && event.key.startsWith("Arrow")) return;
    if (sessionStorage.getItem(OFF)) return;
    const isArrow = event.key.startsWith("Arrow");
    const name = isArrow ? (event.shiftKey ? "Shift+" : "") + event.key : event.key.toUpperCase();
    const found = KEYS.find(([key]) => key === (name === "=" ? "+" : name));
    const action = found && actions()[found[1]];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

const LABELS = { ArrowLeft: "Left", ArrowRight: "Right", ArrowUp: "Up", ArrowDown: "Down" };

/** Show the list. */
export function help() {
  const close = make("button.main", { type: "button", autofocus: true, onclick: () => dialog.close() }, "Close");
  const off = make("input", {
    type: "checkbox",
    checked: !sessionStorage.getItem(OFF),
    onchange: () => (off.checked ? sessionStorage.removeItem(OFF) : sessionStorage.setItem(OFF, "1")),
  });
  const dialog = make("dialog.help", { "aria-labelledby": "help-title", onclose: () => dialog.remove() },
    make("h2", { id: "help-title" }, "Shortcuts"),
    make("dl", {}, KEYS.map(([key, , does]) => make("div", {},
      make("dt", {}, key.split(/\+(?=.)/).map((part) => make("kbd", {}, LABELS[part] ?? part))), make("dd", {}, does)))),
    make("p", {}, "Mouse: drag for window and level, drag with Shift or the right button to move, wheel to zoom, double "
      + "click for one view alone. Touch: drag with one finger, move and zoom with two, tap twice for one view alone."),
    make("p.buttons", {}, make("label", {}, off, " Use shortcuts"), close));
  document.body.append(dialog);
  dialog.showModal();
}
