// The pipeline: sources, the spool and sinks as they are now, and what an operator can do with them.
//
// The page asks for the status each two seconds while it is visible. What changes the height of something waits while
// the pointer is on something that can be pressed, so that nothing moves away under it.

import { lookOnly, me, operates } from "../account.js";
import { get } from "../api.js";
import { now } from "../clock.js";
import { fill, h, setText } from "../dom.js";
import { AwayNotice, LostNotice, failure } from "../notices.js";
import { renderBooks } from "../pipeline/books.js";
import { SinkCards, SourceCards, StoreCards } from "../pipeline/cards.js";
import { renderMembers } from "../pipeline/members.js";
import { renderReadiness } from "../pipeline/readiness.js";
import { ReplayList } from "../pipeline/replays.js";
import { ZONE, moment, seconds } from "../times.js";

const EVERY = 2000;

export const title = () => "Pipeline";

/**
 * @param {HTMLElement} main
 */
export function open(main) {
  const page = new PipelinePage(main);
  page.start();
  return () => page.close();
}

class PipelinePage {
  /** @param {HTMLElement} main */
  constructor(main) {
    this.main = main;
    this.abort = new AbortController();
    this.timer = 0;
    this.asking = false;
    this.readiness = h("section", { class: "readiness", "aria-label": "Readiness" });
    this.when = h("p", { class: "quiet small" });
    this.notice = new LostNotice();
    this.away = new AwayNotice();
    this.trouble = h("div");
    this.shell = h("div", { class: "pipeline", hidden: true });
    this.jobs = h("div", { class: "jobs" });
    this.books = h("section", { class: "panel books", hidden: true });
    this.members = h("section", { class: "panel books", hidden: true });
    this.hint = h("div");
  }

  async start() {
    const viewer = await me();
    if (this.abort.signal.aborted) return;
    const act = { operates: operates(viewer), jobs: this.jobs, changed: () => void this.ask() };
    this.sources = new SourceCards();
    this.store = new StoreCards();
    this.sinks = new SinkCards(act);
    this.replays = new ReplayList(act, this.abort.signal);
    if (!act.operates) fill(this.hint, lookOnly(viewer, "To pause, resume or replay", "poller pause"));
    fill(this.shell,
      h("div", { class: "head" }, h("h1", null, "Pipeline"), this.when),
      this.notice.element, this.away.element, this.jobs, this.readiness, this.flow(), this.hint, this.replays.element, this.members, this.books);
    fill(this.main, this.trouble, this.shell);
    this.listen();
    void this.ask();
  }

  flow() {
    const column = (/** @type {string} */ name, /** @type {Element} */ cards) =>
      h("section", { class: "column", "aria-label": name }, h("h2", null, name), cards);
    const arrow = () => h("span", { class: "arrow", "aria-hidden": "true" }, "→");
    return h("div", { class: "flow" },
      column("Sources", /** @type {SourceCards} */ (this.sources).element), arrow(),
      column("Spool", /** @type {StoreCards} */ (this.store).element), arrow(),
      column("Sinks", /** @type {SinkCards} */ (this.sinks).element));
  }

  listen() {
    const signal = this.abort.signal;
    document.addEventListener("visibilitychange", () => void this.ask(), { signal });
  }

  async ask() {
    clearTimeout(this.timer);
    if (this.asking || document.hidden || this.abort.signal.aborted) return;
    this.asking = true;
    try {
      this.render(await get("/api/status", {}, this.abort.signal));
    } catch (error) {
      if (!this.abort.signal.aborted) this.lost(/** @type {Error} */ (error));
    }
    this.asking = false;
    if (!this.abort.signal.aborted) this.timer = setTimeout(() => void this.ask(), EVERY);
  }

  /** @param {any} status */
  render(status) {
    const at = now();
    const still = this.main.querySelector("button:hover, a:hover, summary:hover") !== null;
    const first = this.shell.hidden;
    this.shell.hidden = false;
    this.shell.classList.remove("lost");
    fill(this.trouble);
    this.at = at;
    this.notice.hide();
    this.away.show(status.away && seconds(status.away.since), status.away && seconds(status.away.known_at));
    setText(this.when, `As of ${moment(at)}, ${ZONE}`);
    this.sources?.render(status, at, still && !first);
    this.store?.render(status, at);
    this.sinks?.render(status, at, still && !first);
    if (still && !first) return;
    renderReadiness(this.readiness, status);
    this.replays?.render(status.replays);
    renderMembers(this.members, status);
    renderBooks(this.books, status);
  }

  /** @param {Error} error */
  lost(error) {
    this.shell.classList.add("lost");
    if (this.at) this.notice.show(this.at);
    else if (!this.trouble.firstChild) fill(this.trouble, failure(error));
  }

  close() {
    this.abort.abort();
    clearTimeout(this.timer);
    this.sinks?.close();
  }
}
