// One dialog that lists the keys: those of every page, and those of the page that is open.

import { openDialog } from "./confirm.js";
import { h } from "./dom.js";

/** Keys, and what they do. Keys that do the same thing stand together. @typedef {[string[], string]} Key */

/** @type {Key[]} */
const EVERYWHERE = [
  [["Tab"], "to the next control, with Shift to the one before"],
  [["Enter"], "open or press what has the focus"],
  [["Esc"], "close a dialog"],
  [["?"], "this list"],
];

/**
 * @param {string} page
 * @param {Key[]} keys those of the page
 */
export function openHelp(page, keys) {
  openDialog("Keys", (close) => [
    keys.length ? section(page, keys) : null,
    section("Every page", EVERYWHERE),
    h("div", { class: "buttons" }, h("button", { type: "button", class: "primary", onclick: close, autofocus: true }, "Close")),
  ]);
}

/**
 * @param {string} name
 * @param {Key[]} keys
 */
function section(name, keys) {
  const rows = keys.map(([names, what]) => [h("dt", null, names.map((one) => h("kbd", null, one))), h("dd", null, what)]);
  return h("section", { class: "keys" }, h("h3", null, name), h("dl", null, rows.flat()));
}
