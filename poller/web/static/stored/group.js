// One reason: how many have it, and on demand the entries themselves, some at a time.

import { get } from "../api.js";
import { now } from "../clock.js";
import { fill, h } from "../dom.js";
import { failure } from "../notices.js";
import { count } from "../numbers.js";
import { age } from "../times.js";
import { buttonsFor } from "./act.js";
import { OTHER } from "./counting.js";

const PIECE = 50;

/** @typedef {import("./page.js").Stored} Stored */

export class Group {
  /**
   * @param {Stored} stored
   * @param {Record<string, any>} filter
   * @param {import("./counting.js").Reason} reason
   * @param {boolean} open
   */
  constructor(stored, filter, reason, open) {
    this.stored = stored;
    this.filter = reason.reason === OTHER ? filter : { ...filter, reason: reason.reason };
    this.rows = h("tbody");
    this.more = h("div", { class: "more" });
    this.loaded = false;
    const { kind } = stored;
    const told = `${reason.owners.length === 1 ? kind.owner : kind.owners} ${reason.owners.join(", ")}`;
    const facts = h("span", { class: "quiet facts" }, told, " · last ", `${age(now() - reason.newest)} ago`);
    const buttons = stored.operates && reason.reason !== OTHER ? buttonsFor(stored, this.filter, reason.count, reason.owners) : null;
    const head = h("tr", null, kind.headings.map((name) => h("th", { scope: "col" }, name)), h("th", { scope: "col" }, h("span", { class: "sr" }, "More")));
    const summary = h("summary", null, h("span", { class: "reason", dataset: { reason: reason.reason } }, reason.reason, h("span", { class: "quiet" }, " · "), count(reason.count)), facts);
    const table = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${kind.heading}: ${reason.reason}` }, h("table", null, h("thead", null, head), this.rows));
    this.element = h("details", { class: "group panel" }, summary, h("div", { class: "inside" }, buttons, table, this.more));
    this.element.addEventListener("toggle", () => this.element.open && !this.loaded && void this.load(null));
    if (open) this.element.open = true;
  }

  /** @param {number | null} below */
  async load(below) {
    this.loaded = true;
    try {
      const answer = await get(this.stored.kind.path, { ...this.filter, limit: PIECE, count: false, below }, this.stored.signal);
      const rows = answer.rows.flatMap((/** @type {any} */ row) => this.lines(row));
      this.rows.append(...rows);
      if (below !== null) /** @type {HTMLElement | null} */ (rows[0]?.querySelector("button, a"))?.focus();
      fill(this.more, answer.below === null ? null : h("button", { type: "button", onclick: () => void this.load(answer.below) }, "Show more"));
    } catch (error) {
      if (this.stored.signal.aborted) return;
      this.loaded = below !== null;
      fill(this.more, failure(/** @type {Error} */ (error), () => void this.load(below)));
    }
  }

  /** @param {any} row */
  lines(row) {
    const { kind } = this.stored;
    const inside = h("td", { colspan: kind.headings.length + 1 });
    const details = h("tr", { class: "details", hidden: true }, inside);
    const button = h("button", { type: "button", class: "link", "aria-expanded": "false" }, kind.detailsName, h("span", { class: "sr" }, ` of ${row.id}`));
    button.addEventListener("click", async () => {
      details.hidden = !details.hidden;
      button.setAttribute("aria-expanded", String(!details.hidden));
      if (details.hidden || inside.firstChild) return;
      try {
        fill(inside, kind.details(await get(kind.address(row), {}, this.stored.signal)));
      } catch (error) {
        fill(inside, failure(/** @type {Error} */ (error)));
      }
    });
    const cells = kind.cells(row).map((cell, n) => h("td", { dataset: { name: kind.headings[n] } }, cell));
    return [h("tr", null, cells, h("td", null, button)), details];
  }
}
