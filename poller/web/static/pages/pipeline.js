import { fill, h } from "../dom.js";

export const title = () => "Pipeline";

/**
 * @param {HTMLElement} main
 * @param {URL} url
 */
export function open(main, url) {
  fill(main, h("h1", null, "Pipeline"));
  return () => {};
}
