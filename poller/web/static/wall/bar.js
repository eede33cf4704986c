// The bar above the wall: the search, the counts, which are filters too, the order and the size.

import { fill, h, setText, svg } from "../dom.js";
import { count as format } from "../numbers.js";
import { SIZES, SORTS, counted } from "./choice.js";
import { KINDS, SAYINGS } from "./model.js";

/** @typedef {import("./choice.js").Choice} Choice */
/** @typedef {import("./model.js").Kind} Kind */
/** @typedef {{ choose: (change: Partial<Choice>) => void, again: () => void, full: () => void }} Acts */

/** Side of the squares in the symbol of a size, of 16 pixels. @type {Record<string, number>} */
const SQUARES = { small: 4, medium: 6, large: 12 };

export class Bar {
  /** @param {Acts} acts */
  constructor(acts) {
    this.acts = acts;
    this.search = this.makeSearch();
    /** @type {Map<Kind | "", HTMLButtonElement>} */
    this.states = new Map();
    this.counts = h("div", { class: "counts", role: "group", "aria-label": "State" });
    for (const kind of /** @type {(Kind | "")[]} */ (["", ...KINDS])) this.counts.append(this.makeState(kind));
    this.accounts = h("select", { "aria-label": "Account", hidden: true });
    this.accounts.addEventListener("change", () => acts.choose({ account: this.accounts.value }));
    this.sort = this.makeSort();
    this.again = h("button", { type: "button", onclick: acts.again, title: "Put the newest pictures first again" }, "Sort again");
    this.sizes = h("div", { class: "segments", role: "group", "aria-label": "Size of the tiles" }, SIZES.map((size) => this.makeSize(size)));
    const full = h("button", { type: "button", class: "icon", onclick: acts.full, title: "Full screen (f)", "aria-label": "Full screen" }, corners());
    const view = h("div", { class: "view" }, this.accounts, this.sort, this.again, this.sizes, full);
    this.element = h("div", { class: "bar" }, this.search, this.counts, view);
  }

  makeSearch() {
    const search = h("input", {
      type: "search", placeholder: "Search streams", "aria-label": "Search streams", title: "Search (/)",
      autocomplete: "off", spellcheck: "false", "aria-keyshortcuts": "/",
    });
    search.addEventListener("input", () => this.acts.choose({ q: search.value.trim() }));
    return search;
  }

  /** @param {Kind | ""} kind */
  makeState(kind) {
    const choose = () => this.acts.choose({ state: button.getAttribute("aria-pressed") === "true" ? "" : kind });
    const level = kind ? SAYINGS[kind].level : null;
    const symbol = kind ? h("span", { class: "symbol", "aria-hidden": "true" }, SAYINGS[kind].symbol) : null;
    const button = h("button", { type: "button", onclick: choose, dataset: level ? { level } : {} }, symbol, h("span", null));
    this.states.set(kind, button);
    return button;
  }

  makeSort() {
    const sort = h("select", { "aria-label": "Order" }, SORTS.map(([value, name]) => h("option", { value }, name)));
    sort.addEventListener("change", () => this.acts.choose({ sort: /** @type {Choice["sort"]} */ (sort.value) }));
    return sort;
  }

  /** @param {Choice["size"]} size */
  makeSize(size) {
    const choose = () => this.acts.choose({ size });
    const name = size[0].toUpperCase() + size.slice(1);
    return h("button", { type: "button", class: "icon", onclick: choose, title: `${name} tiles`, "aria-label": name }, squares(SQUARES[size]));
  }

  /** @param {Choice} choice */
  show(choice) {
    if (document.activeElement !== this.search) this.search.value = choice.q;
    for (const [kind, button] of this.states) button.setAttribute("aria-pressed", String(kind === choice.state));
    [...this.sizes.children].forEach((button, place) => button.setAttribute("aria-pressed", String(SIZES[place] === choice.size)));
    this.sort.value = choice.sort;
    this.again.hidden = choice.sort !== "newest";
    this.accounts.value = choice.account;
  }

  /**
   * @param {Record<Kind, number>} counts
   * @param {number} all
   * @param {Choice} choice
   */
  count(counts, all, choice) {
    for (const [kind, button] of this.states) {
      const number = kind ? counts[kind] : all;
      setText(/** @type {Element} */ (button.lastElementChild), kind ? counted(kind, number) : `${format(number)} in all`);
      button.hidden = kind !== "" && kind !== "live" && number === 0 && choice.state !== kind;
    }
  }

  /**
   * The accounts to choose from, once there are two.
   * @param {string[]} names
   * @param {Choice} choice
   */
  name(names, choice) {
    if (choice.account && !names.includes(choice.account)) names = [...names, choice.account];
    this.accounts.hidden = names.length < 2 && !choice.account;
    const known = [...this.accounts.options].slice(1).map((option) => option.value);
    if (known.join("\n") === names.join("\n")) return;
    fill(this.accounts, h("option", { value: "" }, "All accounts"), names.map((name) => h("option", { value: name }, name)));
    this.accounts.value = choice.account;
  }
}

/** @param {number} side */
function squares(side) {
  const symbol = svg("svg", { viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true" });
  const each = Math.floor(16 / (side + 1));
  const start = (16 - each * (side + 1) + 1) / 2;
  for (let place = 0; place < each * each; place += 1) {
    const [x, y] = [place % each, Math.floor(place / each)].map((one) => start + one * (side + 1));
    symbol.append(svg("rect", { x, y, width: side, height: side, rx: 1, fill: "currentColor" }));
  }
  return symbol;
}

function corners() {
  const path = "M2 6V2h4M10 2h4v4M14 10v4h-4M6 14H2v-4";
  return svg("svg", { viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true" },
    svg("path", { d: path, fill: "none", stroke: "currentColor", "stroke-width": 1.75 }));
}
