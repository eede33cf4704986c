// The filmstrip: as many thumbs as fit, evenly by time, with hatched gaps above them. Only these pictures are loaded.

import { h } from "./dom.js";
import { gapLabels, isBreak, open } from "./stream/model.js";

/** @typedef {import("./stream/model.js").History} History */
/** @typedef {import("./stream/model.js").Span} Span */

const RATIO = 16 / 9;
const MOST_AT_ONCE = 8;
const RETRY_AFTER = 3000;
const MOST_TRIES = 4;
const LABEL = 96;

/** Loads pictures, so many at once, those that were asked for last first. */
class Loader {
  /** @type {Map<HTMLImageElement, { src: string, tries: number }>} */
  waiting = new Map();
  /** @type {Set<HTMLImageElement>} */
  loading = new Set();

  /**
   * @param {HTMLImageElement} image
   * @param {string} src
   * @param {number} [tries]
   */
  ask(image, src, tries = 1) {
    this.waiting.set(image, { src, tries });
    this.next();
  }

  /** @param {HTMLImageElement} image */
  drop(image) {
    this.waiting.delete(image);
    if (this.loading.delete(image)) image.removeAttribute("src");
    this.next();
  }

  next() {
    for (const [image, { src, tries }] of [...this.waiting].reverse()) {
      if (this.loading.size >= MOST_AT_ONCE) return;
      this.waiting.delete(image);
      this.loading.add(image);
      void this.load(image, src, tries);
    }
  }

  /**
   * @param {HTMLImageElement} image
   * @param {string} src
   * @param {number} tries
   */
  async load(image, src, tries) {
    image.src = src;
    const good = await image.decode().then(() => true, () => false);
    if (!this.loading.delete(image)) return;
    if (good) image.dataset.there = "";
    else if (tries < MOST_TRIES) {
      setTimeout(() => image.isConnected && this.ask(image, src, tries + 1), RETRY_AFTER * tries);
    }
    this.next();
  }
}

export class Filmstrip {
  /** @type {Map<number, { image: HTMLImageElement, number: number }>} */
  slots = new Map();
  loader = new Loader();
  slot = 0;
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
    const slot = (span.to - span.from) / places;
    if (Math.abs(slot - this.slot) > 1e-6) this.clear();
    this.slot = slot;
    const [first, last] = [Math.floor(span.from / slot), Math.floor(span.to / slot)];
    for (const [place, { image }] of this.slots) {
      if (place < first || place > last) this.remove(place, image);
    }
    for (let place = first; place <= last; place += 1) {
      const shot = history.shots[history.from(place * slot)];
      const number = shot && shot[1] < (place + 1) * slot ? shot[0] : 0;
      const image = this.thumb(place, number);
      if (!image) continue;
      image.style.width = `${slot * (x(1) - x(0))}px`;
      image.style.transform = `translateX(${x(place * slot)}px)`;
    }
  }

  /**
   * The thumb of a place; none if no picture was taken there.
   * @param {number} place
   * @param {number} number
   */
  thumb(place, number) {
    const known = this.slots.get(place);
    if (known?.number === number) return known.image;
    if (known) this.remove(place, known.image);
    if (!number) return null;
    const image = h("img", { alt: "", draggable: "false", dataset: { number } });
    this.slots.set(place, { image, number });
    this.thumbs.append(image);
    this.loader.ask(image, `/picture/${number}`);
    return image;
  }

  /**
   * @param {number} place
   * @param {HTMLImageElement} image
   */
  remove(place, image) {
    this.slots.delete(place);
    image.remove();
    this.loader.drop(image);
  }

  clear() {
    for (const [place, { image }] of this.slots) this.remove(place, image);
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
