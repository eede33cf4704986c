// The wall: a tile for each stream with its latest picture, those that need attention first.

import { setQuery } from "../app.js";
import { now } from "../clock.js";
import { fill, h } from "../dom.js";
import { subscribe } from "../live.js";
import { AwayNotice, LostNotice } from "../notices.js";
import { Loader } from "../pictures.js";
import { Bar } from "../wall/bar.js";
import { USUAL, count, matching, needing, ofState, readChoice, sorted, standing, writeChoice } from "../wall/choice.js";
import { Grid } from "../wall/grid.js";
import { Streams, judge } from "../wall/model.js";
import { empty, unmatched } from "../wall/words.js";

/** @typedef {import("../wall/model.js").Stream} Stream */
/** @typedef {import("../wall/choice.js").Choice} Choice */
/** @typedef {import("../live.js").Connection} Connection */
/** @typedef {import("../live.js").Message} Message */
/** @typedef {import("../live.js").Snapshot} Snapshot */

const QUIET = 300; // milliseconds before the page says that it waits
const SHORT = 1500; // milliseconds for which a lost connection is not worth a word

export const title = () => "Wall";

/** @type {[string, import("../help.js").Key[]]} */
export const keys = ["Wall", [
  [["/"], "search"],
  [["↓", "Enter"], "from the search to the tiles"],
  [["←", "→", "↑", "↓"], "move among the tiles"],
  [["Page up", "Page down", "Home", "End"], "move far"],
  [["Enter"], "open the stream"],
  [["f"], "full screen"],
  [["Esc"], "leave the full screen, or show all streams"],
]];

/**
 * @param {HTMLElement} main
 * @param {URL} url
 */
export function open(main, url) {
  const wall = new Wall(main, readChoice(url.searchParams));
  return () => wall.close();
}

class Wall {
  streams = new Streams();
  /** @type {Loader<Stream>} */
  loader = new Loader();
  /** @type {Map<Stream, number>} */
  standing = new Map();
  /** @type {string[]} */
  accounts = [];
  known = false;
  dirty = false;
  needing = 0;
  /** @type {Connection} */
  connection = { live: false, since: now() };
  lost = 0;

  /**
   * @param {HTMLElement} main
   * @param {Choice} choice
   */
  constructor(main, choice) {
    this.choice = choice;
    this.bar = new Bar({ choose: (change) => this.choose(change), again: () => this.sortAgain(), full: () => this.toggleFull() });
    this.grid = new Grid(this.loader, {
      lost: () => this.main.classList.contains("lost"),
      several: () => this.accounts.length > 1,
      top: () => this.top(),
    });
    this.notice = new LostNotice();
    this.away = new AwayNotice();
    this.words = h("div", { class: "words" });
    this.main = main;
    fill(main, h("h1", { class: "sr" }, "Wall"), this.bar.element, this.notice.element, this.away.element, this.words, this.grid.element);
    this.ending = new AbortController();
    const { signal } = this.ending;
    document.addEventListener("keydown", (event) => this.key(event), { signal });
    document.addEventListener("fullscreenchange", () => this.leftFull(), { signal });
    document.addEventListener("visibilitychange", () => this.tick(), { signal });
    this.resized = this.watchHeights();
    this.show();
    this.waiting = setTimeout(() => this.say(), QUIET);
    this.clock = setInterval(() => this.tick(), 1000);
    this.unsubscribe = subscribe({
      snapshot: (all) => this.snapshot(all),
      change: (message) => this.change(message),
      connection: (state) => this.connected(state),
    });
  }

  close() {
    this.unsubscribe();
    this.ending.abort();
    clearInterval(this.clock);
    clearTimeout(this.waiting);
    clearTimeout(this.lost);
    this.resized.disconnect();
    this.grid.close();
    this.loader.close();
    delete document.body.dataset.full;
  }

  /**
   * The time by which streams are judged. While nothing is heard of the daemon, states stay as they were; while the
   * database is away no picture arrives, and no stream is to blame.
   */
  judged() {
    const heard = this.connection.live ? now() : this.connection.since;
    return Math.min(heard, this.streams.away ?? Infinity);
  }

  /** What stands still has its place below the head of the page, whatever height that has. */
  watchHeights() {
    const head = /** @type {HTMLElement} */ (document.getElementById("header"));
    const heights = new ResizeObserver(() => {
      this.main.style.setProperty("--head", `${head.offsetHeight}px`);
      this.main.style.setProperty("--bar", `${this.bar.element.offsetHeight}px`);
    });
    heights.observe(head);
    heights.observe(this.bar.element);
    return heights;
  }

  /** Where the tiles begin below what stands still. */
  top() {
    return Math.max(0, this.bar.element.getBoundingClientRect().bottom);
  }

  // ------------------------------------------------------------ what the daemon says

  /** @param {Snapshot} all */
  snapshot(all) {
    this.known = true;
    clearTimeout(this.waiting);
    this.streams.restart(all);
    if (!this.standing.size) this.standing = standing(this.streams.named);
    this.streams.judge(this.judged());
    this.sayAway();
    this.nameAccounts();
    this.arrange();
    this.grid.tick();
  }

  /** @param {Message} message */
  change(message) {
    const { touched, others } = this.streams.change(message);
    const at = this.judged();
    this.sayAway();
    if (others) this.nameAccounts();
    this.dirty ||= others;
    for (const stream of touched) {
      const kind = judge(stream, at);
      this.dirty ||= kind !== stream.kind;
      stream.kind = kind;
      this.grid.touch(stream);
    }
  }

  /** What was known when the database went away is shown until it answers. */
  sayAway() {
    const { away } = this.streams;
    this.away.show(away, away);
  }

  /** @param {Connection} state */
  connected(state) {
    this.connection = state;
    clearTimeout(this.lost);
    if (state.live) this.sayLost(false);
    else this.lost = setTimeout(() => this.sayLost(true), SHORT);
  }

  /** @param {boolean} lost */
  sayLost(lost) {
    const hidden = !lost || !this.known;
    this.main.classList.toggle("lost", !hidden);
    if (hidden) this.notice.hide();
    else this.notice.show(this.connection.since);
    this.titled();
    this.grid.tick();
    if (!this.known) this.say();
  }

  // ------------------------------------------------------------ what is shown

  tick() {
    if (document.hidden || !this.known) return;
    if (this.streams.judge(this.judged()) || this.dirty) this.arrange();
    this.grid.tick();
  }

  /** Bring counts and order up to date. */
  arrange() {
    this.dirty = false;
    const { streams, choice } = this;
    const found = matching(streams.named, choice);
    this.bar.count(count(found), found.length, choice);
    this.needing = needing(count(streams.named));
    this.order = sorted(ofState(found, choice), choice.sort, this.standing);
    this.grid.arrange(this.order);
    this.say();
    this.titled();
  }

  titled() {
    const before = this.main.classList.contains("lost") ? "Not live: " : this.needing ? `(${this.needing}) ` : "";
    const text = `${before}Wall · poller`;
    if (document.title !== text) document.title = text;
  }

  /** Say in words why there is no tile. */
  say() {
    if (!this.known) {
      fill(this.words, h("p", { class: "quiet" }, this.connection.live ? "Loading the streams …" : "Asking the daemon for the streams …"));
    } else if (this.streams.named.length === 0) {
      if (!this.words.querySelector("h2")) fill(this.words, empty());
    } else if (this.grid.order.length === 0) {
      fill(this.words, unmatched(this.choice, () => this.clear()));
    } else {
      fill(this.words);
    }
  }

  nameAccounts() {
    this.accounts = [...new Set(this.streams.named.map((stream) => stream.account))].sort();
    this.bar.name(this.accounts, this.choice);
  }

  // ------------------------------------------------------------ what the viewer chooses

  /** @param {Partial<Choice>} change */
  choose(change) {
    const before = this.choice;
    this.choice = { ...before, ...change };
    if (this.choice.sort === "newest" && before.sort !== "newest") this.standing = standing(this.streams.named);
    setQuery(writeChoice(this.choice));
    this.show();
    if (change.size === undefined && change.full === undefined) scrollTo({ top: 0, behavior: "instant" });
    if (this.known) this.arrange();
  }

  show() {
    this.bar.show(this.choice);
    if (this.choice.full) document.body.dataset.full = "1";
    else delete document.body.dataset.full;
    this.grid.resize(this.choice.size);
  }

  sortAgain() {
    this.standing = standing(this.streams.named);
    scrollTo({ top: 0, behavior: "instant" });
    this.arrange();
  }

  clear() {
    this.bar.search.value = "";
    this.choose({ q: USUAL.q, state: USUAL.state, account: USUAL.account });
  }

  toggleFull() {
    const full = !this.choice.full;
    if (full) void document.documentElement.requestFullscreen?.().catch(() => {});
    else if (document.fullscreenElement) void document.exitFullscreen();
    this.choose({ full });
  }

  leftFull() {
    if (!document.fullscreenElement && this.choice.full) this.choose({ full: false });
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const typing = /** @type {Element} */ (event.target).closest?.("input, select, textarea, dialog");
    if (document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") this.escape();
    else if (typing === this.bar.search && ["ArrowDown", "Enter"].includes(event.key)) this.enter(event);
    else if (typing) return;
    else if (event.key === "/") this.enter(event);
    else if (event.key === "f") this.toggleFull();
  }

  /** From the search to the tiles, or the other way. @param {KeyboardEvent} event */
  enter(event) {
    event.preventDefault();
    if (event.key === "/") {
      this.bar.search.focus();
      this.bar.search.select();
    } else {
      this.grid.go(0);
    }
  }

  escape() {
    if (this.choice.full) this.toggleFull();
    else if (this.choice.q || this.choice.state || this.choice.account) this.clear();
    else this.bar.search.blur();
  }
}
