// The login: a token in one field. A link with a one-time code behind the # logs in by itself.

import { forget } from "../account.js";
import { ApiError, post } from "../api.js";
import { go } from "../app.js";
import { fill, h, setText } from "../dom.js";

export const title = () => "Log in";

/**
 * @param {HTMLElement} main
 * @param {URL} url
 */
export function open(main, url) {
  const to = destination(url);
  const code = url.hash.slice(1);
  if (code) history.replaceState(null, "", url.pathname + url.search);
  const form = loginForm(to);
  fill(main, h("div", { class: "login" }, form.element));
  if (code) void form.send({ code });
  else form.focus();
  return form.close;
}

/**
 * The page to open after the login; only one of our own.
 * @param {URL} url
 */
function destination(url) {
  const text = url.searchParams.get("to") || "/";
  if (!/^\/(?![\/\\])/.test(text)) return "/";
  const to = new URL(text, url.origin);
  return to.origin === url.origin && to.pathname !== "/login" ? to.pathname + to.search : "/";
}

/** @param {string} to */
function loginForm(to) {
  const field = tokenField();
  const problem = h("span", { id: "problem", role: "alert" });
  const rest = h("span", { id: "rest" }); // beside the alert, so that a screen reader does not read out every second
  const button = h("button", { class: "primary", type: "submit" }, "Log in");
  const element = h(
    "form",
    { class: "panel", onsubmit: submit, novalidate: true },
    h("h1", null, "Log in"),
    h("p", { class: "quiet" }, "Enter the token that the operator of this poller gave you."),
    h("input", { type: "text", autocomplete: "username", value: "poller", readonly: true, hidden: true }),
    h("label", { for: "token" }, "Token"),
    field.element,
    h("p", { class: "problem" }, problem, " ", rest),
    button,
  );
  const waiting = countdown(showWait);
  field.input.addEventListener("input", () => waiting.running || say(""));

  /** @param {Event} event */
  function submit(event) {
    event.preventDefault();
    const token = field.input.value.trim();
    if (token) void send({ token });
    else say("Enter a token.");
  }

  /** @param {{ token: string } | { code: string }} content */
  async function send(content) {
    button.disabled = true;
    say("");
    try {
      await post("/login", content);
      forget();
      go(to, { replace: true });
    } catch (error) {
      refuse(/** @type {ApiError} */ (error));
    }
  }

  /** @param {ApiError} error */
  function refuse(error) {
    button.disabled = false;
    const wait = error.content?.wait;
    if (wait) waiting.start(wait);
    else say(error.message);
    field.input.select();
    field.input.focus();
  }

  /** @param {number} left seconds */
  function showWait(left) {
    button.disabled = left > 0;
    say(left > 0 ? "Too many tries." : "You can try again.", left > 0);
    setText(rest, left > 0 ? `Wait ${left} s.` : "");
  }

  /**
   * @param {string} text
   * @param {boolean} [bad]
   */
  function say(text, bad = text !== "") {
    setText(problem, text);
    element.dataset.level = bad ? "bad" : "";
    field.input.setAttribute("aria-invalid", String(bad));
  }

  return { element, send, focus: () => field.input.focus(), close: waiting.stop };
}

/** The field, with a button that shows what is in it. */
function tokenField() {
  const input = h("input", {
    id: "token",
    type: "password",
    autocomplete: "current-password",
    autocapitalize: "off",
    spellcheck: "false",
    "aria-describedby": "problem rest",
  });
  const toggle = h("button", { type: "button", "aria-controls": "token" }, "Show");
  toggle.addEventListener("click", () => {
    const shown = input.type === "password";
    input.type = shown ? "text" : "password";
    setText(toggle, shown ? "Hide" : "Show");
  });
  return { input, element: h("div", { class: "field" }, input, toggle) };
}

/**
 * Counts seconds down, in whole ones, and says each.
 * @param {(left: number) => void} say
 */
function countdown(say) {
  let end = 0;
  let timer = 0;
  function tick() {
    const left = Math.max(0, Math.ceil((end - performance.now()) / 1000));
    say(left);
    timer = left ? window.setTimeout(tick, (end - performance.now()) % 1000 || 1000) : 0;
  }
  return {
    get running() {
      return timer !== 0;
    },
    /** @param {number} seconds */
    start(seconds) {
      end = performance.now() + seconds * 1000;
      tick();
    },
    stop: () => clearTimeout(timer),
  };
}
