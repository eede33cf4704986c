// Who looks at the pages: the role in the header and the way out, and what stands where an operator has buttons.

import { get, post } from "./api.js";
import { fill, h } from "./dom.js";

/** @typedef {{ role: "look" | "operate", login: boolean }} Me */

const PATIENCE = 5_000; // milliseconds that a page waits for the answer before it opens all the same
const NAMES = { look: "Looking only", operate: "Operating" };
/** Whoever cannot be asked for may do nothing but look. @type {Me} */
const UNKNOWN = { role: "look", login: false };

/** @type {Promise<Me> | null} */
let asked = null;

/**
 * The role of this login. It is asked for once, and again if no answer came.
 * @returns {Promise<Me>}
 */
export function me() {
  asked ??= get("/api/me", {}, AbortSignal.timeout(PATIENCE)).catch(() => {
    forget();
    return UNKNOWN;
  });
  return asked;
}

/** Ask again the next time, after a login. */
export function forget() {
  asked = null;
}

/** @param {Me} viewer */
export const operates = (viewer) => viewer.role === "operate";

/**
 * Show the role and the way out. Without a login there is nothing to show.
 * @param {HTMLElement} place
 */
export async function showAccount(place) {
  const viewer = await me();
  if (!viewer.login) return;
  fill(
    place,
    h("span", { class: "quiet" }, NAMES[viewer.role]),
    h("button", { type: "button", class: "plain", onclick: () => void logOut() }, "Log out"),
  );
}

async function logOut() {
  await post("/logout", {}).catch(() => null);
  location.assign("/login");
}

/**
 * The line that stands where the buttons would be.
 * @param {Me} viewer
 * @param {string} what such as "To retry or purge"
 * @param {string} command the same on the command line
 */
export function lookOnly(viewer, what, command) {
  const to = encodeURIComponent(location.pathname + location.search);
  const next = viewer.login
    ? [`${what}, `, h("a", { href: `/login?to=${to}` }, "log in with the operator’s token"), "."]
    : [`You may look. ${what}, set `, h("code", null, "web.token_file"), " and log in, or use ", h("code", null, command), "."];
  return h("p", { class: "quiet look-only" }, next);
}
