// Where the stream's page gets its facts: the newest first and history afterwards, then what changes.

import { get } from "../api.js";
import { now } from "../clock.js";
import { subscribe } from "../live.js";
import { History, open } from "./model.js";

/** @typedef {import("./model.js").Answer} Answer */
/** @typedef {import("./model.js").Span} Span */
/** @typedef {import("../live.js").Connection} Connection */
/** @typedef {import("../api.js").ApiError} ApiError */
/** @typedef {{ changed: () => void, failed: (error: ApiError) => void, connection: (state: Connection) => void }} Listener */

const REFRESH = 15_000; // what came late, was found missing or was recorded is in no live message
const LATE = 300; // seconds before the newest picture in which that is looked for; of what is older, only gaps are

export class Source {
  history = new History();
  /** When something of the stream arrived last. @type {number | null} */
  arrived = null;
  /** When the newest picture was taken, whatever the span. @type {number | null} */
  newest = null;
  /** Since when the database of the spool is away. @type {number | null} */
  away = null;
  /** Whether all of the span has come. */
  complete = false;
  /** Where the span begins. */
  since = 0;
  /** Whether the span goes up to now. */
  open = true;
  /** @type {number | null} */
  ordinal = null;
  asking = new AbortController();
  turn = 0;

  /**
   * @param {string} account
   * @param {string} id
   * @param {Listener} listener
   */
  constructor(account, id, listener) {
    this.account = account;
    this.id = id;
    this.listener = listener;
    this.unsubscribe = subscribe({
      snapshot: (all) => this.snapshot(all),
      change: (message) => this.change(message),
      connection: listener.connection,
    });
    this.timer = setInterval(() => void this.refresh(), REFRESH);
  }

  close() {
    this.unsubscribe();
    clearInterval(this.timer);
    this.asking.abort();
  }

  /** The time by which the stream is judged: while the database is away no picture arrives, and no stream is to blame. */
  get judged() {
    return Math.min(now(), this.away ?? Infinity);
  }

  /**
   * Ask for a span anew. `until` null: up to now.
   * @param {number} since
   * @param {number | null} until
   */
  async load(since, until) {
    this.asking.abort();
    this.asking = new AbortController();
    this.complete = false;
    this.since = since;
    this.open = until === null;
    const { signal } = this.asking;
    /** @type {number | null} */
    let below = null;
    const history = new History();
    try {
      do {
        const answer = await this.ask({ since, until, below }, signal);
        history.merge(answer);
        this.history = history;
        below = answer.complete ? null : next(answer, below);
        this.complete = below === null;
        this.listener.changed();
      } while (below !== null);
    } catch (error) {
      if (!signal.aborted) this.listener.failed(/** @type {ApiError} */ (error));
    }
  }

  /** Ask for what may have changed: the newest minutes, and one of the gaps before them. */
  async refresh() {
    if (!this.complete || document.hidden) return;
    const { last } = this.history;
    const since = last ? last[1] - LATE : this.since;
    const gap = this.nextGap(this.open ? since : Infinity);
    if (this.open) await this.update({ since });
    if (gap) await this.update({ since: gap.from - 1, until: gap.to + 1 });
  }

  /**
   * The gaps by turns, so that a look costs little: what fills one is seen after as many looks as there are gaps.
   * @param {number} before
   */
  nextGap(before) {
    const gaps = this.history.gaps.filter((gap) => open(gap) && gap.to < before);
    this.turn += 1;
    return gaps[this.turn % gaps.length];
  }

  /** @param {{ since: number, until?: number }} span */
  async update(span) {
    const { history, asking } = this;
    try {
      const answer = await this.ask(span, asking.signal);
      if (history !== this.history) return;
      history.merge(answer);
      this.listener.changed();
    } catch {
      // the live feed tells when the daemon is gone
    }
  }

  /**
   * @param {Record<string, number | null>} params
   * @param {AbortSignal} signal
   * @returns {Promise<Answer>}
   */
  ask(params, signal) {
    const whole = Object.entries(params).map(([name, value]) => [name, value === null ? null : Math.max(0, Math.floor(value))]);
    const all = { account: this.account, id: this.id, ...Object.fromEntries(whole) };
    return get("/api/stream", all, signal);
  }

  /** @param {import("../live.js").Snapshot} all */
  snapshot(all) {
    this.away = all.away;
    const again = this.ordinal !== null;
    const row = all.streams.find(([, account, id]) => account === this.account && id === this.id);
    this.ordinal = row ? row[0] : -1;
    if (row) this.take(row[3], row[4], row[5], row[6], row[7]);
    if (again) void this.refresh();
  }

  /** @param {import("../live.js").Message} message */
  change(message) {
    this.away = message.away;
    const own = message.new?.find(([, account, id]) => account === this.account && id === this.id);
    if (own) this.ordinal = own[0];
    if (own) this.take(own[3], own[4], own[5], own[6], own[7]);
    const row = message.s?.find(([ordinal]) => ordinal === this.ordinal);
    if (row) this.take(row[1], row[2], row[3], row[4], row[5]);
  }

  /**
   * @param {number | null} number
   * @param {number | null} taken
   * @param {number | null} arrived
   * @param {string | null} state
   * @param {number | null} cadence
   */
  take(number, taken, arrived, state, cadence) {
    this.arrived = arrived;
    this.newest = taken;
    const { history } = this;
    history.cadence = cadence ?? history.cadence;
    const other = state !== history.state;
    if (other) history.version += 1;
    history.state = state;
    const isNew = number !== null && taken !== null && this.complete && this.open && history.add(number, taken);
    if (other && this.complete) void this.refresh();
    if (isNew || other) this.listener.changed();
  }
}

/**
 * Where to read on; null if an answer brings nothing further.
 * @param {Answer} answer
 * @param {number | null} below
 */
function next(answer, below) {
  const found = answer.below ?? answer.pictures[0]?.[0] ?? null;
  return found === below ? null : found;
}
