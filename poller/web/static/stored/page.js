// The page of dead letters and that of quarantine: a filter that lives in the address, what matches by reason, and what
// can be done with exactly that.

import { lookOnly, me, operates } from "../account.js";
import { setQuery } from "../app.js";
import { now } from "../clock.js";
import { fill, h } from "../dom.js";
import { failure } from "../notices.js";
import { count } from "../numbers.js";
import { zoneLine } from "../times.js";
import { buttonsFor } from "./act.js";
import { countAll } from "./counting.js";
import { Group } from "./group.js";

/**
 * @typedef {{ heading: string, path: string, owner: string, owners: string, fields: string[][],
 *   noun: (n: number) => string, empty: string[], command: string,
 *   retryLines: (owners: string[]) => string[], purgeLines: (n: number) => string[], retried: (row: any) => string,
 *   headings: string[], cells: (row: any) => import("../dom.js").Child[], address: (row: any) => string,
 *   details: (row: any) => Node, detailsName: string }} Kind
 * @typedef {{ kind: Kind, operates: boolean, jobs: HTMLElement, reload: () => void, signal: AbortSignal }} Stored
 */

/** @type {Record<string, [string, number]>} */
const WITHIN = { "1h": ["Last hour", 3600], "24h": ["Last 24 hours", 86400], "7d": ["Last 7 days", 604800] };
const QUIET_FOR = 300;

/**
 * The filter of the address, as the server takes it. Pure.
 * @param {URLSearchParams} query
 * @param {string[]} names
 * @param {number} now Unix seconds
 */
export function filterOf(query, names, now) {
  /** @type {Record<string, any>} */
  const filter = {};
  for (const name of names) if (query.get(name)) filter[name] = query.get(name);
  const within = WITHIN[query.get("within") || ""];
  if (within) filter.since = Math.floor(now - within[1]);
  return filter;
}

/**
 * @param {HTMLElement} main
 * @param {URL} url
 * @param {Kind} kind
 */
export function openStored(main, url, kind) {
  const abort = new AbortController();
  void new StoredPage(main, url, kind, abort.signal).start();
  return () => abort.abort();
}

class StoredPage {
  /**
   * @param {HTMLElement} main
   * @param {URL} url
   * @param {Kind} kind
   * @param {AbortSignal} signal
   */
  constructor(main, url, kind, signal) {
    this.kind = kind;
    this.signal = signal;
    this.query = new URLSearchParams(url.search);
    this.summary = h("div", { class: "summary" });
    this.groups = h("div", { class: "groups" });
    this.jobs = h("div", { class: "jobs" });
    this.hint = h("div");
    this.run = new AbortController();
    fill(main, h("div", { class: "stored" }, h("div", { class: "head" }, h("h1", null, kind.heading), zoneLine()), this.form(), this.jobs, this.summary, this.groups, this.hint));
    signal.addEventListener("abort", () => this.run.abort());
  }

  async start() {
    const viewer = await me();
    if (this.signal.aborted) return;
    this.operates = operates(viewer);
    if (!this.operates) fill(this.hint, lookOnly(viewer, "To retry or purge", this.kind.command));
    void this.load();
  }

  form() {
    const change = () => this.changed(form);
    const inputs = this.kind.fields.map(([name, label]) =>
      h("label", null, h("span", null, label), h("input", { name, type: "text", value: this.query.get(name) || "", autocomplete: "off", spellcheck: "false" })));
    const options = Object.entries(WITHIN).map(([value, [label]]) => h("option", { value, selected: this.query.get("within") === value }, label));
    const within = h("label", null, h("span", null, "When"), h("select", { name: "within" }, h("option", { value: "" }, "Any time"), options));
    const form = h("form", { class: "filters", role: "search", "aria-label": "Filter" }, inputs, within);
    let timer = 0;
    form.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(change, 250);
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      clearTimeout(timer);
      change();
    });
    return form;
  }

  /** @param {HTMLFormElement} form */
  changed(form) {
    if (this.signal.aborted) return;
    const query = new URLSearchParams();
    for (const [name, value] of new FormData(form)) if (value) query.set(name, String(value));
    if (query.toString() === this.query.toString()) return;
    this.query = query;
    setQuery(query);
    void this.load();
  }

  async load() {
    if (this.signal.aborted) return;
    this.run.abort();
    this.run = new AbortController();
    const run = this.run.signal;
    const filter = filterOf(this.query, this.kind.fields.map(([name]) => name), now());
    const waiting = setTimeout(() => !run.aborted && fill(this.summary, h("p", { class: "quiet" }, "Counting …")), QUIET_FOR);
    try {
      for await (const found of countAll(this.kind.path, filter, run)) {
        clearTimeout(waiting);
        if (run.aborted) return;
        this.show(found, filter, run);
      }
    } catch (error) {
      clearTimeout(waiting);
      if (run.aborted) return;
      fill(this.groups);
      fill(this.summary, failure(/** @type {Error} */ (error), () => void this.load()));
    }
  }

  /**
   * @param {import("./counting.js").Found} found
   * @param {Record<string, any>} filter
   * @param {AbortSignal} run
   */
  show(found, filter, run) {
    /** @type {Stored} */
    const stored = { kind: this.kind, operates: this.operates === true, jobs: this.jobs, reload: () => void this.load(), signal: run };
    if (!found.complete) return fill(this.summary, h("p", { class: "quiet", role: "status" }, `${count(found.count)} so far …`));
    if (!found.count) return this.showNothing(filter);
    const several = found.reasons.length > 1;
    const opened = new Set([...this.groups.querySelectorAll("details[open] .reason")].map((one) => /** @type {HTMLElement} */ (one).dataset.reason));
    const words = h("p", { role: "status", class: "matches", tabindex: "-1" }, h("strong", null, count(found.count)), found.count === 1 ? " matches" : " match");
    this.keepFocus(words, () => {
      fill(this.summary, words, stored.operates && several ? buttonsFor(stored, filter, found.count, owners(found)) : null);
      fill(this.groups, found.reasons.map((one) => new Group(stored, filter, one, !several || opened.has(one.reason)).element));
    });
  }

  /**
   * Replace the list. Who was in it with the keyboard goes on at its beginning, and not at that of the page.
   * @param {HTMLElement} words
   * @param {() => void} replace
   */
  keepFocus(words, replace) {
    const inside = [this.groups, this.summary].some((part) => part.contains(document.activeElement));
    replace();
    if (inside) words.focus();
  }

  /** @param {Record<string, any>} filter */
  showNothing(filter) {
    const [first, second] = this.kind.empty;
    if (Object.keys(filter).length) {
      fill(this.groups);
      return fill(this.summary, h("p", { role: "status" }, "Nothing matches. ", h("a", { href: location.pathname }, "Show all")));
    }
    const words = h("div", { class: "words", role: "status", tabindex: "-1" }, h("h2", null, first), h("p", { class: "quiet" }, second));
    this.keepFocus(words, () => {
      fill(this.groups);
      fill(this.summary, words);
    });
  }
}

/** @param {import("./counting.js").Found} found */
const owners = (found) => [...new Set(found.reasons.flatMap((one) => one.owners))];
