// Times for people, in the viewer's own zone.

import { now } from "./clock.js";
import { h } from "./dom.js";

/** @type {Intl.DateTimeFormatOptions} */
const MINUTES = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
const MINUTE = new Intl.DateTimeFormat(undefined, MINUTES);
const CLOCK = new Intl.DateTimeFormat(undefined, { ...MINUTES, second: "2-digit" });
const SHORT_DAY = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric", month: "short" });
const LONG_DAY = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });

/** The viewer's zone in words, such as "Europe/Berlin (UTC+1)". Each page with times names it once. */
export const ZONE = zone();

function zone() {
  const { timeZone } = new Intl.DateTimeFormat().resolvedOptions();
  const parts = new Intl.DateTimeFormat("en", { timeZoneName: "shortOffset" }).formatToParts();
  const offset = parts.find((one) => one.type === "timeZoneName")?.value.replace("GMT", "UTC");
  return offset && timeZone !== "UTC" ? `${timeZone} (${offset})` : timeZone;
}

/** The line that names the zone on a page without a clock. */
export const zoneLine = () => h("p", { class: "quiet small" }, `Times are in ${ZONE}.`);

/**
 * Unix seconds of a time as RFC 3339 writes it.
 * @param {string} text
 */
export const seconds = (text) => Date.parse(text) / 1000;

/** Hours and minutes. @param {number} at Unix time */
export const minute = (at) => MINUTE.format(at * 1000);

/** The time of day. @param {number} at Unix time */
export const clock = (at) => CLOCK.format(at * 1000);

/** The day, such as "Saturday 28 November". @param {number} at Unix time */
export const day = (at) => LONG_DAY.format(at * 1000);

/**
 * The time of day; with the day if it is not today.
 * @param {number} at Unix time
 */
export function moment(at) {
  const date = new Date(at * 1000);
  const today = date.toDateString() === new Date(now() * 1000).toDateString();
  return today ? clock(at) : `${SHORT_DAY.format(date)}, ${clock(at)}`;
}

/**
 * A text of the daemon with its times as `moment` writes them.
 * @param {string} text
 */
export const local = (text) => text.replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ/g, (at) => moment(seconds(at)));

/**
 * An element with a time, whose age is shown to whoever points at it.
 * @param {string} text as RFC 3339 writes it
 */
export function timeElement(text) {
  const at = seconds(text);
  return h("time", { datetime: text, title: `${age(now() - at)} ago` }, moment(at));
}

/**
 * An age or a duration in its two largest units, such as "4 s", "3 min 20 s" or "2 d 4 h".
 * @param {number} length seconds
 */
export function age(length) {
  const whole = Math.max(0, Math.floor(length));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return two(whole, 60, "min", 1, "s");
  if (whole < 86400) return two(whole, 3600, "h", 60, "min");
  return two(whole, 86400, "d", 3600, "h");
}

/**
 * @param {number} whole
 * @param {number} large
 * @param {string} largeName
 * @param {number} small
 * @param {string} smallName
 */
function two(whole, large, largeName, small, smallName) {
  const rest = Math.floor((whole % large) / small);
  const first = `${Math.floor(whole / large)} ${largeName}`;
  return rest ? `${first} ${rest} ${smallName}` : first;
}
