// What surrounds the timeline on the stream's page: the header, the chosen moment, the controls and what happened.

import { now } from "../clock.js";
import { fill, h, setText } from "../dom.js";
import { AwayNotice, LostNotice, failure } from "../notices.js";
import { count } from "../numbers.js";
import { pictureAddress } from "../pictures.js";
import { ZONE, clock, day as dayOf, moment } from "../times.js";
import { SAYINGS, judge } from "../wall/model.js";
import { copyLink } from "./link.js";
import { isBreak } from "./model.js";
import { HOURS, facts, lastHours, pace } from "./words.js";

/** @typedef {import("../pages/stream.js").StreamPage} StreamPage */
/** @typedef {import("./words.js").Fact} Fact */

const MOST_FACTS = 100;
const LATER = 300; // milliseconds before a line says that something is on its way

export class StreamView {
  #facts = "";
  #key = "";
  #empty = "";
  /** @type {import("./model.js").History | null} */
  #history = null;
  #all = false;
  #waiting = 0;

  /** @param {StreamPage} page */
  constructor(page) {
    this.page = page;
    this.state = h("span", { class: "state" });
    this.pace = h("span", { class: "quiet" });
    this.lost = new LostNotice();
    this.away = new AwayNotice();
    this.trouble = h("div");
    this.empty = h("div", { class: "quiet stream-empty", hidden: true });
    this.table = h("tbody", null);
    this.rest = h("button", { hidden: true, onclick: () => this.showAll() });
    this.heading = h("h2", { id: "facts" });
    this.element = h(
      "div",
      { class: "stream" },
      h("div", { class: "stream-head" },
        h("h1", null, page.id),
        h("p", null, this.state, " ", this.pace),
        page.account ? h("p", { class: "quiet stream-account" }, `account ${page.account}`) : null,
      ),
      h("div", { class: "stream-notices" }, this.trouble, this.lost.element, this.away.element),
      h("div", { class: "stream-big" }, page.big.element, this.empty),
      this.moment(),
      this.bar(),
      page.timeline.element,
      legend(),
      h("section", { class: "stream-facts", "aria-labelledby": "facts" },
        this.heading,
        h("table", null,
          h("thead", null, h("tr", null, h("th", { scope: "col" }, "when"), h("th", { scope: "col" }, "what"))),
          this.table,
        ),
        this.rest,
      ),
    );
  }

  moment() {
    const { page } = this;
    this.time = h("p", { class: "moment-time" });
    this.day = h("p", { class: "quiet" });
    this.place = h("p", null);
    this.follow = h("p", { class: "moment-follow" });
    this.live = h("button", { class: "primary", title: "Key: l", onclick: () => page.goLive() }, "Back to live");
    this.opened = h("a", { class: "button", target: "_blank", rel: "noopener" }, "Open the picture");
    this.traced = h("a", { class: "button" }, "Trace");
    const copy = h("button", { onclick: () => void copyLink(page.query(page.chosen?.[1] ?? null)) }, "Copy link");
    this.actions = h("div", { class: "moment-actions" }, this.live, this.opened, copy, this.traced);
    return h("section", { class: "moment", "aria-label": "The chosen moment" },
      this.time, this.place, this.day, this.follow, this.actions);
  }

  bar() {
    const { page } = this;
    this.hours = HOURS.map((hours) => h("button", { onclick: () => page.setHours(hours) }, `${hours} h`));
    this.later = h("button", { onclick: () => page.shift(1), "aria-label": "Later" }, "›");
    const go = h("input", { type: "datetime-local", step: "1", "aria-label": "Go to a time" });
    go.addEventListener("change", () => {
      const at = new Date(go.value).getTime() / 1000;
      if (Number.isFinite(at)) page.goTo(Math.max(at, 0));
    });
    this.spanned = h("span", { class: "quiet stream-span" });
    return h("div", { class: "stream-bar" },
      h("div", { class: "segments", role: "group", "aria-label": "Time shown" }, this.hours),
      h("div", { class: "segments" }, h("button", { onclick: () => page.shift(-1), "aria-label": "Earlier" }, "‹"), this.later),
      this.spanned,
      h("label", { class: "stream-go" }, h("span", { class: "quiet" }, "Go to"), go),
    );
  }

  // ---------------------------------------------------------------- what is so now

  draw() {
    this.drawHead();
    this.drawMoment();
    this.drawBar();
    this.drawFacts();
    this.drawEmpty();
  }

  drawHead() {
    const { history, source } = this.page;
    this.away.show(source.away, source.away);
    const last = history.last?.[1] ?? null;
    const arrived = source.arrived ?? last;
    const known = source.complete || history.shots.length > 0;
    this.state.hidden = this.pace.hidden = !known;
    if (!known) return;
    const { state, cadence } = history;
    const kind = judge(/** @type {any} */ ({ state, cadence, taken: last, arrived }), source.judged);
    const { word, symbol, level } = SAYINGS[kind];
    const key = `${symbol} ${word}`;
    if (this.state.textContent !== key) fill(this.state, h("span", { class: "symbol", "aria-hidden": "true" }, symbol), " ", word);
    this.state.dataset.level = level;
    setText(this.pace, pace({ kind, since: history.stateSince, cadence, last, now: now() }));
    this.element.toggleAttribute("data-stale", !this.lost.element.hidden && this.page.following);
  }

  drawMoment() {
    const { page } = this;
    const { chosen, history, span, following } = page;
    const { actions, live, time, day, place, follow } = this.parts();
    actions.dataset.off = chosen ? "no" : "yes";
    live.hidden = following;
    const shots = history.within(span).length;
    setText(time, chosen ? clock(chosen[1]) : "–");
    setText(day, chosen ? `${dayOf(chosen[1])}, ${ZONE}` : ZONE);
    const number = chosen ? history.place(chosen) - history.from(span.from) + 1 : 0;
    setText(place, number > 0 && number <= shots ? `picture ${count(number)} of ${count(shots)}` : "");
    setText(follow, following && chosen ? "The newest picture, followed live" : this.phase());
    if (!chosen || this.opened?.dataset.number === String(chosen[0])) return;
    for (const [link, to] of /** @type {[HTMLAnchorElement, string][]} */ ([
      [this.opened, pictureAddress(...chosen)],
      [this.traced, `/event/number:${chosen[0]}`],
    ])) {
      link.href = to;
      link.dataset.number = String(chosen[0]);
    }
  }

  parts() {
    const { actions, live, time, day, place, follow } = this;
    return /** @type {Record<string, HTMLElement>} */ ({ actions, live, time, day, place, follow });
  }

  /** What the stream was doing at the chosen moment, where that is no picture of a live stream. */
  phase() {
    const { chosen, history } = this.page;
    if (!chosen) return "";
    const at = chosen[1];
    const [phase] = history.phases({ from: at, to: at + 0.001 });
    return phase && isBreak(phase) ? `taken while ${phase.state}` : "";
  }

  drawBar() {
    const { page } = this;
    (this.hours || []).forEach((button, n) => button.setAttribute("aria-pressed", String(HOURS[n] === page.hours)));
    if (this.later) this.later.disabled = page.end === null;
    const { from, to } = page.span;
    const text = page.end === null ? lastHours(page.hours) : `${moment(from)} to ${moment(to)}`;
    setText(this.heading, text);
    if (this.spanned) setText(this.spanned, page.end === null ? "" : text);
  }

  drawFacts() {
    const { history, span, end, source } = this.page;
    const key = [history.version, Math.floor(span.from / 10), this.#all, source.complete].join();
    if (key === this.#key && history === this.#history) return;
    [this.#key, this.#history] = [key, history];
    const found = facts(history, span);
    const text = JSON.stringify([found, this.#all, found.length || source.complete]);
    if (text === this.#facts) return;
    this.#facts = text;
    const shown = this.#all ? found : found.slice(0, MOST_FACTS);
    fill(this.table, shown.map((one) => this.row(one)));
    if (!found.length && source.complete) fill(this.table, none(history.shots.length > 0, end));
    this.rest.hidden = shown.length === found.length;
    setText(this.rest, `Show ${count(found.length - shown.length)} more`);
  }

  showAll() {
    this.#all = true;
    this.page.draw();
  }

  /** @param {Fact} fact */
  row({ at, level, text, detail }) {
    const jump = h("button", { class: "link", onclick: () => this.page.goTo(at) }, moment(at));
    return h("tr", null, h("td", null, jump),
      h("td", { dataset: { level } }, text, detail ? h("div", { class: "quiet small" }, detail) : null));
  }

  drawEmpty() {
    const { history, source, hours, end } = this.page;
    if (source.complete) this.element.removeAttribute("aria-busy");
    const empty = source.complete && history.shots.length === 0;
    this.element.dataset.empty = empty ? "yes" : "no";
    const where = end === null ? `in the ${lastHours(hours).toLowerCase()}` : "in this time";
    const newest = source.newest;
    this.empty.hidden = !empty;
    const said = empty ? `${where} ${newest === null}` : ""; // where the newest one is may be known later
    if (said === this.#empty) return;
    this.#empty = said;
    fill(this.empty,
      h("p", null, `No picture was taken ${where}. ${newest ? "" : "Choose a longer time, or go to another one."}`),
      newest && h("button", { onclick: () => this.page.goTo(source.newest ?? newest) }, `Go to the newest picture, ${moment(newest)}`));
  }

  close() {
    clearTimeout(this.offline);
    clearTimeout(this.#waiting);
  }

  // ---------------------------------------------------------------- what goes wrong

  loading() {
    fill(this.trouble);
    this.empty.hidden = true;
    clearTimeout(this.#waiting);
    this.element.removeAttribute("aria-busy");
    this.#waiting = setTimeout(() => {
      if (!this.page.source.complete && !this.trouble.firstChild) this.element.setAttribute("aria-busy", "true");
    }, LATER);
  }

  /** @param {import("../api.js").ApiError} error */
  fail(error) {
    const unknown = error.status === 404;
    fill(this.trouble, unknown ? nobody(this.page.id) : failure(error, () => this.page.load()));
    this.element.dataset.known = unknown ? "no" : "yes";
  }

  /** @param {import("../live.js").Connection} state */
  connection({ live, since }) {
    clearTimeout(this.offline);
    if (live) this.lost.hide();
    else this.offline = setTimeout(() => {
      if (!document.hidden) this.lost.show(since);
      this.page.draw();
    }, LATER * 5);
    this.page.draw();
  }

  /** @type {ReturnType<typeof setTimeout> | undefined} */
  offline;
}

/** @param {string} id */
function nobody(id) {
  return h("p", { class: "notice", role: "alert", dataset: { level: "warn" } },
    `No stream ${id} is known. `, h("a", { href: "/" }, "Choose one on the wall"), ".");
}

/**
 * @param {boolean} pictures
 * @param {number | null} end
 */
function none(pictures, end) {
  const text = pictures ? "Nothing but pictures: no gap, no change of state, no recording." : "Nothing is known.";
  return h("tr", null, h("td", { colspan: "2", class: "quiet" }, end === null && !pictures ? "Nothing happened." : text));
}

function legend() {
  const entries = [["live", "live"], ["broken", "interrupted or disabled"], ["tick", "picture"], ["gap", "missing"], ["bar", "recording"]];
  return h("p", { class: "legend quiet small" },
    entries.map(([name, text]) => h("span", null, h("i", { class: `key-${name}`, "aria-hidden": "true" }), text)),
    h("span", { class: "keys" },
      h("kbd", null, "←"), " ", h("kbd", null, "→"), " a picture, with ", h("kbd", null, "Shift"), " a minute; ",
      h("kbd", null, "l"), " back to live"));
}
