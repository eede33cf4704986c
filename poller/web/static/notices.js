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

/** A line above what is shown. It is hidden while it says nothing. */
class Notice {
  element = h("p", { class: "notice lost", role: "status", dataset: { level: "warn" }, hidden: true });

  /** @param {string} text */
  say(text) {
    setText(this.element, text);
    this.element.hidden = false;
  }

  hide() {
    this.element.hidden = true;
    fill(this.element);
  }
}

/** Says since when the page is not live. */
export class LostNotice extends Notice {
  /** @param {number} since Unix time */
  show(since) {
    this.say(`Not live since ${moment(since)}. Trying to reach the daemon again.`);
  }
}

/** Says since when the database of the spool is away. */
export class AwayNotice extends Notice {
  /**
   * @param {number | null} since Unix time; null while it answers
   * @param {number | null} known Unix time of what is shown
   */
  show(since, known) {
    if (since === null || known === null) return this.hide();
    this.say(`The database is away since ${moment(since)}: what is shown is from ${moment(known)}. The daemon tries again until the database answers.`);
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
