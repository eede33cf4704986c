// What the viewer may do, asked once for each page that is opened.

import { get } from "./api.js";
import { h } from "./dom.js";

/** @typedef {{ role: string, login: boolean }} Me */

/**
 * Who may do nothing but look is told so; an answer that does not come means the same.
 * @returns {Promise<Me>}
 */
export async function me() {
  try {
    return await get("/api/me");
  } catch {
    return { role: "look", login: false };
  }
}

/** @param {Me} viewer */
export const operates = (viewer) => viewer.role === "operate";

/**
 * The line that stands where the buttons would be.
 * @param {Me} viewer
 * @param {string} what such as "To retry or purge"
 * @param {string} command the same on the command line
 */
export function lookOnly(viewer, what, command) {
  const to = encodeURIComponent(location.pathname + location.search);
  return viewer.login
    ? h("p", { class: "quiet look-only" }, `${what}, `, h("a", { href: `/login?to=${to}` }, "log in with the operator’s token"), ".")
    : h("p", { class: "quiet look-only" }, `You may look. ${what}, set `, h("code", null, "web.token_file"), " and log in, or use ", h("code", null, command), ".");
}
