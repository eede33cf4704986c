// Orders something after a question that names the number of entries, and follows the job.

import { ApiError, post } from "./api.js";
import { confirm } from "./confirm.js";
import { follow } from "./jobs.js";

/**
 * @typedef {{ title: string, lines: (string | Node)[], action: string }} Wording
 * @typedef {{ path: string, body: (expect: number) => Record<string, any>, expect: number,
 *             wording: (count: number, before: number | null) => Wording, danger?: boolean,
 *             place: Element, doing: string, describe: (result: any) => string, ended?: () => void }} Order
 */

/**
 * Ask, order, and ask again with the new number if another one matches by then.
 * @param {Order} order
 * @returns {Promise<(() => void) | null>} ends the look at the job; null if nothing was ordered
 */
export async function orderCounted(order) {
  let expect = order.expect;
  /** @type {any} */
  let job = null;
  const begun = await confirm({
    ...order.wording(expect, null),
    danger: order.danger,
    run: async () => {
      try {
        job = await post(order.path, order.body(expect));
        return null;
      } catch (error) {
        const now = error instanceof ApiError && error.status === 409 ? error.content?.count : null;
        if (typeof now !== "number") throw error;
        const before = expect;
        expect = now;
        return order.wording(now, before);
      }
    },
  });
  return begun ? follow(order.place, job, order) : null;
}
