// Copies the address of a moment.

import { h } from "../dom.js";
import { notify } from "../notices.js";

const SHOWN = 4000;
const FIELD_SHOWN = 20_000;

/** @param {URLSearchParams} query */
export async function copyLink(query) {
  const address = `${location.origin}/stream?${query}`;
  const done = await navigator.clipboard?.writeText(address).then(() => true, () => false);
  if (done) return notify(h("p", { class: "notice" }, "The link is copied."), SHOWN);
  // over plain HTTP a browser keeps the clipboard to itself, except from this machine
  const field = h("input", { readonly: true, value: address, "aria-label": "Link to this picture" });
  notify(h("p", { class: "notice" }, "Copy this link: ", field), FIELD_SHOWN);
  field.select();
}
