// The page of one stream: the picture of a moment, a filmstrip and a time axis to choose the moment, and what happened.
//
// Without `at` in the address the page follows the stream: the newest picture is shown as soon as it is there. With `at`
// it stays at this moment, so that a link shows the same picture.

import { setQuery } from "../app.js";
import { now } from "../clock.js";
import { fill, h } from "../dom.js";
import { pictureAddress } from "../pictures.js";
import { actionOf, keys } from "../stream/keys.js";
import { readMoment } from "../stream/model.js";
import { BigPicture } from "../stream/picture.js";
import { Source } from "../stream/source.js";
import { StreamView } from "../stream/view.js";
import { HOURS } from "../stream/words.js";
import { Timeline } from "../timeline.js";
import { moment } from "../times.js";

/** @typedef {import("../stream/model.js").Shot} Shot */

const WRITE_AFTER = 250; // browsers refuse to change the address more often

export { keys };

/** @param {URL} url */
export const title = (url) => url.searchParams.get("id") || "Stream";

/**
 * @param {HTMLElement} main
 * @param {URL} url
 */
export function open(main, url) {
  const id = url.searchParams.get("id");
  if (!id) {
    fill(main, h("h1", null, "Stream"), h("p", null, "The address names no stream. ", h("a", { href: "/" }, "Choose one on the wall.")));
    return () => {};
  }
  const page = new StreamPage(url, id);
  fill(main, page.view.element);
  page.start();
  return () => page.close();
}

export class StreamPage {
  /** The picture that is shown. @type {Shot | null} */
  chosen = null;
  /** The moment that was asked for, until a picture is chosen by it. @type {number | null} */
  asked = null;
  /** Where the span ends; null: now. @type {number | null} */
  end = null;
  frame = 0;
  writing = 0;

  /**
   * @param {URL} url
   * @param {string} id
   */
  constructor(url, id) {
    const query = url.searchParams;
    this.id = id;
    this.account = query.get("account") || "";
    this.hours = HOURS.find((one) => String(one) === query.get("hours")) ?? 1;
    this.asked = readMoment(query.get("at"));
    this.following = this.asked === null;
    this.big = new BigPicture(([, taken]) => `${id} at ${moment(taken)}`, (shot) => this.arrived(shot));
    this.timeline = new Timeline(`Pictures of ${id}`, (at, last) => this.scrub(at, last));
    this.view = new StreamView(this);
    this.source = new Source(this.account, id, {
      changed: () => this.changed(),
      failed: (error) => this.view.fail(error),
      connection: (state) => this.view.connection(state),
    });
  }

  start() {
    this.keys = (/** @type {KeyboardEvent} */ event) => this.key(event);
    document.addEventListener("keydown", this.keys);
    this.sizes = new ResizeObserver(() => this.draw());
    this.sizes.observe(this.timeline.element);
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.recolour = () => {
      this.timeline.drawn = "";
      this.draw();
    };
    this.scheme.addEventListener("change", this.recolour);
    this.clock = setInterval(() => document.hidden || this.draw(), 1000);
    if (this.asked !== null && this.asked < now() - this.length) this.end = this.asked + this.length / 2;
    this.load();
  }

  close() {
    this.view.close();
    if (this.keys) document.removeEventListener("keydown", this.keys);
    if (this.recolour) this.scheme?.removeEventListener("change", this.recolour);
    this.sizes?.disconnect();
    clearInterval(this.clock);
    clearTimeout(this.writing);
    cancelAnimationFrame(this.frame);
    this.source.close();
    this.big.close();
  }

  get history() {
    return this.source.history;
  }

  /** The length of the span in seconds. */
  get length() {
    return this.hours * 3600;
  }

  get span() {
    const to = this.end ?? now();
    return { from: to - this.length, to };
  }

  load() {
    this.view.loading();
    void this.source.load(this.span.from, this.end);
    this.draw();
  }

  // ---------------------------------------------------------------- choosing

  /** New facts have come. */
  changed() {
    const { last } = this.history;
    if (this.asked !== null) {
      const shot = this.history.nearest(this.asked);
      if (shot) this.show(shot);
      if (this.source.complete) this.asked = null;
    } else if (this.following && last) {
      if (this.chosen === null) this.chosen = last;
      this.big.show(last);
    }
    this.draw();
  }

  /** @param {Shot} shot */
  show(shot) {
    this.chosen = shot;
    this.big.show(shot);
  }

  /**
   * The newest picture is chosen once it can be shown.
   * @param {Shot} shot
   */
  arrived(shot) {
    if (this.following) this.chosen = shot;
    else for (const places of [-1, 1]) new Image().src = pictureAddress(...this.history.step(shot, places));
    this.draw();
  }

  /**
   * The viewer chooses a picture. Whoever chooses the newest one follows the stream.
   * @param {Shot} shot
   * @param {boolean} [follow]
   */
  choose(shot, follow = this.end === null && shot === this.history.last) {
    this.asked = null;
    this.following = follow;
    this.show(shot);
    this.write();
    if (shot[1] < this.span.from || shot[1] > this.span.to) this.centre(shot[1]);
    this.draw();
  }

  /**
   * Show the time around a moment.
   * @param {number} at
   */
  centre(at) {
    this.asked = at;
    this.end = at + this.length / 2 < now() ? at + this.length / 2 : null;
    this.load();
  }

  /**
   * @param {number} at
   * @param {boolean} last
   */
  scrub(at, last) {
    const shot = last && this.end === null ? this.history.last : this.history.nearest(at);
    if (shot && shot !== this.chosen) this.choose(shot);
  }

  /** Back to the newest picture. */
  goLive() {
    this.following = true;
    this.asked = null;
    if (this.end !== null) {
      this.end = null;
      this.chosen = null;
      this.load();
    } else if (this.history.last) this.choose(this.history.last, true);
    this.write();
    this.draw();
  }

  /**
   * Go to a moment, which may lie outside of the span.
   * @param {number} at
   */
  goTo(at) {
    const { from, to } = this.span;
    this.asked = at;
    this.following = false;
    if (at < from || at > to) this.centre(at);
    else {
      this.changed();
      this.asked = null;
    }
    this.write();
  }

  /** @param {number} hours */
  setHours(hours) {
    const at = this.following ? null : (this.chosen?.[1] ?? this.asked);
    this.hours = hours;
    this.end = at === null || at > now() - this.length ? null : at + this.length / 2;
    this.asked = at;
    this.write();
    this.load();
  }

  /**
   * Show an earlier or a later span.
   * @param {-1 | 1} direction
   */
  shift(direction) {
    const end = this.span.to + direction * this.length;
    if (end >= now()) this.goLive();
    else {
      this.end = end;
      this.asked = end - this.length / 2;
      this.following = false;
      this.chosen = null;
      this.write();
      this.load();
    }
  }

  // ---------------------------------------------------------------- keys and address

  /** @param {KeyboardEvent} event */
  key(event) {
    const action = actionOf(this, event);
    if (!action) return;
    event.preventDefault();
    action();
  }

  /** The address of the moment; of the newest picture if the page follows the stream. */
  query(at = this.following ? null : (this.chosen?.[1] ?? this.asked)) {
    const query = new URLSearchParams();
    if (this.account) query.set("account", this.account);
    query.set("id", this.id);
    if (this.hours !== 1) query.set("hours", String(this.hours));
    if (at !== null) query.set("at", String(Math.round(at * 1000) / 1000));
    return query;
  }

  write() {
    clearTimeout(this.writing);
    this.writing = setTimeout(() => setQuery(this.query()), WRITE_AFTER);
  }

  draw() {
    if (!this.frame) this.frame = requestAnimationFrame(() => this.redraw());
  }

  redraw() {
    this.frame = 0;
    const { chosen, following, end } = this;
    // a span that ends now slides; it stops before the chosen picture would leave it
    if (end === null && !following && chosen && chosen[1] < now() - this.length) this.end = chosen[1] + this.length;
    this.timeline.draw(this.history, this.span, chosen);
    this.view.draw();
  }
}
