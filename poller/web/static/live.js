// The live feed: one EventSource a tab, shared by all who subscribe.
//
// A snapshot of all streams comes first, then what changes. While the tab is hidden there is no connection, because a
// browser has six to an origin. Afterwards the feed goes on where it stopped; where the daemon no longer knows that
// place, a new snapshot comes. A connection that fails is tried again by this module, ever more slowly.

import { get } from "./api.js";
import { hear, now } from "./clock.js";

/**
 * A stream as the daemon writes it: ordinal, account, id, number, taken, arrived, state, cadence. Times are Unix time.
 * @typedef {[number, string, string, number | null, number | null, number | null, string | null, number | null]} Row
 * What changes of a stream: ordinal, number, taken, arrived, state, cadence.
 * @typedef {[number, number | null, number | null, number | null, string | null, number | null]} Change
 * `away`: since when the database of the spool does not answer; null while it does.
 * @typedef {{ epoch: string, seq: number, now: number, away: number | null, streams: Row[] }} Snapshot
 * @typedef {{ now: number, away: number | null, s?: Change[], new?: Row[], gone?: number[] }} Message
 * @typedef {{ job: string, done: number, total: number, state: "running" | "done" | "failed", error: string | null }} Job
 * `since`: the daemon's Unix time from which on it is so.
 * @typedef {{ live: boolean, since: number }} Connection
 * @typedef {{
 *   snapshot?: (all: Snapshot) => void,
 *   change?: (message: Message) => void,
 *   connection?: (state: Connection) => void,
 *   job?: (message: Job) => void,
 * }} Subscriber
 */

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 15_000;
const QUIET = 20; // seconds without a message after which the daemon is asked whether it is still there
const PROBE_PATIENCE = 5_000;

class Feed {
  /** @type {Set<Subscriber>} */
  subscribers = new Set();
  /** @type {EventSource | null} */
  source = null;
  /** @type {{ epoch: string, seq: number } | null} */
  place = null;
  /** @type {AbortController | null} */
  asking = null;
  /** @type {Connection} */
  state = { live: false, since: now() };
  pause = 0;
  heard = 0;
  retry = 0;
  watch = 0;

  /** @param {Subscriber} one */
  add(one) {
    this.subscribers.add(one);
    if (!this.heard) this.state.since = now(); // the time was not known before
    one.connection?.(this.state);
    this.stop();
    this.place = null;
    this.start();
  }

  /** @param {Subscriber} one */
  remove(one) {
    this.subscribers.delete(one);
    if (this.subscribers.size === 0) this.stop();
  }

  /** Connect, if somebody listens and looks. After failures ask in any case: an answer leads to the login, an event not. */
  start() {
    if (this.subscribers.size === 0 || document.hidden || this.source || this.asking) return;
    clearTimeout(this.retry);
    const asks = [...this.subscribers].some((one) => one.snapshot) || this.pause > FIRST_PAUSE;
    if (this.place || !asks) this.connect();
    else void this.ask();
  }

  stop() {
    clearTimeout(this.retry);
    clearInterval(this.watch);
    this.asking?.abort();
    this.asking = null;
    this.source?.close();
    this.source = null;
    this.report(false);
  }

  /** Ask for a snapshot, and connect from there on. */
  async ask() {
    const asking = new AbortController();
    this.asking = asking;
    try {
      const all = /** @type {Snapshot} */ (await get("/api/streams", {}, asking.signal));
      if (asking.signal.aborted) return;
      this.asking = null;
      this.heard = this.state.since = now();
      this.place = { epoch: all.epoch, seq: all.seq };
      for (const one of this.subscribers) one.snapshot?.(all);
      this.connect();
    } catch (error) {
      if (!asking.signal.aborted) this.fail();
    }
  }

  connect() {
    const query = this.place ? `?${new URLSearchParams({ epoch: this.place.epoch, seq: String(this.place.seq) })}` : "";
    const source = new EventSource(`/api/live${query}`);
    this.source = source;
    source.addEventListener("open", () => this.opened());
    source.addEventListener("message", (event) => this.message(event));
    source.addEventListener("time", (event) => this.time(event));
    source.addEventListener("job", (event) => this.job(event));
    source.addEventListener("reset", () => this.reset());
    source.addEventListener("error", () => this.fail());
  }

  opened() {
    this.pause = 0;
    this.heard = now();
    clearInterval(this.watch);
    this.watch = setInterval(() => void this.probe(), (QUIET * 1000) / 4);
    this.report(true);
  }

  /** @param {MessageEvent<string>} event */
  message(event) {
    const message = /** @type {Message} */ (JSON.parse(event.data));
    hear(message.now);
    this.note(event.lastEventId);
    for (const one of this.subscribers) one.change?.(message);
  }

  /** Nothing else came for a while. @param {MessageEvent<string>} event */
  time(event) {
    hear(JSON.parse(event.data).now);
    this.heard = now();
  }

  /** @param {MessageEvent<string>} event */
  job(event) {
    const message = /** @type {Job} */ (JSON.parse(event.data));
    this.note(event.lastEventId);
    for (const one of this.subscribers) one.job?.(message);
  }

  /** @param {string} id EPOCH-SEQ */
  note(id) {
    this.heard = now();
    const cut = id.lastIndexOf("-");
    if (cut > 0) this.place = { epoch: id.slice(0, cut), seq: Number(id.slice(cut + 1)) };
  }

  /** The daemon does not know the place: another life of it, or too long ago. */
  reset() {
    this.source?.close();
    this.source = null;
    this.place = null;
    this.start();
  }

  /** The connection has failed. It is made again after a pause, which doubles; a second time with a new snapshot. */
  fail() {
    if (this.pause > 0) this.place = null;
    this.stop();
    this.pause = Math.min(LONGEST_PAUSE, this.pause * 2 || FIRST_PAUSE);
    this.retry = setTimeout(() => this.start(), this.pause * (0.8 + 0.4 * Math.random()));
  }

  /** A connection can be dead without an end, after a sleep or on another network. Silence is no proof, so ask. */
  async probe() {
    // either way: a viewer's clock that was set back would put the question off for as long
    if (Math.abs(now() - this.heard) < QUIET) return;
    const source = this.source;
    try {
      const signal = AbortSignal.timeout(PROBE_PATIENCE);
      await fetch("/static/icon.svg", { method: "HEAD", cache: "no-store", signal });
      this.heard = now();
    } catch {
      if (source && source === this.source) this.fail();
    }
  }

  /** @param {boolean} live */
  report(live) {
    if (live === this.state.live) return;
    this.state = { live, since: live ? now() : this.heard };
    for (const one of this.subscribers) one.connection?.(this.state);
  }
}

const feed = new Feed();
document.addEventListener("visibilitychange", () => (document.hidden ? feed.stop() : feed.start()));
addEventListener("online", () => feed.start());

/**
 * Take part in the feed. A snapshot comes first, then changes; returns the function that ends it.
 * @param {Subscriber} subscriber
 * @returns {() => void}
 */
export function subscribe(subscriber) {
  feed.add(subscriber);
  return () => feed.remove(subscriber);
}
