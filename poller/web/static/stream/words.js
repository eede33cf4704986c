// What the stream's page says in words. Nothing here touches the page.

import { count, counted, size } from "../numbers.js";
import { age } from "../times.js";
import { isBreak, open } from "./model.js";

/** @typedef {import("./model.js").History} History */
/** @typedef {import("./model.js").Span} Span */
/** @typedef {{ at: number, level: string, text: string, detail: string }} Fact */

/** The lengths of time that the page offers. */
export const HOURS = [1, 6, 24];

/** @param {number} number */
const pictures = (number) => counted(number, "picture");

/**
 * What happened in a span, newest first.
 * @param {History} history
 * @param {Span} span
 * @returns {Fact[]}
 */
export function facts(history, span) {
  const found = [
    ...history.gaps.filter((gap) => gap.to > span.from && gap.from < span.to).map(gapFact),
    ...stateFacts(history, span),
    ...history.recordings
      .filter((one) => one.to > span.from && one.from < span.to)
      .map((one) => ({ at: one.from, level: "", text: recording(one), detail: "" })),
  ];
  return found.sort((a, b) => b.at - a.at);
}

/**
 * @param {import("./model.js").Gap} gap
 * @returns {Fact}
 */
function gapFact(gap) {
  const left = open(gap);
  const lasted = `(${age(gap.to - gap.from)})`;
  let text = `${pictures(gap.missing)} never came ${lasted}`;
  if (!left) text = `${pictures(gap.missing)} came late ${lasted}: nothing is missing`;
  else if (gap.filled) text = `${pictures(gap.missing)} did not come ${lasted}: ${count(gap.filled)} came late, ${count(left)} missing`;
  return { at: gap.from, level: left ? "warn" : "", text, detail: gap.why };
}

/**
 * @param {History} history
 * @param {Span} span
 * @returns {Fact[]}
 */
function stateFacts(history, span) {
  const phases = history.phases({ from: -Infinity, to: Infinity });
  return phases
    .filter((phase) => phase.from >= span.from && phase.from < span.to)
    .map((phase) => {
      const again = phases.indexOf(phase) > 0 ? " again" : "";
      const seen = phase.by ? ` (seen by ${phase.by})` : "";
      if (phase.state === null) return { at: phase.from, level: "", text: `state unknown${seen}`, detail: "" };
      if (!isBreak(phase)) return { at: phase.from, level: "good", text: `live${again}${seen}`, detail: "" };
      const ended = Number.isFinite(phase.to);
      const text = ended ? `${phase.state} for ${age(phase.to - phase.from)}${absent(history, phase)}` : `${phase.state}${seen}`;
      return { at: phase.from, level: "bad", text, detail: "" };
    });
}

/**
 * What did not come in an interruption, and is not missing.
 * @param {History} history
 * @param {Span} phase
 */
function absent({ cadence }, phase) {
  return cadence ? `: ${pictures(Math.round((phase.to - phase.from) / cadence))}, no gap` : "";
}

/** @param {import("./model.js").Recording} one */
function recording({ from, to, url_kind: kinds, bytes }) {
  const length = to > from ? ` ${age(to - from)}` : "";
  const file = [kinds.join(" and ").toUpperCase(), bytes === null ? "" : size(bytes)].filter(Boolean).join(" ");
  return `segment${length}${file ? `, ${file}` : ""}`;
}

/**
 * The header's words behind the state: "for 37 min, a picture each 10 s, last 4 s ago".
 * @param {{ kind: string, since: number | null, cadence: number | null, last: number | null, now: number }} known
 */
export function pace({ kind, since, cadence, last, now }) {
  const tempo = cadence === null ? "" : `${Math.round(cadence * 10) / 10} s`;
  if (kind === "late" || kind === "silent") {
    return `no picture for ${age(now - (last ?? now))}${tempo && `, usually one each ${tempo}`}`;
  }
  const live = kind === "live";
  const parts = [
    since === null ? "" : `for ${age(whole(now - since))}`,
    tempo && live ? `a picture each ${tempo}` : "",
    last === null ? "no picture yet" : `last ${live ? "" : "picture "}${age(now - last)} ago`,
  ];
  return parts.filter(Boolean).join(", ");
}

/**
 * A duration without its seconds, once it lasts for minutes, so that the header stands still.
 * @param {number} seconds
 */
const whole = (seconds) => (seconds < 60 ? seconds : seconds - (seconds % 60));

/**
 * The name of a span that ends now, such as "Last hour".
 * @param {number} hours
 */
export const lastHours = (hours) => (hours === 1 ? "Last hour" : `Last ${hours} hours`);
