// What the wall says where there are no tiles.

import { h } from "../dom.js";
import { SAYINGS } from "./model.js";

/** There is no stream at all. */
export function empty() {
  return [
    h("h2", null, "No streams yet"),
    h("p", null, "A stream appears here with its first picture, and nobody has to load the page again."),
    h("p", { class: "quiet" },
      "Is one live already? ", h("a", { href: "/pipeline" }, "The pipeline"), " shows whether the queue is read, and ",
      h("code", null, "poller check --connect"), " tries the key and the queue. The guide, “A first configuration”, ",
      "says what the platform needs to send pictures."),
  ];
}

/**
 * No stream is as the viewer wishes.
 * @param {import("./choice.js").Choice} choice
 * @param {() => void} clear
 */
export function unmatched({ q, state, account }, clear) {
  const wishes = [
    state && `is ${SAYINGS[state].word.toLowerCase()}`,
    q && `matches “${q}”`,
    account && `belongs to account ${account}`,
  ];
  return [
    h("h2", null, `No stream ${wishes.filter(Boolean).join(" and ")}`),
    h("p", null, h("button", { type: "button", onclick: clear }, "Show all streams")),
  ];
}
