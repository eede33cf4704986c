// Whether the daemon is ready, and why it is not: each reason with the page that says what to do.

import { fill, h } from "../dom.js";
import { counted } from "../numbers.js";
import { pageOf } from "../reasons.js";
import { local } from "../times.js";

/**
 * @param {Element} place
 * @param {any} status
 */
export function renderReadiness(place, status) {
  const key = JSON.stringify([status.ready, status.reasons, status.notes]);
  if (/** @type {HTMLElement} */ (place).dataset.key === key) return;
  /** @type {HTMLElement} */ (place).dataset.key = key;
  const level = status.ready ? "good" : "warn";
  const words = status.ready ? "Ready" : `Not ready: ${counted(status.reasons.length, "reason")}`;
  fill(
    place,
    h("p", { class: "state verdict", dataset: { level }, role: "status" }, h("span", { class: "symbol", "aria-hidden": "true" }, status.ready ? "●" : "▲"), words),
    status.reasons.length ? h("ul", { class: "reasons" }, status.reasons.map(reason)) : null,
    status.notes.length ? h("ul", { class: "notes quiet" }, status.notes.map((/** @type {string} */ note) => h("li", null, local(note)))) : null,
  );
}

/** @param {string} text */
function reason(text) {
  const page = pageOf(text);
  return h("li", null, h("span", { class: "text" }, local(text)), h("span", { class: "quiet small help" }, "What to do: “", page.title, "”, ", h("code", null, page.file)));
}
