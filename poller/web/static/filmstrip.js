// The filmstrip: as many thumbs as fit, evenly by time, with hatched gaps above them. Only these pictures are loaded.

import { h } from "./dom.js";
import { GONE, Loader } from "./pictures.js";
import { gapLabels, isBreak, open } from "./stream/model.js";

/** @typedef {import("./stream/model.js").History} History */
/** @typedef {import("./stream/model.js").Span} Span */
/** @typedef {import("./stream/model.js").Shot} Shot */
/** A place of the strip: its picture, and the element that shows it. @typedef {{ number: number, image: HTMLElement }} Slot */

const RATIO = 16 / 9;
const RETRY_AFTER = 3000;
const MOST_TRIES = 4;
const LABEL = 96;

export class Filmstrip {
  /** @type {Map<number, Slot>} */
  slots = new Map();
  /** @type {Loader<Slot>} */
  loader = new Loader();
  /** The seconds of a slot. */
  length = 0;
  #marks = "";

  constructor() {
    this.labels = h("div", { class: "strip-labels" });
    this.thumbs = h("div", { class: "strip-thumbs" });
    this.breaks = h("div", { class: "strip-breaks" });
    this.element = h("div", { class: "strip" }, this.labels, h("div", { class: "strip-film" }, this.thumbs, this.breaks));
  }

  /**
   * @param {History} history
   * @param {Span} span
   */
  draw(history, span) {
    const { clientWidth: width, clientHeight: height } = this.thumbs;
    if (!width || !height) return;
    const scale = width / (span.to - span.from);
    const x = (/** @type {number} */ at) => (at - span.from) * scale;
    this.drawThumbs(history, span, x, Math.max(1, Math.round(width / (height * RATIO))));
    this.drawBreaks(history, span, x);
  }

  /**
   * @param {History} history
   * @param {Span} span
   * @param {(at: number) => number} x
   * @param {number} places
   */
  drawThumbs(history, span, x, places) {
    const length = (span.to - span.from) / places;
    if (Math.abs(length - this.length) > 1e-6) this.clear();
    this.length = length;
    const [first, last] = [Math.floor(span.from / length), Math.floor(span.to / length)];
    for (const place of this.slots.keys()) if (place < first || place > last) this.remove(place);
    for (let place = first; place <= last; place += 1) {
      const shot = history.shots[history.from(place * length)];
      const image = this.thumb(place, shot && shot[1] < (place + 1) * length ? shot : null);
      if (!image) continue;
      image.style.width = `${length * (x(1) - x(0))}px`;
      image.style.transform = `translateX(${x(place * length)}px)`;
    }
  }

  /**
   * The thumb of a place; none if no picture was taken there.
   * @param {number} place
   * @param {Shot | null} shot
   */
  thumb(place, shot) {
    const known = this.slots.get(place);
    if (known && known.number === shot?.[0]) return known.image;
    if (known) this.remove(place);
    if (!shot) return null;
    const slot = { number: shot[0], image: h("img", { alt: "" }) };
    this.slots.set(place, slot);
    this.thumbs.append(slot.image);
    this.load(slot, shot, 1);
    return slot.image;
  }

  /**
   * @param {Slot} slot
   * @param {Shot} shot
   * @param {number} tries
   */
  load(slot, shot, tries) {
    const done = (/** @type {import("./pictures.js").Outcome} */ outcome) => {
      if ("image" in outcome) put(slot, outcome.image);
      else if (tries < MOST_TRIES && outcome.status !== GONE) {
        setTimeout(() => slot.image.isConnected && this.load(slot, shot, tries + 1), RETRY_AFTER * tries);
      }
    };
    this.loader.want(slot, { number: shot[0], taken: shot[1], doubtful: tries > 1, done });
  }

  /** @param {number} place */
  remove(place) {
    const slot = this.slots.get(place);
    if (!slot) return;
    this.slots.delete(place);
    slot.image.remove();
    this.loader.drop(slot);
  }

  clear() {
    for (const place of [...this.slots.keys()]) this.remove(place);
  }

  /**
   * @param {History} history
   * @param {Span} span
   * @param {(at: number) => number} x
   */
  drawBreaks(history, span, x) {
    const gaps = history.gaps.filter((gap) => open(gap) && gap.to > span.from && gap.from < span.to);
    const breaks = history.phases(span).filter(isBreak);
    const round = (/** @type {number} */ at) => Math.round(x(at) * 2) / 2;
    const marks = JSON.stringify([...gaps, ...breaks].map((one) => [round(one.from), round(one.to), "missing" in one && open(one)]));
    if (marks === this.#marks) return;
    this.#marks = marks;
    this.breaks.replaceChildren(
      ...breaks.map((one) => block("strip-break", round(one.from), round(one.to), one.state || "")),
      ...gaps.map((one) => block("strip-gap", round(one.from), round(one.to), "")),
    );
    const width = this.thumbs.clientWidth;
    this.labels.replaceChildren(
      ...gapLabels(gaps, x, LABEL).map(({ x: at, text }) => {
        const label = h("span", null, text);
        label.style.left = `${Math.min(Math.max(at, LABEL / 2), Math.max(width - LABEL / 2, LABEL / 2))}px`;
        return label;
      }),
    );
  }
}

/**
 * Put a loaded picture at the place of its slot.
 * @param {Slot} slot
 * @param {HTMLImageElement} image
 */
function put(slot, image) {
  const { width, transform } = slot.image.style;
  Object.assign(image.style, { width, transform });
  image.dataset.there = "";
  slot.image.replaceWith(image);
  slot.image = image;
}

/**
 * @param {string} name
 * @param {number} from
 * @param {number} to
 * @param {string} text
 */
function block(name, from, to, text) {
  const element = h("div", { class: name }, to - from > text.length * 8 && text ? h("span", null, text) : null);
  element.style.left = `${Math.max(0, from)}px`;
  element.style.width = `${Math.max(3, to - Math.max(0, from))}px`;
  return element;
}
