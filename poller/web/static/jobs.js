// Follows what was ordered: a line with a bar for each job, until it has ended.

import { ApiError, get } from "./api.js";
import { fill, h } from "./dom.js";
import { subscribe } from "./live.js";
import { count } from "./numbers.js";

const AGAIN = 5000; // the live feed tells what changes; it may be refused, where many tabs are open

/** @typedef {{ job: string, done: number, total: number, state: string, error: string | null, result?: any }} Job */
/** @typedef {{ doing: string, describe: (result: any) => string, ended?: () => void }} Words */

/**
 * Show a job until it has ended, and then how it ended. It goes on if the page is left.
 * @param {Element} place
 * @param {Job} job as the order was answered
 * @param {Words} words
 * @returns {() => void} stop to look
 */
export function follow(place, job, words) {
  const line = new Line(job, words);
  place.append(line.element);
  line.show(job);
  if (!line.over) line.watch();
  return () => line.stop();
}

class Line {
  over = false;
  timer = 0;
  unsubscribe = () => {};

  /**
   * @param {Job} job
   * @param {Words} words
   */
  constructor(job, words) {
    this.id = job.job;
    this.words = words;
    this.bar = h("progress", { "aria-label": words.doing, max: Math.max(1, job.total), value: job.done });
    this.text = h("span", { role: "status" });
    this.element = h("div", { class: "job" }, this.text, this.bar);
  }

  /** The feed tells how far the job is; only the job itself tells its result. */
  watch() {
    this.unsubscribe = subscribe({
      connection: ({ live }) => live && void this.ask(),
      job: (message) => {
        if (message.job !== this.id) return;
        if (message.state === "running") this.show(message);
        else void this.ask();
      },
    });
    this.timer = setInterval(() => void this.ask(), AGAIN);
  }

  stop() {
    this.over = true;
    this.unsubscribe();
    clearInterval(this.timer);
  }

  async ask() {
    try {
      const now = await get(`/api/job/${encodeURIComponent(this.id)}`);
      this.show(now);
    } catch (error) {
      const forgotten = error instanceof ApiError && error.status === 404;
      if (forgotten) this.end(`${this.words.doing}: the daemon no longer knows how it ended.`, "failed");
    }
  }

  /** @param {Job} now */
  show({ done, total, state, error, result }) {
    if (this.over) return;
    const { doing, describe } = this.words;
    this.bar.value = done;
    const far = `${count(done)} of ${count(total)}`;
    if (state === "running") this.text.textContent = total > 1 ? `${doing}: ${far}` : `${doing} …`;
    else this.end(state === "done" ? describe(result) : `${doing} stopped at ${far}: ${error}`, state);
  }

  /**
   * @param {string} said
   * @param {string} state
   */
  end(said, state) {
    if (this.over) return;
    this.stop();
    this.element.dataset.state = state;
    const hide = h("button", { type: "button", class: "plain", onclick: () => this.element.remove() }, "Hide");
    fill(this.element, this.text, hide);
    this.text.textContent = said;
    this.words.ended?.();
  }
}
