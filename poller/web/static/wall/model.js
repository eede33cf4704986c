// The streams as the wall knows them, and what is to be said of each. Nothing here touches the page.

/** @typedef {import("../live.js").Row} Row */
/** @typedef {import("../live.js").Snapshot} Snapshot */
/** @typedef {import("../live.js").Message} Message */
/** @typedef {"live" | "late" | "silent" | "interrupted" | "disabled" | "never" | "ended" | "unknown"} Kind */
/** @typedef {{ word: string, symbol: string, level: "good" | "warn" | "bad" | "none" }} Saying */

/**
 * @typedef {Object} Stream
 * @property {number} ordinal
 * @property {string} account
 * @property {string} id
 * @property {string} found what a search looks at
 * @property {number | null} number that of the newest picture
 * @property {number | null} taken
 * @property {number | null} arrived
 * @property {string | null} state
 * @property {number | null} cadence
 * @property {Kind} kind as it was when it was judged last
 */

/** @type {Record<Kind, Saying>} */
export const SAYINGS = {
  live: { word: "Live", symbol: "●", level: "good" },
  late: { word: "Late", symbol: "▲", level: "warn" },
  silent: { word: "Silent", symbol: "■", level: "bad" },
  interrupted: { word: "Interrupted", symbol: "■", level: "bad" },
  disabled: { word: "Disabled", symbol: "■", level: "bad" },
  never: { word: "Never live", symbol: "■", level: "bad" },
  ended: { word: "Ended", symbol: "○", level: "none" },
  unknown: { word: "Unknown", symbol: "?", level: "none" },
};
export const KINDS = /** @type {Kind[]} */ (Object.keys(SAYINGS));

const ENDED_AFTER = 3600;
/** The platform's states besides live. @type {Record<string, Kind>} */
const STATES = { interrupted: "interrupted", disabled: "disabled", never: "never" };

/**
 * What a stream does, by the rules of `poller streams`. Late and silent are measured from when something last arrived.
 * @param {Stream} stream
 * @param {number} now the daemon's Unix time
 * @returns {Kind}
 */
export function judge(stream, now) {
  const { state, cadence } = stream;
  const quiet = stream.arrived === null ? Infinity : now - stream.arrived;
  if (state !== "live" && quiet > ENDED_AFTER) return "ended";
  if (state !== null && state !== "live") return STATES[state] || "unknown";
  if (stream.taken === null) return state === null ? "unknown" : "live";
  if (cadence === null) return "live";
  if (quiet > 4 * cadence) return "silent";
  return quiet > 2 * cadence + 5 ? "late" : "live";
}

const RANKS = { bad: 0, warn: 1, good: 2, none: 3 };

/**
 * 0: something is wrong, 1: it may become so, 2: all is well, 3: there is nothing to expect.
 * @param {Kind} kind
 */
export function rank(kind) {
  return RANKS[SAYINGS[kind].level];
}

const NAMES = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

/**
 * By name, with numbers in their own order, then by account.
 * @param {Stream} a
 * @param {Stream} b
 */
function byName(a, b) {
  return NAMES.compare(a.id, b.id) || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0) || (a.account < b.account ? -1 : 1);
}

export class Streams {
  /** @type {Map<number, Stream>} */
  known = new Map();
  /** @type {Stream[]} */
  named = [];
  /** Since when the database of the spool is away. @type {number | null} */
  away = null;

  /**
   * Begin anew. A stream that was known stays the same object, whatever its ordinal is now.
   * @param {Snapshot} all
   */
  restart(all) {
    this.away = all.away;
    const before = new Map(this.named.map((stream) => [keyOf(stream), stream]));
    const streams = all.streams.map((row) => {
      const stream = toStream(row);
      const old = before.get(keyOf(stream));
      return old ? Object.assign(old, stream) : stream;
    });
    this.known = new Map(streams.map((stream) => [stream.ordinal, stream]));
    this.named = streams.sort(byName);
  }

  /**
   * Take in what has changed.
   * @param {Message} message
   * @returns {{ touched: Stream[], others: boolean }} `others`: streams have come or gone
   */
  change(message) {
    this.away = message.away;
    const touched = [];
    for (const [ordinal, number, taken, arrived, state, cadence] of message.s || []) {
      const stream = this.known.get(ordinal);
      if (!stream) continue;
      Object.assign(stream, { number, taken, arrived, state, cadence });
      touched.push(stream);
    }
    for (const ordinal of message.gone || []) this.known.delete(ordinal);
    if (message.gone?.length) this.named = this.named.filter((stream) => this.known.has(stream.ordinal));
    for (const row of message.new || []) this.add(row);
    return { touched, others: Boolean(message.new?.length || message.gone?.length) };
  }

  /** @param {Row} row */
  add(row) {
    const stream = toStream(row);
    const old = this.known.get(stream.ordinal);
    if (old) {
      Object.assign(old, stream);
      return;
    }
    this.known.set(stream.ordinal, stream);
    let [low, high] = [0, this.named.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (byName(this.named[middle], stream) < 0) low = middle + 1;
      else high = middle;
    }
    this.named.splice(low, 0, stream);
  }

  /**
   * Judge all streams.
   * @param {number} now
   * @returns {boolean} whether one of them is judged otherwise than before
   */
  judge(now) {
    let other = false;
    for (const stream of this.named) {
      const kind = judge(stream, now);
      if (kind === stream.kind) continue;
      stream.kind = kind;
      other = true;
    }
    return other;
  }
}

/** @param {Stream} stream */
const keyOf = ({ account, id }) => `${account}\n${id}`;

/**
 * @param {Row} row
 * @returns {Stream}
 */
function toStream([ordinal, account, id, number, taken, arrived, state, cadence]) {
  const found = `${id}\n${account}`.toLowerCase();
  return { ordinal, account, id, found, number, taken, arrived, state, cadence, kind: "live" };
}
