// Follows what was ordered: a line with a bar for each job, until it has ended.

import { ApiError, get } from "./api.js";
import { fill, h } from "./dom.js";
import { count } from "./numbers.js";

const EVERY = 400;

/** @typedef {{ job: string, done: number, total: number, state: string, error: string | null, action: string, result: any }} Job */

/**
 * Show a job until it has ended, and then how it ended. It goes on if the page is left.
 * @param {Element} place
 * @param {Job} job as the order was answered
 * @param {{ doing: string, describe: (result: any) => string, ended?: () => void }} words
 * @returns {() => void} stop to look
 */
export function follow(place, job, { doing, describe, ended = () => {} }) {
  const bar = h("progress", { "aria-label": doing, max: Math.max(1, job.total), value: job.done });
  const text = h("span", { role: "status" });
  const line = h("div", { class: "job" }, text, bar);
  let timer = 0;
  let over = false;
  place.append(line);
  const left = () => over || !line.isConnected;

  const show = (/** @type {Job} */ now) => {
    bar.value = now.done;
    if (now.state === "running") {
      text.textContent = now.total > 1 ? `${doing}: ${count(now.done)} of ${count(now.total)}` : `${doing} …`;
      timer = setTimeout(look, EVERY);
      return;
    }
    end(now.state === "done" ? describe(now.result) : `${doing} stopped at ${count(now.done)} of ${count(now.total)}: ${now.error}`, now.state);
  };
  const end = (/** @type {string} */ said, /** @type {string} */ state) => {
    const hide = h("button", { type: "button", class: "link", onclick: () => line.remove() }, "Hide");
    line.dataset.state = state;
    fill(line, text, hide);
    text.textContent = said;
    ended();
  };
  const look = async () => {
    try {
      const now = await get(`/api/job/${encodeURIComponent(job.job)}`);
      if (!left()) show(now);
    } catch (error) {
      if (left()) return;
      if (error instanceof ApiError && error.status === 404) return end(`${doing}: the daemon no longer knows how it ended.`, "failed");
      timer = setTimeout(look, 4 * EVERY);
    }
  };
  show(job);
  return () => {
    over = true;
    clearTimeout(timer);
  };
}
