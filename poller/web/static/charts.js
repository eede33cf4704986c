// Small charts in SVG.

import { h, svg } from "./dom.js";

const WIDTH = 120;
const HEIGHT = 28;

/**
 * The points of a line through values, oldest first, from the right edge leftwards. Pure.
 * @param {number[]} values
 * @param {number} most how many values fill the width
 */
export function points(values, most) {
  const top = Math.max(...values, 1e-9);
  const step = WIDTH / (most - 1);
  const left = WIDTH - (values.length - 1) * step;
  return values.map((value, n) => `${(left + n * step).toFixed(1)},${(HEIGHT - 2 - (value / top) * (HEIGHT - 4)).toFixed(1)}`).join(" ");
}

/**
 * A line of the last values. It is for the eye only: its number stands beside it as text.
 * @param {number} most
 */
export function sparkline(most) {
  /** @type {number[]} */
  const values = [];
  const base = svg("line", { x1: 0, x2: WIDTH, y1: HEIGHT - 1.5, y2: HEIGHT - 1.5, class: "base" });
  const line = svg("polyline", { points: "", class: "values" });
  const element = h("span", { class: "spark", "aria-hidden": "true" }, svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none" }, base, line));
  return {
    element,
    /** @param {number} value */
    add(value) {
      values.push(Math.max(0, value));
      if (values.length > most) values.shift();
      if (values.length > 1) line.setAttribute("points", points(values, most));
    },
  };
}
