// The cards of sources, spool and sinks. A card is built once for each part; then only its texts change.

import { ApiError, post } from "../api.js";
import { sparkline } from "../charts.js";
import { fill, h, setText } from "../dom.js";
import { count, rate, size } from "../numbers.js";
import { age, local } from "../times.js";
import { askReplay } from "./replay_dialog.js";

const SAMPLES = 90;
/** Seconds after which a page in the journal is a reason of `/readyz`, too. */
const KEPT_LONG = 60;
const GOOD = ["polling", "stands by", "receiving", "serving", "writable", "passing on"];
/** @type {Record<string, [string, string]>} */
const LOOKS = { failing: ["warn", "▲"], paused: ["warn", "▲"], disabled: ["bad", "■"], stopped: ["", "○"] };

/** @typedef {{ operates: boolean, jobs: Element, changed: () => void }} Act */

/**
 * The level and the symbol of a state. Pure.
 * @param {string} state
 */
export const lookOf = (state) => (GOOD.includes(state) ? ["good", "●"] : LOOKS[state] || ["warn", "▲"]);

/** How much a count grows a second, from one answer to the next. A count that shrinks began anew. */
class Growth {
  /** @type {{ at: number, value: number } | null} */
  last = null;

  /**
   * @param {number} at
   * @param {number} value
   */
  take(at, value) {
    const last = this.last;
    this.last = { at, value };
    return last && at > last.at && value >= last.value ? (value - last.value) / (at - last.at) : null;
  }
}

class Card {
  /**
   * @param {string} name
   * @param {string} kind
   * @param {string[]} facts
   */
  constructor(name, kind, facts) {
    this.state = h("span", { class: "state" });
    this.rate = h("span", { class: "rate" });
    this.spark = sparkline(SAMPLES);
    this.growth = new Growth();
    this.trouble = h("p", { class: "trouble", hidden: true });
    this.buttons = h("div", { class: "buttons", hidden: true });
    /** @type {Record<string, { row: HTMLElement, value: HTMLElement }>} */
    this.facts = Object.fromEntries(facts.map((fact) => [fact, this.fact(fact)]));
    this.element = h("article", { class: "part panel", "aria-label": name },
      h("header", null, h("h3", null, name), h("span", { class: "quiet small" }, kind), this.state),
      h("div", { class: "flowing" }, this.spark.element, this.rate),
      h("dl", null, Object.values(this.facts).map((one) => one.row)), this.trouble, this.buttons);
  }

  /** @param {string} name */
  fact(name) {
    const value = h("dd");
    return { value, row: h("div", null, h("dt", null, name), value) };
  }

  /**
   * @param {string} state
   */
  showState(state) {
    if (this.state.dataset.state === state) return;
    const [level, symbol] = lookOf(state);
    this.state.dataset.state = state;
    this.state.dataset.level = level;
    fill(this.state, h("span", { class: "symbol", "aria-hidden": "true" }, symbol), state[0].toUpperCase() + state.slice(1));
  }

  /**
   * @param {number} at
   * @param {number | null} total
   * @param {number | null} perSecond
   */
  showRate(at, total, perSecond) {
    const grown = total === null ? null : this.growth.take(at, total);
    if (grown !== null) this.spark.add(grown);
    setText(this.rate, rate(perSecond));
  }

  /**
   * @param {string} fact
   * @param {string} text
   */
  set(fact, text) {
    setText(this.facts[fact].value, text);
  }

  /**
   * @param {string} text
   * @param {string} [level] empty for what is over
   */
  showTrouble(text, level = "warn") {
    this.trouble.dataset.level = level;
    setText(this.trouble, text);
    this.trouble.hidden = !text;
  }
}

/** Cards by name, in the order of the configuration. */
class Cards {
  constructor() {
    this.element = h("div", { class: "cards" });
    /** @type {Map<string, any>} */
    this.cards = new Map();
  }

  /**
   * @param {any[]} parts
   * @param {(part: any) => any} build
   */
  match(parts, build) {
    const names = parts.map((part) => part.name);
    if (names.join("\n") === [...this.cards.keys()].join("\n")) return;
    this.cards = new Map(parts.map((part) => [part.name, this.cards.get(part.name) || build(part)]));
    fill(this.element, [...this.cards.values()].map((card) => card.element));
  }
}

export class SourceCards extends Cards {
  /**
   * @param {any} status
   * @param {number} at
   * @param {boolean} still
   */
  render(status, at, still) {
    if (!still) this.match(status.sources, (one) => new Card(one.name, one.type.replaceAll("_", " "), ["Taken", "Last answer"]));
    for (const one of status.sources) {
      const card = this.cards.get(one.name);
      if (!card) continue;
      card.showRate(at, one.taken, one.per_second);
      card.set("Taken", count(one.taken));
      card.set("Last answer", one.last_answer === null ? "–" : `${age(one.last_answer)} ago`);
      card.showState(one.state);
      if (!still) card.showTrouble(one.trouble || one.polled_by || "", one.trouble ? "warn" : "");
    }
  }
}

export class StoreCards {
  constructor() {
    this.spool = new Card("spool", "", ["Size", "Dead letters", "Quarantine"]);
    this.journal = new Card("journal", "", ["Held", "Oldest"]);
    this.journal.element.querySelector(".flowing")?.remove();
    this.journal.element.hidden = true;
    this.element = h("div", { class: "cards" }, this.spool.element, this.journal.element);
    this.dead = this.link("Dead letters", "/dead");
    this.quarantined = this.link("Quarantine", "/quarantine");
  }

  /**
   * @param {string} fact
   * @param {string} href
   */
  link(fact, href) {
    const link = h("a", { href, "aria-label": fact });
    this.spool.facts[fact].value.append(link);
    return link;
  }

  /**
   * @param {any} status
   * @param {number} at
   */
  render(status, at) {
    const { spool, journal, sources, sinks } = status;
    const sum = (/** @type {any[]} */ rows, /** @type {string} */ name) =>
      rows.some((row) => row[name] === null) ? null : rows.reduce((all, row) => all + (row[name] || 0), 0);
    this.spool.showState(spool.trouble ? "not writable" : "writable");
    this.spool.showRate(at, sum(sources, "taken"), sources.some((/** @type {any} */ one) => one.per_second !== null) ? sum(sources, "per_second") : null);
    this.spool.set("Size", size(spool.bytes));
    setText(this.dead, count(sum(sinks, "dead")));
    setText(this.quarantined, count(spool.quarantined));
    this.spool.showTrouble(local(spool.trouble || ""));
    this.journal.element.hidden = !journal;
    if (!journal) return;
    this.journal.showState(journal.oldest >= KEPT_LONG ? "holding" : "passing on");
    this.journal.set("Held", size(journal.bytes));
    this.journal.set("Oldest", journal.oldest === null ? "–" : age(journal.oldest));
  }
}

const SINK_FACTS = ["Backlog", "Oldest", "Caught up", "Waits for a retry", "Dead letters"];

export class SinkCards extends Cards {
  /** @param {Act} act */
  constructor(act) {
    super();
    this.act = act;
  }

  /**
   * @param {any} status
   * @param {number} at
   * @param {boolean} still
   */
  render(status, at, still) {
    if (!still) this.match(status.sinks, (one) => this.build(one));
    for (const one of status.sinks) {
      const card = this.cards.get(one.name);
      if (!card) continue;
      card.showRate(at, one.delivered, one.per_second);
      card.set("Backlog", count(one.backlog));
      card.set("Oldest", one.oldest === null ? "–" : age(one.oldest));
      card.set("Caught up", caughtUp(one));
      card.set("Waits for a retry", count(one.retrying));
      setText(card.dead, count(one.dead));
      card.showState(one.state);
      if (still) continue;
      card.showTrouble(troubleOf(one), one.state === "serving" ? "" : "warn");
      this.showButtons(card, one);
    }
  }

  /** @param {any} one */
  build(one) {
    const card = /** @type {any} */ (new Card(one.name, one.type, SINK_FACTS));
    card.dead = h("a", { href: `/dead?sink=${encodeURIComponent(one.name)}`, "aria-label": `Dead letters of ${one.name}` });
    card.facts["Dead letters"].value.append(card.dead);
    if (!this.act.operates) return card;
    const button = (/** @type {string} */ name, /** @type {() => void} */ onclick) => h("button", { type: "button", onclick, "aria-label": `${name} ${one.name}` }, name);
    card.pause = button("Pause", () => void this.change(card, one.name, "pause"));
    card.resume = button("Resume", () => void this.change(card, one.name, "resume"));
    const replay = button("Replay…", () => void askReplay(one.name, this.act));
    card.buttons.append(card.pause, card.resume, replay);
    card.buttons.hidden = false;
    return card;
  }

  /**
   * @param {any} card
   * @param {any} one
   */
  showButtons(card, one) {
    if (!this.act.operates) return;
    const held = one.state === "paused" && one.why === "by the operator";
    const focused = [card.pause, card.resume].find((button) => button === document.activeElement);
    card.pause.hidden = held;
    card.resume.hidden = !["paused", "disabled", "failing"].includes(one.state);
    if (focused?.hidden) (held ? card.resume : card.pause).focus();
  }

  /**
   * @param {any} card
   * @param {string} sink
   * @param {"pause" | "resume"} how
   */
  async change(card, sink, how) {
    try {
      const job = await post(`/api/${how}`, { sink });
      if (job.result) this.showButtons(card, { state: job.result.state, why: how === "pause" ? "by the operator" : "" });
      card.element.dataset.failed = "";
    } catch (error) {
      card.showTrouble(error instanceof ApiError ? error.message : String(error));
    }
    this.act.changed();
  }

  close() {
    this.cards.clear();
  }
}

/**
 * When a sink has nothing pending, in words. Pure.
 * @param {any} sink
 */
export function caughtUp(sink) {
  if (sink.backlog === 0) return "yes";
  if (sink.backlog === null) return "–";
  if (sink.state === "paused" || sink.state === "disabled") return `no, ${sink.state}`;
  return sink.catch_up === null ? "falls behind" : `in ${age(sink.catch_up)}`;
}

/**
 * Why a sink is not served as it should be. Pure.
 * @param {any} sink
 */
export function troubleOf(sink) {
  const parts = [];
  if (sink.why && sink.state !== "serving") parts.push(sink.why[0].toUpperCase() + sink.why.slice(1));
  if (sink.next_probe !== null && sink.next_probe !== undefined) parts.push(`next probe in ${age(sink.next_probe)}`);
  const last = sink.last_error && !(sink.state !== "serving" && sink.why.includes(sink.last_error)) ? `Last error, ${age(sink.last_error_age)} ago: ${sink.last_error}` : "";
  return [parts.join("; "), last].filter(Boolean).join(". ");
}
