// What happened to one event, in the words of `poller trace`. Nothing here touches the page.

import { moment, seconds } from "../times.js";

/**
 * Times in rows are as RFC 3339 writes them.
 * @typedef {{ at: string, reason: string }} Failure
 * @typedef {{
 *   sink: string, state: string, failed: Failure[], at?: string, attempt?: number, took?: number, deliveries: number,
 *   due?: string | null, reason?: string | null, file?: string, present?: boolean
 * }} Sink
 * @typedef {{
 *   source: string, about: string, asked_at: string | null, received_at: string, outcome: string, events: number
 * }} Poll
 * @typedef {{
 *   id: string | null, state: "stored" | "pruned" | "unknown", number: number | null, kind: string | null,
 *   account: string | null, stream: string | null, file_name: string | null, taken_at: string | null,
 *   received_at: string | null, polled: Poll | null, sinks: Sink[], event: Record<string, any> | null
 * }} Trace
 */

/** @param {string} text */
const when = (text) => moment(seconds(text));

/** What is to be said of an event that is not retained. */
export const GONE = {
  stored: "",
  pruned: "pruned: the event is not retained any more, its id is remembered",
  unknown: "unknown: no such event was taken in the last 30 days",
};

/** What the time of an event is; of any other kind the event happened. @type {Record<string, string>} */
const HAPPENED = { screenshot: "taken", gap: "began" };

/**
 * The facts, by name; those without a text are not known.
 * @param {Trace} trace
 * @returns {[string, string][]}
 */
export function describe(trace) {
  const stored = trace.received_at && `received ${when(trace.received_at)}, number ${trace.number || "-"}`;
  const facts = /** @type {[string, string | null][]} */ ([
    ["stream", trace.stream && `${trace.stream} of account ${trace.account}`],
    ["file name", trace.file_name],
    [HAPPENED[trace.kind || ""] || "happened", trace.taken_at && when(trace.taken_at)],
    ["polled", trace.polled && poll(trace.polled)],
    ["stored", stored],
  ]);
  return /** @type {[string, string][]} */ (facts.filter(([, text]) => text));
}

/** @param {Poll} origin */
function poll(origin) {
  const asked = origin.asked_at ? `asked ${when(origin.asked_at)}, ` : "";
  const source = origin.source ? `by ${origin.source}` : "by an earlier version";
  const about = origin.about ? ` about ${origin.about}` : "";
  const outcome = origin.outcome ? `, ${origin.outcome}` : "";
  return `${source}${about}: ${asked}answered ${when(origin.received_at)}${outcome}, ${origin.events} new events`;
}

/**
 * How an event stands at a sink: the outcome first, then each failed attempt, then its file.
 * @param {Sink} sink
 */
export function sinkLines(sink) {
  const failed = sink.failed.map(({ at, reason }) => `tried ${when(at)}: ${reason}`);
  const file = sink.file ? [`file ${sink.file}${sink.present ? "" : " (not there)"}`] : [];
  return [outcome(sink), ...failed, ...file];
}

/** @param {Sink} sink */
function outcome(sink) {
  if (sink.state === "delivered") {
    const again = sink.deliveries > 1 ? `, ${sink.deliveries} times` : "";
    return `delivered ${when(sink.at || "")}, attempt ${sink.attempt}, within ${short(sink.took || 0)} s${again}`;
  }
  const due = sink.due ? `, next attempt ${when(sink.due)}` : "";
  const before = sink.deliveries ? ", although it was delivered before" : "";
  const reason = sink.reason ? `: ${sink.reason}` : "";
  return `${sink.state}${due}${before}${reason}`;
}

/**
 * Three digits that count.
 * @param {number} number
 */
function short(number) {
  return String(Number(number.toPrecision(3)));
}

/** The symbol and the level of a sink's state. @type {Record<string, [string, string]>} */
export const SIGNS = {
  delivered: ["●", "good"],
  dead: ["■", "bad"],
  waiting: ["▲", "warn"],
  "in hand": ["▶", ""],
  "not wanted": ["○", ""],
  pruned: ["○", ""],
  unknown: ["?", ""],
};
