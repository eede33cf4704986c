// One tile of the wall: the newest picture of a stream that could be fetched, its id, its state and its age.
//
// A picture that could not be fetched leaves the last one, dimmed, and says why. So does a stream that is not live.

import { now } from "../clock.js";
import { h, setText } from "../dom.js";
import { GONE, NOT_YET, comesLater, shortReason } from "../pictures.js";
import { age } from "../times.js";
import { SAYINGS } from "./model.js";

/** @typedef {import("./model.js").Stream} Stream */
/** @typedef {import("../pictures.js").Outcome} Outcome */
/** @typedef {import("../pictures.js").Loader<Stream>} Loader */
/** Whether nothing is heard of the daemon, and whether there are several accounts.
 * @typedef {{ lost: () => boolean, several: () => boolean }} Present */
/** A picture that was asked for in vain, since when, how often, and when to ask again.
 * @typedef {{ number: number, taken: number | null, status: number, since: number, tries: number, again: number }} Trouble */

const USUAL_CADENCE = 10;
const GIVE_UP_AFTER = 20; // seconds after which a picture that is not uploaded makes way for a newer one
const LONGEST_PAUSE = 60;

export class Tile {
  /** @type {Stream} */
  stream;
  /** The picture that is seen. @type {{ number: number, taken: number | null } | null} */
  shown = null;
  /** @type {Trouble | null} */
  trouble = null;
  /** Whether the viewer is about to see what this tile shows. */
  used = false;

  /**
   * @param {Loader} loader
   * @param {Present} present
   * @param {Stream} stream
   */
  constructor(loader, present, stream) {
    this.loader = loader;
    this.present = present;
    this.stream = stream;
    this.image = this.empty();
    this.why = h("span", { class: "why" });
    this.name = h("span", { class: "name" });
    this.state = h("span", { class: "state" });
    this.age = h("span", { class: "age" });
    this.element = h("a", { class: "tile" }, this.image, this.why, this.name, this.state, this.age);
  }

  empty() {
    return h("img", { alt: "", hidden: true });
  }

  /**
   * Show a stream from now on.
   * @param {Stream} stream
   */
  show(stream) {
    this.stream = stream;
    this.used = true;
    this.shown = this.trouble = null;
    this.swap(this.empty());
    this.name.title = `${stream.id} (account ${stream.account})`;
    const query = new URLSearchParams({ account: stream.account, id: stream.id });
    this.element.href = `/stream?${query}`;
  }

  /** The tile is shown no more. */
  leave() {
    this.used = false;
    this.loader.drop(this.stream);
  }

  /** @param {HTMLImageElement} image */
  swap(image) {
    this.image.replaceWith(image);
    this.image = image;
  }

  /** Say what is true at this moment, and ask for a picture if there is a newer one. */
  update() {
    const at = now();
    this.wish(at);
    const lost = this.present.lost();
    const { word, symbol, level } = lost ? was(this.stream.kind) : SAYINGS[this.stream.kind];
    const why = this.reason(at);
    setData(this.element, "level", level);
    setData(this.element, "dim", why || level !== "good" ? "1" : "");
    setData(this.state, "level", level);
    setText(this.state, `${symbol} ${word}`);
    setText(this.why, why);
    setText(this.name, this.present.several() ? `${this.stream.id} · ${this.stream.account}` : this.stream.id);
    const taken = this.shown ? this.shown.taken : this.stream.taken;
    const told = taken === null || ["late", "silent"].includes(this.stream.kind);
    setText(this.age, told ? "" : about(at - taken));
  }

  /**
   * Why what is seen is not live; empty if it is.
   * @param {number} at
   */
  reason(at) {
    const { kind, taken, cadence, number } = this.stream;
    if (kind === "late" || kind === "silent") return `no picture for ${about(at - (taken ?? at))}`;
    if (number === null) return "no picture yet";
    if (!this.trouble) return "";
    if (kind !== "live" && this.shown) return "";
    const old = this.shown?.taken ? at - this.shown.taken > 2 * (cadence ?? USUAL_CADENCE) + 5 : !this.shown;
    return old || !passes(this.trouble.status) ? shortReason(this.trouble.status) : "";
  }

  /** @param {number} at */
  wish(at) {
    const { number, taken: newest } = this.stream;
    if (number === null || same({ number, taken: newest }, this.shown)) return;
    const trouble = this.trouble;
    const waits = trouble && trouble.status === NOT_YET && at - trouble.since < GIVE_UP_AFTER;
    const { number: wanted, taken } = waits ? trouble : { number, taken: newest };
    const doubtful = same({ number: wanted, taken }, trouble);
    if (trouble && doubtful && at < trouble.again) return;
    const done = (/** @type {Outcome} */ outcome) => {
      if (!this.used) return;
      this.take(outcome, wanted, taken);
      this.update();
    };
    this.loader.want(this.stream, { number: wanted, taken, doubtful, done });
  }

  /**
   * @param {Outcome} outcome
   * @param {number} number
   * @param {number | null} taken
   */
  take(outcome, number, taken) {
    const before = same({ number, taken }, this.trouble) ? this.trouble : null;
    if ("image" in outcome) {
      this.shown = { number, taken };
      this.trouble = null;
      fit(outcome.image);
      this.swap(outcome.image);
      return;
    }
    const { status, after } = outcome;
    const tries = (before?.tries ?? 0) + 1;
    const pause = status === GONE ? Infinity : Math.min(LONGEST_PAUSE, (after || 5) * (status === NOT_YET ? 1 : tries));
    const at = now();
    this.trouble = { number, taken, status, since: before?.since ?? at, tries, again: at + pause };
  }
}

/**
 * Whether two pictures are the same one. A new spool counts from 1 again, so the number alone does not tell.
 * @param {{ number: number, taken: number | null }} one
 * @param {{ number: number, taken: number | null } | null} other
 */
const same = (one, other) => one.number === other?.number && one.taken === other.taken;

/**
 * Whether a trouble may pass before anybody needs to see it.
 * @param {number} status
 */
const passes = (status) => status === 0 || comesLater(status);

/**
 * What a stream did when the daemon was heard last.
 * @param {import("./model.js").Kind} kind
 * @returns {import("./model.js").Saying}
 */
function was(kind) {
  const { word, symbol, level } = SAYINGS[kind];
  return { word: `Was ${word.toLowerCase()}`, symbol: level === "good" ? "○" : symbol, level: "none" };
}

/**
 * A picture is shown whole, with bars where its form is another one; a pixel's width is no other form.
 * @param {HTMLImageElement} image
 */
function fit(image) {
  const ratio = image.naturalWidth / image.naturalHeight / (16 / 9);
  if (ratio > 0.97 && ratio < 1.03) image.style.objectFit = "cover";
}

/**
 * An age in its largest unit: there is no room for two.
 * @param {number} seconds
 */
function about(seconds) {
  const unit = [86400, 3600, 60].find((one) => seconds >= one) || 1;
  return age(seconds - (seconds % unit));
}

/**
 * @param {HTMLElement} element
 * @param {string} name
 * @param {string} text
 */
function setData(element, name, text) {
  if (element.dataset[name] !== text) element.dataset[name] = text;
}
