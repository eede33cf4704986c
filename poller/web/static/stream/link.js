// Copies the address of a moment.

import { fill, h } from "../dom.js";

const SHOWN = 4000;

/** @param {URLSearchParams} query */
export async function copyLink(query) {
  const address = `${location.origin}/stream?${query}`;
  const done = await navigator.clipboard?.writeText(address).then(() => true, () => false);
  if (done) return notify(h("p", { class: "notice" }, "The link is copied."));
  // over plain HTTP a browser keeps the clipboard to itself, except from this machine
  const field = h("input", { readonly: true, value: address, "aria-label": "Link to this picture" });
  const note = notify(h("p", { class: "notice" }, "Copy this link: ", field), SHOWN * 5);
  field.select();
  return note;
}

/**
 * @param {HTMLElement} note
 * @param {number} [milliseconds]
 */
function notify(note, milliseconds = SHOWN) {
  const place = document.getElementById("notices");
  if (place) fill(place, note);
  setTimeout(() => note.remove(), milliseconds);
  return note;
}
