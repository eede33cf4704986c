// The big picture. A picture is decoded before it is shown, so that nothing flickers; while it is fetched the one before
// stays, dimmed.

import { ApiError } from "../api.js";
import { fill, h } from "../dom.js";

/** @typedef {import("./model.js").Shot} Shot */

const PATIENCE = 300;
const AGAIN = 2000;
const WAIT_FOR = [425, 503];
/** @type {Record<number, string>} */
const WHY = {
  0: "The daemon does not answer.",
  404: "This picture is not kept any more.",
  425: "This picture is not uploaded yet. It is asked for again.",
  502: "The host of this picture does not give it.",
  503: "Too many pictures are being fetched. It is asked for again.",
};

export class BigPicture {
  /** @type {Shot | null} */
  wanted = null;
  /** @type {Shot | null} */
  shown = null;
  busy = false;
  closed = false;
  dim = 0;
  again = 0;

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
    if (!this.busy) void this.load();
  }

  close() {
    this.closed = true;
    clearTimeout(this.again);
    clearTimeout(this.dim);
  }

  async load() {
    const shot = this.wanted;
    if (!shot || this.closed) return;
    this.busy = true;
    const image = h("img", { alt: this.describe(shot), draggable: "false" });
    image.src = `/picture/${shot[0]}`;
    const good = await image.decode().then(() => true, () => false);
    const why = good ? null : await reason(shot[0]);
    this.busy = false;
    if (this.closed) return;
    if (good) this.put(shot, image);
    if (this.wanted?.[0] !== shot[0]) void this.load();
    else if (good) this.settle(shot);
    else this.fail(shot, /** @type {ApiError} */ (why));
  }

  /**
   * @param {Shot} shot
   * @param {HTMLImageElement} image
   */
  put(shot, image) {
    this.shown = shot;
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
   * @param {ApiError} why
   */
  fail(shot, why) {
    if (WAIT_FOR.includes(why.status)) {
      this.again = setTimeout(() => void this.load(), AGAIN);
      if (this.shown) return;
    } else this.arrived(shot);
    fill(this.why, WHY[why.status] || why.message);
    this.why.hidden = false;
    if (!WAIT_FOR.includes(why.status)) fill(this.frame);
  }
}

/**
 * Why a picture cannot be had: an image itself does not say.
 * @param {number} number
 */
async function reason(number) {
  const answer = await fetch(`/picture/${number}`, { method: "HEAD" }).catch(() => null);
  return new ApiError(answer?.status ?? 0, "This picture cannot be shown.");
}
