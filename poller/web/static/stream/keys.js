// The keys of the stream's page.

/** @typedef {import("../pages/stream.js").StreamPage} StreamPage */
/** @typedef {import("./model.js").Shot} Shot */

const MINUTE = 60;

/** @type {[string, import("../help.js").Key[]]} */
export const keys = ["Stream", [
  [["←", "→"], "the picture before, the next one"],
  [["Shift ←", "Shift →"], "a minute back, a minute on"],
  [["Page up", "Page down"], "far on, far back, where the time axis has the focus"],
  [["Home", "End"], "the first picture, the newest one, where the time axis has the focus"],
  [["l"], "back to live"],
]];

/**
 * What a key does; undefined if it does nothing here.
 * @param {StreamPage} page
 * @param {KeyboardEvent} event
 * @returns {(() => void) | undefined}
 */
export function actionOf(page, event) {
  const target = /** @type {HTMLElement} */ (event.target);
  if (event.ctrlKey || event.metaKey || event.altKey || target.closest("input, select, textarea, dialog")) return undefined;
  if (event.key === "l") return () => page.goLive();
  const { chosen } = page;
  const onAxis = target === page.timeline.element;
  if (!chosen || !(onAxis || target === document.body || target.id === "main")) return undefined;
  return { ...steps(page, chosen, event.shiftKey), ...(onAxis ? moves(page, chosen) : {}) }[event.key];
}

/**
 * Where the page has the focus.
 * @param {StreamPage} page
 * @param {Shot} chosen
 * @param {boolean} far
 * @returns {Record<string, () => void>}
 */
function steps(page, chosen, far) {
  const { history } = page;
  const step = (/** @type {number} */ to) => {
    const shot = far ? history.jump(chosen, to * MINUTE) : history.step(chosen, to);
    if (shot === chosen && !page.following && page.source.complete) page.centre(shot[1]);
    else page.choose(shot);
  };
  return { ArrowLeft: () => step(-1), ArrowRight: () => step(1) };
}

/**
 * Where the time axis has the focus, besides.
 * @param {StreamPage} page
 * @param {Shot} chosen
 * @returns {Record<string, () => void>}
 */
function moves(page, chosen) {
  const { history } = page;
  return {
    Home: () => page.choose(history.shots[history.from(page.span.from)]),
    End: () => page.choose(/** @type {Shot} */ (history.last)),
    PageDown: () => page.choose(history.jump(chosen, -page.length / 12)),
    PageUp: () => page.choose(history.jump(chosen, page.length / 12)),
  };
}
