// Replays that have ended, on demand: the daemon keeps the latest hundred.

import { get } from "../api.js";
import { fill, h } from "../dom.js";
import { failure } from "../notices.js";
import { count } from "../numbers.js";
import { timeElement } from "../times.js";

/** @typedef {{ replay: number, sink: string, what: string, done: number | null, total: number, state: string, ordered_at: string }} Replay */

const ENDED = ["done", "cancelled"];

export class EarlierReplays {
  /** @param {AbortSignal} signal */
  constructor(signal) {
    this.signal = signal;
    this.content = h("div");
    this.element = h("details", { class: "earlier" }, h("summary", null, "Earlier replays"), this.content);
    this.element.addEventListener("toggle", () => void this.load());
  }

  /** Ask again, if somebody looks. */
  async load() {
    if (!this.element.open) return;
    try {
      const answer = await get("/api/replays", {}, this.signal);
      this.show(answer.rows.filter((/** @type {Replay} */ one) => ENDED.includes(one.state)).reverse());
    } catch (error) {
      if (!this.signal.aborted) fill(this.content, failure(/** @type {Error} */ (error), () => void this.load()));
    }
  }

  /** @param {Replay[]} replays the newest first */
  show(replays) {
    if (!replays.length) return fill(this.content, h("p", { class: "quiet" }, "No replay has ended yet."));
    const head = ["Replay", "Sink", "Chosen", "Ordered", "Sent", "State"].map((name) =>
      h("th", { scope: "col", class: name === "Sent" ? "number" : null }, name));
    fill(this.content, h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Earlier replays" },
      h("table", null, h("thead", null, h("tr", null, head)), h("tbody", null, replays.map(row)))));
  }
}

/** @param {Replay} one */
function row({ replay, sink, what, done, total, state, ordered_at: at }) {
  const sent = done === null ? count(total) : `${count(done)} of ${count(total)}`;
  return h("tr", null,
    h("th", { scope: "row" }, String(replay)),
    h("td", { class: "wrap" }, sink),
    h("td", { class: "wrap" }, what === "all" ? "all events" : what),
    h("td", null, timeElement(at)),
    h("td", { class: "number" }, sent),
    h("td", null, state));
}
