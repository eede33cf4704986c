// Retry these, purge these: the buttons of a filter, and what they ask.

import { orderCounted } from "../actions.js";
import { h } from "../dom.js";
import { count } from "../numbers.js";
import { countNow } from "./counting.js";

/** @typedef {import("./page.js").Stored} Stored */

/**
 * @param {Stored} stored
 * @param {Record<string, any>} filter
 * @param {number} known
 * @param {string[]} owners
 */
export function buttonsFor(stored, filter, known, owners) {
  const trouble = h("p", { class: "trouble", role: "alert" });
  const button = (/** @type {"retry" | "purge"} */ how, /** @type {string} */ name) => {
    const element = h("button", { type: "button", class: how === "purge" ? "danger" : null }, name);
    element.addEventListener("click", async () => {
      trouble.textContent = "";
      try {
        await act(stored, how, filter, await countNow(stored.kind.path, filter), owners);
      } catch (error) {
        trouble.textContent = /** @type {Error} */ (error).message;
      }
    });
    return element;
  };
  const these = known === 1 ? "this one" : "these";
  return h("div", { class: "buttons" }, button("retry", `Retry ${these}`), button("purge", `Purge ${these}`), trouble);
}

/**
 * @param {Stored} stored
 * @param {"retry" | "purge"} how
 * @param {Record<string, any>} filter
 * @param {number} expect
 * @param {string[]} owners
 */
function act({ kind, jobs, reload }, how, filter, expect, owners) {
  const purge = how === "purge";
  const word = purge ? "Purge" : "Retry";
  return orderCounted({
    path: `${kind.path}/${how}`,
    body: (now) => ({ filter, expect: now }),
    expect,
    danger: purge,
    wording: (now, before) => ({
      title: before === null ? `${word} ${kind.noun(now)}?` : `${count(now)} match now`,
      lines: [
        ...(before === null ? [] : [`It was ${count(before)} when you were asked. Nothing was changed.`]),
        ...(purge ? kind.purgeLines(now) : kind.retryLines(owners)),
      ],
      action: `${word} ${count(now)}`,
    }),
    place: jobs,
    doing: purge ? "Purging" : "Retrying",
    describe: (row) => (purge ? `${kind.noun(row.purged)} purged.` : kind.retried(row)),
    ended: reload,
  });
}
