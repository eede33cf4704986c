// Dialogs: the browser's own, so that Escape, the focus and what lies behind are as people know them.

import { fill, h } from "./dom.js";

let dialogs = 0;

/**
 * Open a dialog. It closes by Escape, by Cancel, or when `close` is called; then the focus goes back to where it was.
 * @param {string} title
 * @param {(close: () => void) => (import("./dom.js").Child | import("./dom.js").Child[])} content
 * @param {() => void} [closed]
 */
export function openDialog(title, content, closed = () => {}) {
  const id = `dialog-${++dialogs}`;
  const before = /** @type {HTMLElement | null} */ (document.activeElement);
  const dialog = h("dialog", { class: "ask", "aria-labelledby": id });
  const close = () => dialog.close();
  dialog.append(h("h2", { id }, title));
  const parts = content(close);
  for (const part of Array.isArray(parts) ? parts : [parts]) if (part) dialog.append(/** @type {Node} */ (part));
  dialog.addEventListener("close", () => {
    dialog.remove();
    (before?.isConnected ? before : document.getElementById("main"))?.focus();
    closed();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/**
 * Ask before something is done. `run` does it, and returns null if it was begun; else the lines that say what has
 * changed meanwhile, and the dialog asks again with them. An error is shown in the dialog.
 * @param {{ title: string, lines: (string | Node)[], action: string, danger?: boolean,
 *           run: () => Promise<{ title: string, lines: (string | Node)[], action: string } | null> }} question
 * @returns {Promise<boolean>} whether it was begun
 */
export function confirm(question) {
  return new Promise((resolve) => {
    let begun = false;
    const lines = h("div", { class: "lines" });
    const trouble = h("p", { class: "trouble", role: "alert" });
    const cancel = h("button", { type: "button", autofocus: question.danger }, "Cancel");
    const yes = h(
      "button",
      { type: "button", class: question.danger ? "danger solid" : "primary", autofocus: !question.danger },
      question.action,
    );
    const show = (/** @type {(string | Node)[]} */ found) => fill(lines, found.map((line) => h("p", null, line)));
    show(question.lines);
    const dialog = openDialog(
      question.title,
      (close) => {
        cancel.addEventListener("click", close);
        yes.addEventListener("click", async () => {
          yes.disabled = true;
          trouble.textContent = "";
          try {
            const changed = await question.run();
            begun = changed === null;
            if (changed === null) return close();
            const heading = dialog.querySelector("h2");
            if (heading) heading.textContent = changed.title;
            show(changed.lines);
            yes.textContent = changed.action;
          } catch (error) {
            trouble.textContent = /** @type {Error} */ (error).message;
          } finally {
            yes.disabled = false;
          }
          if (!begun) yes.focus();
        });
        return [lines, trouble, h("div", { class: "buttons" }, cancel, yes)];
      },
      () => resolve(begun),
    );
  });
}
