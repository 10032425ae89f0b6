"use strict";
// A convenience only: without it the heatmaps have the opacity that the style sheet gives them.
const slider = document.getElementById("opacity");
if (slider) {
  const show = () => document.getElementById("views").style.setProperty("--opacity", slider.value / 100);
  slider.addEventListener("input", show);
  slider.closest("label").hidden = false;
  show();
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
