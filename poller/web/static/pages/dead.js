// Dead letters: events that a sink will not get unless somebody retries them.

import { h } from "../dom.js";
import { counted } from "../numbers.js";
import { openStored } from "../stored/page.js";
import { moment, seconds, timeElement } from "../times.js";

export const title = () => "Dead letters";

const noun = (/** @type {number} */ n) => counted(n, "dead letter");

/** @type {import("../stored/page.js").Kind} */
const KIND = {
  heading: "Dead letters",
  path: "/api/dead",
  owner: "sink",
  owners: "sinks",
  fields: [["sink", "Sink"], ["stream", "Stream"], ["reason", "Reason has"]],
  noun,
  empty: ["No dead letters.", "An event that a sink refuses for good, or cannot take for too long, waits here until somebody retries it."],
  command: "poller dead",
  retryLines: (owners) => [`They go to ${owners.length === 1 ? `sink ${owners[0]}` : "their sinks"} again, with new attempts.`],
  purgeLines: (n) => [`${noun(n)} will be deleted for good: the sinks never get these events, and no retry is possible. What is left in the log can only be replayed.`],
  retried: (row) => (row.left ? `${noun(row.retried)} retried, ${row.left} left: ${row.why}.` : `${noun(row.retried)} retried.`),
  headings: ["Stream", "Kind", "Sink", "Died", "Attempts", "Reason"],
  cells: (row) => [
    h("a", { href: `/event/${encodeURIComponent(row.id)}`, class: "wrap" }, row.stream || row.id),
    row.kind,
    row.sink,
    timeElement(row.died_at),
    h("span", null, String(row.attempts)),
    h("span", { class: "wrap" }, row.reason),
  ],
  address: (row) => `/api/dead/${encodeURIComponent(row.id)}?sink=${encodeURIComponent(row.sink)}`,
  details: (row) => h("ol", { class: "attempts" }, row.history.map((/** @type {any} */ one) => h("li", null, `${moment(seconds(one.at))}: `, h("span", { class: "wrap" }, one.reason)))),
  detailsName: "Attempts",
};

/**
 * @param {HTMLElement} main
 * @param {URL} url
 */
export const open = (main, url) => openStored(main, url, KIND);
