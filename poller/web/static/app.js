// Opens the page that the address names, and the next one without loading the document again.
//
// A page is a module with `open(main, url)`. It fills `main` and returns a function that closes it: that function ends
// timers, listeners and requests. `title` is the text of the tab, and `keys` are those that the page listens to.

import { me, showAccount } from "./account.js";
import { fill, h } from "./dom.js";
import { openHelp } from "./help.js";

/**
 * @typedef {{ title: (url: URL) => string, open: (main: HTMLElement, url: URL) => (() => void),
 *             keys?: [string, import("./help.js").Key[]] }} Page
 */

/** @type {[RegExp, () => Promise<Page>][]} */
const PAGES = [
  [/^\/$/, () => import("./pages/wall.js")],
  [/^\/stream$/, () => import("./pages/stream.js")],
  [/^\/pipeline$/, () => import("./pages/pipeline.js")],
  [/^\/dead$/, () => import("./pages/dead.js")],
  [/^\/quarantine$/, () => import("./pages/quarantine.js")],
  [/^\/event\/[^/]+$/, () => import("./pages/event.js")],
  [/^\/login$/, () => import("./pages/login.js")],
];
const LINKS = [
  ["/", "Wall"],
  ["/pipeline", "Pipeline"],
  ["/dead", "Dead letters"],
  ["/quarantine", "Quarantine"],
];

const main = /** @type {HTMLElement} */ (document.getElementById("main"));
const header = /** @type {HTMLElement} */ (document.getElementById("header"));
let close = () => {};
let path = "";
/** @type {[string, import("./help.js").Key[]]} */
let keys = ["", []];

/**
 * Open the page at an address of this site, as a link does.
 * @param {string} address
 * @param {{ replace?: boolean }} [options] `replace`: the present address is not kept in the history
 */
export function go(address, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", address);
  void show();
}

/**
 * Change the query of the address without opening the page again.
 * @param {URLSearchParams} query
 */
export function setQuery(query) {
  const text = query.toString();
  history.replaceState(null, "", location.pathname + (text ? `?${text}` : ""));
}

async function show() {
  const url = new URL(location.href);
  const found = PAGES.find(([pattern]) => pattern.test(url.pathname)) || PAGES[0];
  close();
  close = () => {};
  const login = url.pathname === "/login";
  const [page] = await Promise.all([found[1](), login || me()]); // with the first answer comes the daemon's time
  if (url.href !== location.href) return;
  showHeader(url, login);
  keys = page.keys || ["", []];
  document.title = `${page.title(url)} · poller`;
  document.body.dataset.page = url.pathname.split("/")[1] || "wall";
  fill(main);
  close = page.open(main, url);
  if (path && path !== url.pathname) {
    scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
  path = url.pathname;
}

/**
 * @param {URL} url
 * @param {boolean} login
 */
function showHeader(url, login) {
  const account = h("div", { id: "account" });
  const links = LINKS.map(([to, name]) =>
    h("a", { href: to, "aria-current": to === url.pathname ? "page" : null }, name),
  );
  fill(
    header,
    h("a", { class: "brand", href: "/" }, "poller"),
    !login && h("nav", { "aria-label": "Pages" }, links),
    account,
    h("button", { type: "button", class: "plain help", onclick: () => openHelp(...keys), "aria-label": "Keys", title: "Keys (?)" }, "?"),
  );
  if (!login) void showAccount(account);
}

document.addEventListener("click", (event) => {
  const link = /** @type {Element} */ (event.target).closest?.("a");
  const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
  if (!link || !plain || event.defaultPrevented || link.target || link.origin !== location.origin) return;
  const known = PAGES.some(([pattern]) => pattern.test(link.pathname));
  if (!known || link.hash) return;
  event.preventDefault();
  if (link.href !== location.href) go(link.href);
});
document.addEventListener("keydown", (event) => {
  const busy = /** @type {Element} */ (event.target).closest?.("input, select, textarea, dialog");
  if (event.key !== "?" || busy || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  openHelp(...keys);
});
addEventListener("popstate", () => void show());
void show();
