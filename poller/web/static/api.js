// Talks to the daemon: JSON in, JSON out.

import { hear } from "./clock.js";

/** An answer that is no success. `status` is that of HTTP; 0 if no answer came. */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {string} message
   * @param {any} [content] the answer's JSON
   */
  constructor(status, message, content = null) {
    super(message);
    this.status = status;
    this.content = content;
  }
}

/**
 * @param {string} path
 * @param {RequestInit} options
 * @returns {Promise<any>}
 */
async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError(0, "The daemon does not answer.");
  }
  if (answer.status === 401 && location.pathname !== "/login") {
    location.assign("/login?to=" + encodeURIComponent(location.pathname + location.search));
  }
  const content = await answer.json().catch(() => null);
  if (typeof content?.now === "number") hear(content.now);
  if (!answer.ok) throw new ApiError(answer.status, content?.error || `HTTP ${answer.status}`, content);
  return content;
}

/**
 * Get JSON. Parameters that are null, undefined or empty are left out.
 * @param {string} path
 * @param {Record<string, any>} [params]
 * @param {AbortSignal} [signal]
 */
export function get(path, params = {}, signal) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    if (value !== null && value !== undefined && value !== "") query.set(name, String(value));
  }
  const text = query.toString();
  return ask(text ? `${path}?${text}` : path, { signal });
}

/**
 * Post JSON. Throws `ApiError` with status 409 if the count has changed.
 * @param {string} path
 * @param {Record<string, any>} content
 */
export function post(path, content) {
  return ask(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(content),
  });
}
