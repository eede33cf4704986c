// Open replays, each with how far it is, and pause, resume and cancel; and those that have ended.

import { post } from "../api.js";
import { confirm } from "../confirm.js";
import { fill, h, setText } from "../dom.js";
import { count, counted } from "../numbers.js";
import { EarlierReplays } from "./earlier.js";

/** @typedef {import("./cards.js").Act} Act */

export class ReplayList {
  /**
   * @param {Act} act
   * @param {AbortSignal} signal
   */
  constructor(act, signal) {
    this.act = act;
    this.earlier = new EarlierReplays(signal);
    this.none = h("p", { class: "quiet" }, "No replay is running.");
    this.list = h("div", { class: "replays" });
    this.element = h("section", { class: "panel", "aria-label": "Replays" },
      h("h2", null, "Replays"), this.none, this.list, this.earlier.element);
    /** @type {Map<number, any>} */
    this.lines = new Map();
  }

  /** @param {any[]} replays */
  render(replays) {
    const numbers = replays.map((one) => one.replay);
    if (numbers.join() !== [...this.lines.keys()].join()) {
      this.lines = new Map(replays.map((one) => [one.replay, this.lines.get(one.replay) || this.build(one)]));
      fill(this.list, [...this.lines.values()].map((line) => line.element));
      void this.earlier.load();
    }
    this.none.hidden = replays.length > 0;
    for (const one of replays) this.update(this.lines.get(one.replay), one);
  }

  /** @param {any} one */
  build(one) {
    const name = `Replay ${one.replay} to ${one.sink}`;
    const button = (/** @type {string} */ what, /** @type {() => void} */ onclick) => h("button", { type: "button", onclick, "aria-label": `${what} replay ${one.replay}` }, what);
    /** @type {any} */
    const line = {
      bar: h("progress", { "aria-label": name }),
      text: h("span", { class: "quiet" }),
      trouble: h("p", { class: "trouble", role: "alert" }),
    };
    line.pause = button("Pause", () => void this.change(line, one.replay, "pause"));
    line.resume = button("Resume", () => void this.change(line, one.replay, "resume"));
    line.cancel = button("Cancel…", () => void this.cancel(line, one));
    line.element = h("div", { class: "replay" },
      h("div", { class: "what" }, h("strong", null, name), h("span", { class: "quiet small" }, one.what === "all" ? "all events" : one.what)),
      line.bar, line.text, this.act.operates ? h("div", { class: "buttons" }, line.pause, line.resume, line.cancel) : null, line.trouble);
    return line;
  }

  /**
   * @param {any} line
   * @param {any} one
   */
  update(line, one) {
    line.last = one;
    line.bar.max = Math.max(1, one.total);
    line.bar.value = one.done ?? 0;
    const state = one.state === "waits" ? "waits for an earlier replay" : one.state;
    setText(line.text, `${one.done === null ? "–" : count(one.done)} of ${count(one.total)}, ${state}`);
    const paused = one.state === "paused";
    const focused = document.activeElement === line.pause || document.activeElement === line.resume;
    line.pause.hidden = paused;
    line.resume.hidden = !paused;
    if (focused) (paused ? line.resume : line.pause).focus();
  }

  /**
   * @param {any} line
   * @param {number} number
   * @param {string} how
   */
  async change(line, number, how) {
    line.trouble.textContent = "";
    try {
      const job = await post(`/api/replays/${number}/${how}`, {});
      if (job.result) this.update(line, job.result);
    } catch (error) {
      line.trouble.textContent = /** @type {Error} */ (error).message;
    }
    this.act.changed();
  }

  /**
   * @param {any} line
   * @param {any} one
   */
  cancel(line, one) {
    const left = Math.max(0, one.total - (line.last?.done ?? 0));
    return confirm({
      title: `Cancel replay ${one.replay}?`,
      lines: [`${counted(left, "event")} of it will not be sent again. What was sent stays sent, and a batch in hand is delivered.`],
      action: "Cancel the replay",
      danger: true,
      run: async () => {
        await post(`/api/replays/${one.replay}/cancel`, {});
        this.act.changed();
        return null;
      },
    });
  }
}
