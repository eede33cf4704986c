// The time axis: the state as a band, one tick a picture, recordings as bars, all on a canvas; with the filmstrip above
// it one slider, which is scrubbed by pointer or keys.

import { h, setText } from "./dom.js";
import { Filmstrip } from "./filmstrip.js";
import { count } from "./numbers.js";
import { isBreak, marks, open } from "./stream/model.js";
import { minute, moment } from "./times.js";

/** @typedef {import("./stream/model.js").History} History */
/** @typedef {import("./stream/model.js").Span} Span */
/** @typedef {import("./stream/model.js").Shot} Shot */

const BAND = { top: 4, height: 5 };
const TICKS = { top: 14, height: 16 };
const BARS = { top: 35, height: 7 };
const LABELS = 60;
const HEIGHT = 68;
const LEAST_GAP = 2;

export class Timeline {
  /** @type {Span} */
  span = { from: 0, to: 1 };
  /** @type {number | null} */
  pointed = null;
  /** What was drawn last. */
  drawn = "";
  /** @type {History | null} */
  history = null;

  /**
   * @param {string} label
   * @param {(at: number, last: boolean) => void} scrub `last`: at the right end
   */
  constructor(label, scrub) {
    this.scrub = scrub;
    this.strip = new Filmstrip();
    this.canvas = h("canvas", { class: "axis" });
    this.head = h("div", { class: "playhead" });
    this.hover = h("div", { class: "hoverline", hidden: true }, h("span", null, ""));
    this.element = h(
      "div",
      { class: "timeline", role: "slider", tabindex: "0", "aria-label": label, "aria-orientation": "horizontal" },
      this.strip.element, this.canvas, this.hover, this.head,
    );
    this.listen();
  }

  listen() {
    const { element } = this;
    const at = (/** @type {PointerEvent} */ event) => {
      const { left, width } = this.canvas.getBoundingClientRect();
      const part = Math.min(1, Math.max(0, (event.clientX - left) / width));
      return { time: this.span.from + part * (this.span.to - this.span.from), last: part > 1 - 3 / width };
    };
    element.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      element.setPointerCapture(event.pointerId);
      element.dataset.held = "";
      const { time, last } = at(event);
      this.scrub(time, last);
    });
    element.addEventListener("pointermove", (event) => {
      const { time, last } = at(event);
      if (event.pointerType === "mouse") this.point(time);
      if (element.hasPointerCapture(event.pointerId)) this.scrub(time, last);
    });
    element.addEventListener("lostpointercapture", () => delete element.dataset.held);
    element.addEventListener("pointerleave", () => this.point(null));
  }

  /** @param {number | null} time */
  point(time) {
    this.pointed = time;
    this.hover.hidden = time === null;
    if (time === null) return;
    this.hover.style.transform = `translateX(${this.x(time)}px)`;
    this.hover.dataset.side = this.x(time) > this.canvas.clientWidth / 2 ? "left" : "right";
    setText(/** @type {HTMLElement} */ (this.hover.firstElementChild), moment(time));
  }

  /** @param {number} at */
  x(at) {
    return ((at - this.span.from) / (this.span.to - this.span.from)) * this.canvas.clientWidth;
  }

  /**
   * @param {History} history
   * @param {Span} span
   * @param {Shot | null} chosen
   */
  draw(history, span, chosen) {
    this.span = span;
    const width = this.canvas.clientWidth;
    const ratio = window.devicePixelRatio || 1;
    const pixel = Math.round((span.from / (span.to - span.from)) * width * ratio);
    const drawn = [pixel, span.to - span.from, width, ratio, history.version].join();
    if (drawn !== this.drawn || history !== this.history) {
      this.strip.draw(history, span);
      this.paint(history);
      [this.drawn, this.history] = [drawn, history];
    }
    this.say(history, chosen);
    if (this.pointed !== null) this.point(this.pointed);
  }

  /**
   * @param {History} history
   * @param {Shot | null} chosen
   */
  say(history, chosen) {
    const shots = history.from(this.span.from);
    const total = history.within(this.span).length;
    const place = chosen ? history.place(chosen) - shots + 1 : 0;
    const shown = chosen !== null && place >= 1 && place <= total;
    this.head.hidden = !shown;
    if (shown) this.head.style.transform = `translateX(${this.x(chosen[1])}px)`;
    const values = {
      "aria-valuemin": total ? 1 : 0,
      "aria-valuemax": total,
      "aria-valuenow": shown ? place : 0,
      "aria-valuetext": shown ? `${moment(chosen[1])}, picture ${count(place)} of ${count(total)}` : "no picture is chosen",
    };
    for (const [name, value] of Object.entries(values)) {
      if (this.element.getAttribute(name) !== String(value)) this.element.setAttribute(name, String(value));
    }
  }

  /** @param {History} history */
  paint(history) {
    const context = this.sized();
    if (!context) return;
    const style = getComputedStyle(this.element);
    const colour = (/** @type {string} */ name) => style.getPropertyValue(`--${name}`).trim();
    this.paintStates(context, history, colour);
    this.paintTicks(context, history, colour);
    context.fillStyle = colour("accent");
    for (const { from, to } of history.recordings) this.block(context, from, to, BARS, 2);
    this.paintLabels(context, colour, `${0.8 * parseFloat(style.fontSize)}px ${style.fontFamily}`);
  }

  /** The canvas in the screen's own pixels, empty. */
  sized() {
    const { canvas } = this;
    const width = canvas.clientWidth;
    const ratio = window.devicePixelRatio || 1;
    const context = canvas.getContext("2d");
    if (!width || !context) return null;
    const size = [Math.round(width * ratio), Math.round(HEIGHT * ratio)];
    if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, HEIGHT);
    return context;
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {History} history
   * @param {(name: string) => string} colour
   */
  paintStates(context, history, colour) {
    for (const phase of history.phases(this.span)) {
      context.fillStyle = isBreak(phase) ? colour("bad") : colour(phase.state ? "good" : "hatch");
      this.block(context, phase.from, phase.to, BAND, 1);
    }
  }

  /**
   * One tick a picture, as far as there are pixels: pictures of the same pixel share its tick.
   * @param {CanvasRenderingContext2D} context
   * @param {History} history
   * @param {(name: string) => string} colour
   */
  paintTicks(context, history, colour) {
    const ratio = window.devicePixelRatio || 1;
    const shots = history.within(this.span);
    const pixels = new Set(shots.map(([, taken]) => Math.round(this.x(taken) * ratio)));
    context.fillStyle = colour("quiet");
    for (const [from, length] of runs(pixels)) {
      context.fillRect(from / ratio, TICKS.top, length / ratio, TICKS.height);
    }
    context.fillStyle = colour("warn");
    const gaps = history.gaps.filter((gap) => open(gap) && gap.to > this.span.from && gap.from < this.span.to);
    for (const gap of gaps) this.block(context, gap.from, gap.to, { top: TICKS.top + TICKS.height - 4, height: 4 }, LEAST_GAP);
    Object.assign(this.canvas.dataset, { pictures: shots.length, ticks: pixels.size, gaps: gaps.length });
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {number} from
   * @param {number} to
   * @param {{ top: number, height: number }} row
   * @param {number} least
   */
  block(context, from, to, row, least) {
    const [left, right] = [Math.max(0, this.x(from)), Math.min(this.canvas.clientWidth, this.x(to))];
    if (right > 0 && left < this.canvas.clientWidth) context.fillRect(left, row.top, Math.max(least, right - left - 1), row.height);
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {(name: string) => string} colour
   * @param {string} font
   */
  paintLabels(context, colour, font) {
    const width = this.canvas.clientWidth;
    context.font = font;
    context.textAlign = "center";
    for (const at of marks(this.span, Math.max(2, Math.floor(width / 64)))) {
      const x = Math.round(this.x(at)) + 0.5;
      context.fillStyle = colour("line");
      context.fillRect(x - 0.5, BARS.top + BARS.height + 3, 1, 4);
      if (x < 18 || x > width - 18) continue;
      context.fillStyle = colour("quiet");
      context.fillText(minute(at), x, LABELS);
    }
  }
}

/**
 * Ascending numbers as runs: the first one and how many there are.
 * @param {Iterable<number>} numbers
 */
function runs(numbers) {
  /** @type {[number, number][]} */
  const found = [];
  for (const number of numbers) {
    const run = found.at(-1);
    if (run && number === run[0] + run[1]) run[1] += 1;
    else found.push([number, 1]);
  }
  return found;
}
