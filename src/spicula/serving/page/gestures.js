// What a mouse, a finger or two do to a view.

const STEP_PIXELS = 100, LINE_PIXELS = 33, TAP_MS = 350, TAP_PIXELS = 30;

/**
 * Let a viewer follow what is done on one of its panes.
 * @param {Viewer} viewer is changed, with all of its panes
 * @param {Pane} pane where it is done
 */
export function follow(viewer, pane) {
  const { element } = pane, fingers = new Map(), side = pane.isRight ? -1 : 1;
  let tap = { timeStamp: -TAP_MS }, isMouse = true;
  element.addEventListener("pointerdown", (event) => {
    if (event.target.closest("button")) return;
    element.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, event);
    element.focus({ preventScroll: true });
    isMouse = event.pointerType === "mouse";
    if (isMouse) return;
    const isSecond = fingers.size === 1 && event.timeStamp - tap.timeStamp < TAP_MS && apart(event, tap) < TAP_PIXELS;
    tap = isSecond || fingers.size > 1 ? { timeStamp: -TAP_MS } : event;
    if (isSecond) viewer.alone(pane);
  });
  element.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const last = fingers.size === 2 ? span(fingers) : null;
    fingers.set(event.pointerId, event);
    const { ratio } = pane.fit();
    if (last) {
      const now = span(fingers);
      viewer.move((now.clientX - last.clientX) * ratio * side, (now.clientY - last.clientY) * ratio);
      viewer.zoom(viewer.steps(now.apart / Math.max(1, last.apart)), pane, pane.point(now, viewer.look.isBeside));
      return;
    }
    if (fingers.size > 1) return;
    const x = event.clientX - before.clientX, y = event.clientY - before.clientY;
    if (viewer.look.tool === "move" || event.shiftKey || event.buttons > 1) viewer.move(x * ratio * side, y * ratio);
    else viewer.adjust(y / 300, Math.exp(x / 200));
  });
  for (const kind of ["pointerup", "pointercancel"]) element.addEventListener(kind, (event) => fingers.delete(event.pointerId));
  element.addEventListener("contextmenu", (event) => event.preventDefault());
  element.addEventListener("dblclick", (event) => { if (isMouse && !event.target.closest("button")) viewer.alone(pane); });
  element.addEventListener("wheel", (event) => {
    event.preventDefault();
    viewer.zoom(wheelSteps(event), pane, pane.point(event, viewer.look.isBeside));
  }, { passive: false });
}

const apart = (a, b) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);

/** Return how far two fingers are apart, and what is between them. */
function span(fingers) {
  const [a, b] = [...fingers.values()];
  return { apart: apart(a, b), clientX: (a.clientX + b.clientX) / 2, clientY: (a.clientY + b.clientY) / 2 };
}

/** Return by how much to zoom: a wheel's click is a step, touchpads turn in small parts of one. */
function wheelSteps(event) {
  const pixels = event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_LINE ? LINE_PIXELS : 1) * (event.ctrlKey ? 10 : 1);
  return Math.min(1, Math.max(-1, -pixels / STEP_PIXELS));
}
