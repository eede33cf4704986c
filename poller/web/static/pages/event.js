// The page of one event: its picture, where it came from, what became of it at every sink, and the event itself.

import { get } from "../api.js";
import { fill, h } from "../dom.js";
import { GONE, SIGNS, describe, sinkLines } from "../event/words.js";
import { failure } from "../notices.js";
import { comesLater, load, pictureAddress, reason } from "../pictures.js";
import { moment, seconds, zoneLine } from "../times.js";

/** @typedef {import("../event/words.js").Trace} Trace */
/** @typedef {import("../event/words.js").Sink} Sink */
/** @typedef {import("../api.js").ApiError} ApiError */

const PICTURE = "screenshot";
const LATER = 300;
const AGAIN = 5000;
const PICTURE_AGAIN = 2000;

/** @param {URL} url */
const named = (url) => decode(url.pathname.slice("/event/".length));

/** @param {URL} url */
export const title = (url) => `Event ${named(url)}`;

/**
 * @param {HTMLElement} main
 * @param {URL} url
 */
export function open(main, url) {
  const leaving = new AbortController();
  const place = h("div", { class: "event" }, h("h1", null, "Event"));
  fill(main, place);
  const late = setTimeout(() => place.append(h("p", { class: "quiet" }, "The event is looked for.")), LATER);
  let timer = 0;
  const ask = async () => {
    try {
      const trace = /** @type {Trace} */ (await get(`/api/event/${encodeURIComponent(named(url))}`, {}, leaving.signal));
      clearTimeout(late);
      keepAddress(trace);
      show(place, trace, leaving.signal);
      if (isOpen(trace)) timer = setTimeout(ask, AGAIN);
    } catch (error) {
      clearTimeout(late);
      if (!leaving.signal.aborted) fill(place, trouble(named(url), /** @type {ApiError} */ (error)));
    }
  };
  void ask();
  return () => {
    leaving.abort();
    clearTimeout(late);
    clearTimeout(timer);
  };
}

/** @param {string} text */
function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/**
 * The address names the event by its id, which stays the same where the log is made anew.
 * @param {Trace} trace
 */
function keepAddress(trace) {
  if (!trace.id) return;
  history.replaceState(null, "", `/event/${trace.id}`);
  document.title = `Event ${trace.id} · poller`;
}

/**
 * Whether something is still to happen to the event.
 * @param {Trace} trace
 */
const isOpen = (trace) => trace.sinks.some((sink) => sink.state === "waiting" || sink.state === "in hand");

/**
 * @param {HTMLElement} place
 * @param {Trace} trace
 * @param {AbortSignal} leaving
 */
function show(place, trace, leaving) {
  const wasOpen = place.querySelector("details")?.open ?? false;
  const picture = place.querySelector(".event-picture");
  const link = streamLink(trace);
  fill(
    place,
    h("h1", null, `${trace.kind || "event"} `, h("span", { class: "mono" }, trace.id)),
    GONE[trace.state] ? h("p", { class: "notice", dataset: { level: "warn" } }, GONE[trace.state]) : null,
    h("div", { class: "event-parts" },
      h("div", null,
        h("dl", { class: "event-facts" }, describe(trace).map(([name, text]) => [h("dt", null, name), h("dd", null, text)]).flat()),
        link,
        sinks(trace),
        zoneLine(),
      ),
      trace.kind === PICTURE && trace.number ? picture || pictureOf(trace, trace.number, leaving) : null,
    ),
    content(trace, wasOpen),
  );
}

/** @param {Trace} trace */
function streamLink({ stream, account, kind, taken_at: taken }) {
  if (!stream) return null;
  const query = new URLSearchParams({ account: account || "", id: stream });
  if (taken) query.set("at", String(seconds(taken)));
  return h("p", null, h("a", { href: `/stream?${query}` },
    kind === PICTURE ? "The stream at this moment" : "The stream at the time of this event"));
}

/**
 * @param {Trace} trace
 * @param {number} number
 * @param {AbortSignal} leaving
 */
function pictureOf({ stream, taken_at: taken }, number, leaving) {
  const at = taken ? seconds(taken) : null;
  const address = pictureAddress(number, at);
  const figure = h("figure", { class: "event-picture" });
  const show = (/** @type {import("../pictures.js").Outcome} */ outcome) => {
    if (!("image" in outcome)) {
      fill(figure, h("p", { class: "quiet" }, reason(outcome.status)));
      if (comesLater(outcome.status)) setTimeout(() => figure.isConnected && ask(true), PICTURE_AGAIN);
      return;
    }
    outcome.image.alt = `${stream || "stream"} at ${at === null ? "an unknown time" : moment(at)}`;
    fill(figure, h("a", { href: address, target: "_blank", rel: "noopener" }, outcome.image));
  };
  const ask = (/** @type {boolean} */ doubtful) => void load(address, doubtful, leaving).then(show);
  ask(false);
  return figure;
}

/** @param {Trace} trace */
function sinks({ sinks: all, state }) {
  if (!all.length) return h("p", { class: "quiet" }, state === "stored" ? "No sink is configured." : "Nothing is recorded of any sink.");
  return h("table", { class: "event-sinks" },
    h("caption", { class: "sr" }, "What became of the event at every sink"),
    h("thead", null, h("tr", null, h("th", { scope: "col" }, "sink"), h("th", { scope: "col" }, "what happened"))),
    h("tbody", null, all.map((sink) => row(sink))));
}

/** @param {Sink} sink */
function row(sink) {
  const [symbol, level] = SIGNS[sink.state] || SIGNS.unknown;
  const [first, ...more] = sinkLines(sink);
  return h("tr", null,
    h("th", { scope: "row" }, sink.sink),
    h("td", null,
      h("div", null, h("span", { class: "state symbol", dataset: { level }, "aria-hidden": "true" }, symbol), " ", first),
      more.map((line) => h("div", { class: "quiet" }, line))));
}

/**
 * @param {Trace} trace
 * @param {boolean} wasOpen
 */
function content({ event, state }, wasOpen) {
  if (!event) return state === "stored" ? null : h("p", { class: "quiet" }, "The event itself is not kept any more.");
  const text = JSON.stringify(event, null, 2);
  return h("details", { class: "event-json", open: wasOpen },
    h("summary", null, "The event as sinks get it"),
    h("p", { class: "quiet small" }, "*** stands in place of the queries of URLs, because they may be signed."),
    h("pre", { tabindex: "0", "aria-label": "The event in JSON" }, text));
}

/**
 * @param {string} name
 * @param {ApiError} error
 */
function trouble(name, error) {
  const heading = h("h1", null, "Event ", h("span", { class: "mono" }, name));
  if (error.status === 0 || error.status >= 500) return [heading, failure(error, () => location.reload())];
  return [
    heading,
    h("p", { class: "notice", role: "alert", dataset: { level: "warn" } }, error.message),
    h("p", { class: "quiet" }, "An event is known by its id for 30 days. ", h("a", { href: "/" }, "Choose a stream on the wall"), "."),
  ];
}
