// Quarantine: bytes that could not be read, kept as they came.

import { h } from "../dom.js";
import { counted, size } from "../numbers.js";
import { openStored } from "../stored/page.js";
import { timeElement } from "../times.js";

export const title = () => "Quarantine";

const noun = (/** @type {number} */ n) => counted(n, "piece");

/** @type {import("../stored/page.js").Kind} */
const KIND = {
  heading: "Quarantine",
  path: "/api/quarantine",
  owner: "source",
  owners: "sources",
  fields: [["source", "Source"], ["reason", "Reason has"]],
  noun,
  empty: ["Quarantine is empty.", "Bytes that a source cannot read wait here, until a newer version reads them or somebody deletes them."],
  command: "poller quarantine",
  retryLines: () => ["They are read again. Those that give events now leave quarantine, and the rest stays."],
  purgeLines: (n) => [`${noun(n)} will be deleted for good. Each may hold messages that are nowhere else: the platform does not send them again.`],
  retried: (row) => `${noun(row.read)} read, ${counted(row.events, "new event")}${row.left ? `; ${row.left} left${row.why ? `: ${row.why}` : ", which cannot be read yet"}` : ""}.`,
  headings: ["Number", "Source", "Received", "Size", "Reason"],
  cells: (row) => [
    row.id,
    row.source,
    timeElement(row.received_at),
    size(row.bytes),
    h("span", { class: "wrap" }, row.reason),
  ],
  address: (row) => `/api/quarantine/${encodeURIComponent(row.id)}`,
  details: (row) => h("pre", { class: "bytes", tabindex: "0", "aria-label": "Bytes, with keys masked" }, row.body),
  detailsName: "Bytes",
};

/**
 * @param {HTMLElement} main
 * @param {URL} url
 */
export const open = (main, url) => openStored(main, url, KIND);
