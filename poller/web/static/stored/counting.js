// Counts everything that matches. The server counts for a second at a time; this goes on where it stopped.

import { get } from "../api.js";

/**
 * @typedef {{ reason: string, count: number, owners: string[], newest: number }} Reason
 * @typedef {{ count: number, reasons: Reason[], complete: boolean }} Found
 */

/** The reason of the server for all that it does not tell apart. */
export const OTHER = "other reasons";

/**
 * Puts the reasons of two answers together, the most frequent first. Pure.
 * @param {Reason[]} reasons
 * @param {[string, number, string[], number][]} more
 * @returns {Reason[]}
 */
export function merge(reasons, more) {
  const found = new Map(reasons.map((one) => [one.reason, one]));
  for (const [reason, count, owners, newest] of more) {
    const known = found.get(reason);
    found.set(reason, {
      reason,
      count: count + (known?.count || 0),
      owners: [...new Set([...(known?.owners || []), ...owners])].sort(),
      newest: Math.max(newest, known?.newest || 0),
    });
  }
  return [...found.values()].sort((a, b) => b.count - a.count || (a.reason < b.reason ? -1 : 1));
}

/**
 * @param {string} path
 * @param {Record<string, any>} filter
 * @param {AbortSignal} [signal]
 * @returns {AsyncGenerator<Found, void>}
 */
export async function* countAll(path, filter, signal) {
  /** @type {Found} */
  let found = { count: 0, reasons: [], complete: false };
  let below = null;
  while (!found.complete) {
    const answer = /** @type {any} */ (await get(path, { ...filter, limit: 0, below }, signal));
    found = { count: found.count + answer.counted, reasons: merge(found.reasons, answer.reasons), complete: answer.complete };
    below = answer.count_below;
    yield found;
  }
}

/**
 * The number of all that matches now.
 * @param {string} path
 * @param {Record<string, any>} filter
 */
export async function countNow(path, filter) {
  let number = 0;
  for await (const found of countAll(path, filter)) number = found.count;
  return number;
}
