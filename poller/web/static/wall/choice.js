// Which streams the wall shows, and in which order: the choice in the address, and what it chooses. Nothing here
// touches the page.

import { count as format } from "../numbers.js";
import { KINDS, SAYINGS, rank } from "./model.js";

/** @typedef {import("./model.js").Stream} Stream */
/** @typedef {import("./model.js").Kind} Kind */
/** @typedef {"attention" | "name" | "newest"} Sort */
/** @typedef {"small" | "medium" | "large"} Size */
/** @typedef {{ q: string, state: Kind | "", account: string, sort: Sort, size: Size, full: boolean }} Choice */

/** @type {[Sort, string][]} */
export const SORTS = [
  ["attention", "Attention first"],
  ["name", "By name"],
  ["newest", "Newest first"],
];
/** The least width of a tile in pixels. @type {Record<Size, number>} */
export const WIDTHS = { small: 136, medium: 190, large: 300 };
export const SIZES = /** @type {Size[]} */ (Object.keys(WIDTHS));
/** @type {Choice} */
export const USUAL = { q: "", state: "", account: "", sort: "attention", size: "medium", full: false };

/**
 * @param {URLSearchParams} query
 * @returns {Choice}
 */
export function readChoice(query) {
  const sorts = SORTS.map(([sort]) => sort);
  return {
    q: query.get("q") || "",
    state: oneOf(KINDS, query.get("state")) || "",
    account: query.get("account") || "",
    sort: oneOf(sorts, query.get("sort")) || USUAL.sort,
    size: oneOf(SIZES, query.get("size")) || USUAL.size,
    full: query.has("full"),
  };
}

/**
 * What differs from the usual, for the address.
 * @param {Choice} choice
 */
export function writeChoice(choice) {
  const query = new URLSearchParams();
  for (const name of /** @type {const} */ (["q", "state", "account", "sort", "size"])) {
    if (choice[name] !== USUAL[name]) query.set(name, choice[name]);
  }
  if (choice.full) query.set("full", "1");
  return query;
}

/**
 * @template {string} T
 * @param {T[]} known
 * @param {string | null} text
 * @returns {T | undefined}
 */
function oneOf(known, text) {
  return known.find((one) => one === text);
}

/**
 * The streams that match the search and the account, whatever their state.
 * @param {Stream[]} streams
 * @param {Choice} choice
 */
export function matching(streams, { q, account }) {
  const words = q.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length && !account) return streams;
  return streams.filter(
    (one) => (!account || one.account === account) && words.every((word) => one.found.includes(word)),
  );
}

/**
 * How many streams there are of each kind.
 * @param {Stream[]} streams
 */
export function count(streams) {
  const counts = /** @type {Record<Kind, number>} */ (Object.fromEntries(KINDS.map((kind) => [kind, 0])));
  for (const stream of streams) counts[stream.kind] += 1;
  return counts;
}

/**
 * Those of one state.
 * @param {Stream[]} streams
 * @param {Choice} choice
 */
export function ofState(streams, { state }) {
  return state ? streams.filter((one) => one.kind === state) : streams;
}

/**
 * In the order of the wall. `streams` are by name. `standing`: the order in which the newest pictures stand still.
 * @param {Stream[]} streams
 * @param {Sort} sort
 * @param {Map<Stream, number>} standing
 */
export function sorted(streams, sort, standing) {
  if (sort === "name") return streams;
  if (sort === "newest") {
    const place = (/** @type {Stream} */ one) => standing.get(one) ?? Infinity;
    return [...streams].sort((a, b) => (place(a) === place(b) ? 0 : place(a) - place(b)));
  }
  /** @type {Stream[][]} */
  const ranks = [[], [], [], []];
  for (const stream of streams) ranks[rank(stream.kind)].push(stream);
  return ranks.flat();
}

/**
 * The place of each stream by its newest picture, as it is now.
 * @param {Stream[]} streams
 */
export function standing(streams) {
  const order = [...streams].sort((a, b) => (b.taken ?? 0) - (a.taken ?? 0));
  return new Map(order.map((stream, place) => [stream, place]));
}

/**
 * How many streams need attention.
 * @param {Record<Kind, number>} counts
 */
export function needing(counts) {
  return KINDS.reduce((sum, kind) => sum + (rank(kind) < 2 ? counts[kind] : 0), 0);
}

/**
 * A count and its word, such as "4,981 live".
 * @param {Kind} kind
 * @param {number} number
 */
export function counted(kind, number) {
  return `${format(number)} ${SAYINGS[kind].word.toLowerCase()}`;
}
