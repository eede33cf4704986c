// What is known of one stream: its pictures, gaps, states and recordings, and questions about them. Nothing here touches
// the page.

import { count } from "../numbers.js";

/**
 * A picture: its number in the log and when it was taken.
 * @typedef {[number, number]} Shot
 * @typedef {{ from: number, to: number, missing: number, why: string, filled: number }} Gap
 * @typedef {{ at: number, state: string | null, by: string }} Change
 * `url_kind` lists the formats of the segment.
 * @typedef {{ from: number, to: number, url_kind: string[], bytes: number | null, id: string }} Recording
 * @typedef {{
 *   account: string, id: string, now: number, state: string | null, cadence: number | null, pictures: Shot[],
 *   gaps: Gap[], states: Change[], recordings: Recording[], complete: boolean, since: number, below?: number | null
 * }} Answer
 * A time in which the state was the same; null if it is not known.
 * @typedef {{ from: number, to: number, state: string | null, by: string }} Phase
 * @typedef {{ from: number, to: number }} Span
 */

export class History {
  /** Grows with each change, so that nobody draws the same twice. */
  version = 0;
  /** By time; those of the same time by number. @type {Shot[]} */
  shots = [];
  /** @type {Gap[]} */
  gaps = [];
  /** @type {Change[]} */
  states = [];
  /** @type {Recording[]} */
  recordings = [];
  /** @type {string | null} */
  state = null;
  /** @type {number | null} */
  cadence = null;

  /**
   * Take in an answer. What it says of a gap, a state or a recording replaces what was known.
   * @param {Answer} answer
   */
  merge(answer) {
    this.version += 1;
    this.state = answer.state;
    this.cadence = answer.cadence;
    for (const [number, taken] of answer.pictures) this.add(number, taken);
    this.gaps = [...this.gaps.filter((gap) => !overlaps(gap, answer.gaps)), ...answer.gaps];
    this.states = joined(this.states, answer.states, (one) => `${one.at} ${one.state}`).sort((a, b) => a.at - b.at);
    this.recordings = joined(this.recordings, answer.recordings, (one) => one.id);
  }

  /**
   * Add a picture, if it is not known. Returns whether it was new.
   * @param {number} number
   * @param {number} taken
   */
  add(number, taken) {
    const { shots } = this;
    const place = after(shots, taken, number);
    if (place > 0 && shots[place - 1][0] === number) return false;
    shots.splice(place, 0, [number, taken]);
    this.version += 1;
    return true;
  }

  /** @returns {Shot | null} */
  get last() {
    return this.shots.at(-1) ?? null;
  }

  /**
   * The picture that was taken nearest to a time.
   * @param {number} at
   * @returns {Shot | null}
   */
  nearest(at) {
    const place = after(this.shots, at);
    const [earlier, later] = [this.shots[place - 1], this.shots[place]];
    if (!earlier || !later) return earlier || later || null;
    return at - earlier[1] <= later[1] - at ? earlier : later;
  }

  /**
   * The picture this number of places later, at most the first or the last one.
   * @param {Shot} shot
   * @param {number} places
   */
  step(shot, places) {
    const place = this.place(shot) + places;
    return this.shots[Math.min(Math.max(place, 0), this.shots.length - 1)];
  }

  /**
   * The picture nearest to this number of seconds later, and at least the next one in this direction.
   * @param {Shot} shot
   * @param {number} seconds
   */
  jump(shot, seconds) {
    const found = this.nearest(shot[1] + seconds) || shot;
    return (found[1] - shot[1]) * seconds > 0 ? found : this.step(shot, Math.sign(seconds));
  }

  /** @param {Shot} shot */
  place(shot) {
    return after(this.shots, shot[1], shot[0]) - 1;
  }

  /**
   * The first place whose picture was taken at a time or later.
   * @param {number} at
   */
  from(at) {
    return after(this.shots, at, -1);
  }

  /**
   * The pictures of a span.
   * @param {Span} span
   */
  within({ from, to }) {
    return this.shots.slice(this.from(from), after(this.shots, to));
  }

  /**
   * The states of a span, without a break.
   * @param {Span} span
   * @returns {Phase[]}
   */
  phases({ from, to }) {
    /** @type {Phase[]} */
    const found = [];
    let phase = { from, to, state: this.before(), by: "" };
    for (const { at, state, by } of this.states) {
      if (at >= to) break;
      if (state === phase.state) continue;
      if (at > phase.from) found.push({ ...phase, to: at });
      phase = { from: Math.max(at, from), to, state, by };
    }
    found.push(phase);
    return found;
  }

  /** The state before the first known change. Whoever is interrupted was live before. */
  before() {
    const first = this.states[0];
    if (!first) return this.state;
    return first.state === "live" ? null : "live";
  }

  /** Since when the present state lasts; null if that is not known. */
  get stateSince() {
    /** @type {number | null} */
    let since = null;
    let state = this.before();
    for (const one of this.states) {
      if (one.state !== state) [state, since] = [one.state, one.at];
    }
    return state === this.state ? since : null;
  }
}

/**
 * How many pictures lie at a time or before; of the same time, those up to a number.
 * @param {Shot[]} shots
 * @param {number} at
 * @param {number} [number]
 */
function after(shots, at, number = Infinity) {
  let [low, high] = [0, shots.length];
  if (high && (shots[high - 1][1] < at || (shots[high - 1][1] === at && shots[high - 1][0] <= number))) return high;
  while (low < high) {
    const middle = (low + high) >> 1;
    const [n, taken] = shots[middle];
    if (taken < at || (taken === at && n <= number)) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * @template T
 * @param {T[]} known
 * @param {T[]} news
 * @param {(one: T) => string} key
 */
function joined(known, news, key) {
  return [...new Map([...known, ...news].map((one) => [key(one), one])).values()];
}

/**
 * @param {Span} one
 * @param {Span[]} others
 */
const overlaps = (one, others) => others.some((other) => one.from < other.to && other.from < one.to);

/**
 * How many pictures of a gap are missing still.
 * @param {Gap} gap
 */
export const open = (gap) => Math.max(0, gap.missing - gap.filled);

/**
 * Whether nothing can come in this state, so that nothing is missing.
 * @param {Phase} phase
 */
export const isBreak = (phase) => phase.state !== null && phase.state !== "live";

/**
 * Labels of gaps at their places, where those that would overlap become one: "33 missing in 2 gaps".
 * @param {Gap[]} gaps
 * @param {(at: number) => number} x the place of a time, in pixels
 * @param {number} width the width of a label
 * @returns {{ x: number, text: string }[]}
 */
export function gapLabels(gaps, x, width) {
  /** @type {{ x: number, end: number, missing: number, gaps: number }[]} */
  const groups = [];
  for (const gap of [...gaps].sort((a, b) => a.from - b.from)) {
    const middle = (x(gap.from) + x(gap.to)) / 2;
    const group = groups.at(-1);
    if (group && middle - group.end < width) {
      group.missing += open(gap);
      group.gaps += 1;
      group.end = middle;
    } else groups.push({ x: middle, end: middle, missing: open(gap), gaps: 1 });
  }
  return groups.map(({ x: start, end, missing, gaps }) => ({
    x: (start + end) / 2,
    text: `${count(missing)} missing${gaps > 1 ? ` in ${count(gaps)} gaps` : ""}`,
  }));
}

const STEPS = [60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 14400, 21600, 43200];

/**
 * Round times of the viewer's zone at which the axis is labelled.
 * @param {Span} span
 * @param {number} most
 */
export function marks({ from, to }, most) {
  const step = STEPS.find((one) => (to - from) / one <= most) ?? 86400;
  const zone = -new Date(from * 1000).getTimezoneOffset() * 60;
  const found = [];
  for (let at = Math.ceil((from + zone) / step) * step - zone; at <= to; at += step) found.push(at);
  return found;
}

/**
 * Unix seconds, or a time as RFC 3339 writes it.
 * @param {string | null} text
 */
export function readMoment(text) {
  if (!text) return null;
  const seconds = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Date.parse(text) / 1000;
  return seconds >= 0 && seconds < Infinity ? seconds : null;
}
