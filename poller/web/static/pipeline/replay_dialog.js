// Asks which events a sink gets again, counts them, and orders the replay.

import { get } from "../api.js";
import { orderCounted } from "../actions.js";
import { openDialog } from "../confirm.js";
import { h } from "../dom.js";
import { counted } from "../numbers.js";

const KINDS = ["screenshot", "recording", "channel", "moderation", "recording_status", "push_exception", "gap", "other"];

/** @typedef {import("./cards.js").Act} Act */

/**
 * @param {string} sink
 * @param {Act} act
 */
export async function askReplay(sink, act) {
  const chosen = await choose(sink);
  if (chosen) await orderReplay(sink, chosen.filter, chosen.found, act);
}

/**
 * The dialog with the filter. Resolves with the filter and its count, or null if it was closed.
 * @param {string} sink
 * @returns {Promise<{ filter: any, found: any } | null>}
 */
function choose(sink) {
  return new Promise((resolve) => {
    /** @type {any} */
    let chosen = null;
    const field = (/** @type {string} */ name, /** @type {string} */ label, /** @type {any} */ props) => h("label", null, h("span", null, label), h("input", { name, ...props }));
    const trouble = h("p", { class: "trouble", role: "alert" });
    const next = h("button", { class: "primary" }, "Count");
    openDialog(
      `Replay to ${sink}`,
      (close) => {
        const form = h("form", { class: "fields" },
          h("p", { class: "quiet" }, "The sink gets these events again, after all others. Their ids stay the same, so a receiver that drops known ids drops them."),
          h("div", { class: "pair" }, field("since", "Received since", { type: "datetime-local", step: 1 }), field("until", "Received before", { type: "datetime-local", step: 1 })),
          field("stream", "Stream id (empty: all)", { type: "text", autocomplete: "off", spellcheck: "false" }),
          h("fieldset", null, h("legend", null, "Kinds (none: all)"), KINDS.map((kind) => h("label", { class: "check" }, h("input", { type: "checkbox", name: "kind", value: kind }), kind))),
          trouble,
          h("div", { class: "buttons" }, h("button", { type: "button", onclick: close }, "Cancel"), next));
        form.addEventListener("submit", async (event) => {
          event.preventDefault();
          next.disabled = true;
          trouble.textContent = "";
          try {
            const filter = filterOf(new FormData(form));
            const found = await countReplay(sink, filter);
            const wrong = objection(found);
            if (wrong) trouble.textContent = wrong;
            else chosen = { filter, found };
          } catch (error) {
            trouble.textContent = /** @type {Error} */ (error).message;
          }
          next.disabled = false;
          if (chosen) close();
          else next.focus();
        });
        return form;
      },
      () => resolve(chosen),
    );
  });
}

/**
 * The filter of a form: only what is filled in. Pure.
 * @param {FormData} data
 */
export function filterOf(data) {
  /** @type {any} */
  const filter = {};
  for (const name of ["since", "until"]) {
    const text = String(data.get(name) || "");
    if (text) filter[name] = new Date(text).getTime() / 1000;
  }
  const stream = String(data.get("stream") || "");
  if (stream) filter.streams = [stream];
  const kinds = data.getAll("kind").map(String);
  if (kinds.length) filter.kinds = kinds;
  return filter;
}

/**
 * @param {string} sink
 * @param {any} filter
 */
function countReplay(sink, filter) {
  const { streams, kinds, ...rest } = filter;
  return get("/api/replay", { sink, ...rest, streams: streams?.join(","), kinds: kinds?.join(",") });
}

/**
 * Why a count cannot be ordered; empty if it can. Pure.
 * @param {any} found
 */
export function objection(found) {
  if (!found.complete) return "There are too many events to count in a few seconds. Choose a shorter time.";
  return found.count ? "" : `No events match${besides(found)}.`;
}

/**
 * What is left out. Pure.
 * @param {any} found
 */
export function besides(found) {
  const parts = [];
  if (found.pending) parts.push(`${counted(found.pending, "event")} pending anyway`);
  if (found.dead) parts.push(`${counted(found.dead, "dead letter")}, which Dead letters retries`);
  return parts.length ? `; left out: ${parts.join(", and ")}` : "";
}

/**
 * @param {string} sink
 * @param {any} filter
 * @param {any} found
 * @param {Act} act
 */
function orderReplay(sink, filter, found, act) {
  const old = found.old_pictures ? `${counted(found.old_pictures, "picture")} may be gone from the bucket, which keeps them 15 days by default; each of those becomes a dead letter.` : "";
  return orderCounted({
    path: "/api/replay",
    body: (expect) => ({ sink, filter, expect, below: found.below }),
    expect: found.count,
    wording: (count, before) => ({
      title: before === null ? `${counted(count, "event")} match` : `${counted(count, "event")} match now`,
      lines: [before === null ? `They go to ${sink} again${besides(found)}.` : `It was ${counted(before, "event")} when you were asked. They go to ${sink} again.`, old].filter(Boolean),
      action: `Replay ${counted(count, "event")}`,
    }),
    place: act.jobs,
    doing: "Counting and ordering the replay",
    describe: (row) => (row.replay ? `Replay ${row.replay} was ordered: ${counted(row.events, "event")} to ${row.sink}.` : "No events match any more."),
    ended: act.changed,
  });
}
