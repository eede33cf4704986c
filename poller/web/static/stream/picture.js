// The big picture. A picture is decoded before it is shown, so that nothing flickers; while it is fetched the one before
// stays, dimmed.

import { fill, h } from "../dom.js";
import { comesLater, load, pictureAddress, reason } from "../pictures.js";

/** @typedef {import("./model.js").Shot} Shot */

const PATIENCE = 300;
const AGAIN = 2000;

export class BigPicture {
  /** @type {Shot | null} */
  wanted = null;
  /** @type {Shot | null} */
  shown = null;
  busy = false;
  dim = 0;
  again = 0;
  closing = new AbortController();

  /**
   * @param {(shot: Shot) => string} describe
   * @param {(shot: Shot) => void} arrived a picture is shown, or cannot be had
   */
  constructor(describe, arrived) {
    this.describe = describe;
    this.arrived = arrived;
    this.frame = h("div", { class: "frame" });
    this.why = h("p", { class: "frame-why", hidden: true });
    this.element = h("figure", { class: "big" }, this.frame, this.why);
  }

  /**
   * Show this picture as soon as it is there; of several wishes the last one counts.
   * @param {Shot} shot
   */
  show(shot) {
    if (this.wanted?.[0] === shot[0]) return;
    this.wanted = shot;
    clearTimeout(this.again);
    clearTimeout(this.dim);
    this.dim = setTimeout(() => (this.element.dataset.waiting = ""), PATIENCE);
    if (!this.busy) void this.load(shot, false);
  }

  close() {
    this.closing.abort();
    clearTimeout(this.again);
    clearTimeout(this.dim);
  }

  /**
   * @param {Shot} shot
   * @param {boolean} doubtful
   */
  async load(shot, doubtful) {
    const { signal } = this.closing;
    this.busy = true;
    const outcome = await load(pictureAddress(...shot), doubtful, signal);
    this.busy = false;
    if (signal.aborted || !this.wanted) return;
    if ("image" in outcome) this.put(shot, outcome.image);
    if (this.wanted[0] !== shot[0]) void this.load(this.wanted, false);
    else if ("image" in outcome) this.settle(shot);
    else this.fail(shot, outcome.status);
  }

  /**
   * @param {Shot} shot
   * @param {HTMLImageElement} image
   */
  put(shot, image) {
    this.shown = shot;
    image.alt = this.describe(shot);
    fill(this.frame, image);
    this.why.hidden = true;
  }

  /** @param {Shot} shot */
  settle(shot) {
    clearTimeout(this.dim);
    delete this.element.dataset.waiting;
    this.arrived(shot);
  }

  /**
   * @param {Shot} shot
   * @param {number} status
   */
  fail(shot, status) {
    const later = comesLater(status);
    if (later) this.again = setTimeout(() => void this.load(shot, true), AGAIN);
    else {
      clearTimeout(this.dim);
      delete this.element.dataset.waiting;
      this.arrived(shot);
      fill(this.frame);
      this.shown = null;
    }
    if (later && this.shown) return;
    fill(this.why, reason(status));
    this.why.hidden = false;
  }
}
