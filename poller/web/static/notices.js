// What goes wrong, in one way on all pages: a request that failed, and a daemon that is not heard of.

import { fill, h, setText } from "./dom.js";
import { moment } from "./times.js";

/**
 * A request failed. `again` is what the button does, if trying again can help.
 * @param {Error} error
 * @param {() => void} [again]
 */
export function failure(error, again) {
  const button = again && h("button", { type: "button", onclick: again }, "Try again");
  return h("p", { class: "notice", role: "alert", dataset: { level: "bad" } }, h("span", null, error.message), button);
}

/** Says since when the page is not live. It is hidden until `show` is called. */
export class LostNotice {
  element = h("p", { class: "notice lost", role: "status", dataset: { level: "warn" }, hidden: true });

  /** @param {number} since Unix time */
  show(since) {
    setText(this.element, `Not live since ${moment(since)}. Trying to reach the daemon again.`);
    this.element.hidden = false;
  }

  hide() {
    this.element.hidden = true;
    fill(this.element);
  }
}

/**
 * Say something at the edge of the window for a while.
 * @param {HTMLElement} note
 * @param {number} milliseconds
 */
export function notify(note, milliseconds) {
  const place = document.getElementById("notices");
  if (place) fill(place, note);
  setTimeout(() => note.remove(), milliseconds);
}
