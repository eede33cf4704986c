// The books: what was taken, delivered, given up and perhaps lost since the spool was made.

import { fill, h } from "../dom.js";
import { count } from "../numbers.js";
import { moment, seconds } from "../times.js";

const COLUMNS = [["taken", "Taken"], ["delivered", "Delivered"], ["dead", "Given up"], ["possibly_lost", "Possibly lost"]];

/**
 * One row for each owner, with its counts by book. Pure.
 * @param {{ owner: string, book: string, count: number, at: string }[]} books
 */
export function rowsOf(books) {
  /** @type {Map<string, { owner: string, counts: Record<string, number>, at: string, lost: string | null }>} */
  const rows = new Map();
  for (const { owner, book, count: many, at } of books) {
    const row = rows.get(owner) || { owner, counts: {}, at, lost: null };
    row.counts[book] = many;
    if (Date.parse(at) > Date.parse(row.at)) row.at = at;
    if (book === "possibly_lost" && many) row.lost = at;
    rows.set(owner, row);
  }
  return [...rows.values()];
}

/**
 * @param {HTMLElement} place
 * @param {any} status
 */
export function renderBooks(place, status) {
  const key = JSON.stringify(status.books);
  if (place.dataset.key === key) return;
  place.dataset.key = key;
  const rows = rowsOf(status.books);
  place.hidden = rows.length === 0;
  const scrolled = place.querySelector(".scroll")?.scrollLeft || 0;
  const head = h("tr", null, h("th", { scope: "col" }, "Part"), COLUMNS.map(([, name]) => h("th", { scope: "col", class: "number" }, name)), h("th", { scope: "col" }, "Last"));
  fill(place, h("h2", null, "Books"), h("p", { class: "quiet small" }, "Since the spool was made. A restart changes nothing."),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Books" }, h("table", null, h("thead", null, head), h("tbody", null, rows.map(line)))));
  const scroll = place.querySelector(".scroll");
  if (scroll) scroll.scrollLeft = scrolled;
}

/** @param {ReturnType<typeof rowsOf>[number]} row */
function line(row) {
  const cell = (/** @type {string[]} */ [book]) => {
    const many = row.counts[book];
    const bad = book === "possibly_lost" && many;
    return h("td", { class: "number" }, many === undefined ? h("span", { class: "quiet" }, "–") : h("span", { class: bad ? "lost-count" : null }, count(many)));
  };
  const last = row.lost ? `lost ${moment(seconds(row.lost))}` : moment(seconds(row.at));
  return h("tr", null, h("th", { scope: "row" }, row.owner), COLUMNS.map(cell), h("td", { class: "quiet" }, last));
}
