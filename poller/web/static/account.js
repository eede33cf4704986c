// Who is logged in: the role in the header, and the way out.

import { get, post } from "./api.js";
import { fill, h } from "./dom.js";

const NAMES = { look: "Looking only", operate: "Operating" };

/**
 * @typedef {{ role: "look" | "operate", login: boolean }} Me
 * @type {Promise<Me> | null}
 */
let asked = null;

/**
 * The role of this login. It is asked for once.
 * @returns {Promise<Me>}
 */
export function me() {
  asked ??= get("/api/me");
  return asked;
}

/** Ask again the next time, after a login. */
export function forget() {
  asked = null;
}

/**
 * Show the role and the way out. Without a login there is nothing to show.
 * @param {HTMLElement} place
 */
export async function showAccount(place) {
  const found = await me().catch(() => null);
  if (!found?.login) return;
  fill(
    place,
    h("span", { class: "quiet small" }, NAMES[found.role]),
    h("button", { type: "button", class: "plain", onclick: () => void logOut() }, "Log out"),
  );
}

async function logOut() {
  await post("/logout", {}).catch(() => null);
  location.assign("/login");
}
