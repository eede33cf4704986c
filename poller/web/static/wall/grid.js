// The grid: of many thousand streams, only those near what is seen have an element. Keys move among all of them.

import { h } from "../dom.js";
import { WIDTHS } from "./choice.js";
import { Tile } from "./tile.js";

/** @typedef {import("./model.js").Stream} Stream */
/** @typedef {import("../pictures.js").Loader<Stream>} Loader */
/** @typedef {import("./choice.js").Size} Size */
/** @typedef {{ columns: number, row: number, shot: number }} Layout */

const USUAL_LETTERS = 16;
const GAP = 12;
const NARROW_GAP = 8;
const NARROW = 500; // pixels below which a size is a number of columns: two, if nobody chose
/** @type {Record<Size, number>} */
const COLUMNS = { small: 3, medium: 2, large: 1 };
const BEYOND = 1; // rows above and below what is seen

/**
 * @param {number} width
 * @param {Size} size
 * @param {number} caption the height of a tile below its picture
 * @param {number} scale of the letters, which are larger on a large wall
 * @returns {Layout & { gap: number }}
 */
export function layout(width, size, caption, scale) {
  const gap = width < NARROW ? NARROW_GAP : GAP;
  const fitting = Math.max(1, Math.floor((width + gap) / (WIDTHS[size] * scale + gap)));
  const columns = width < NARROW ? COLUMNS[size] : fitting;
  const tile = (width - gap * (columns - 1)) / columns;
  const shot = Math.round((tile * 9) / 16);
  return { columns, gap, shot, row: shot + caption + gap };
}

export class Grid {
  /** @type {Stream[]} */
  order = [];
  /** @type {Map<Stream, Tile>} */
  tiles = new Map();
  /** The stream to which the keys belong. @type {Stream | null} */
  current = null;
  /** @type {Layout} */
  layout = { columns: 1, row: 1, shot: 1 };
  /** @type {Size} */
  size = "medium";
  caption = 0;
  frame = 0;
  seen = "";

  /**
   * @param {Loader} loader
   * @param {import("./tile.js").Present & { top: () => number }} page `top`: where what is seen begins, below what stands still
   */
  constructor(loader, page) {
    this.loader = loader;
    this.page = page;
    this.inner = h("div", { class: "tiles", role: "group", "aria-label": "Streams; the arrow keys move among them" });
    this.element = h("div", { class: "grid" }, this.inner);
    this.inner.addEventListener("keydown", (event) => this.key(event));
    this.inner.addEventListener("focusin", (event) => this.focused(event));
    this.resized = new ResizeObserver(() => this.measure());
    this.resized.observe(this.element);
    this.scrolled = () => this.soon();
    addEventListener("scroll", this.scrolled, { passive: true });
  }

  close() {
    this.resized.disconnect();
    removeEventListener("scroll", this.scrolled);
    cancelAnimationFrame(this.frame);
  }

  /** Draw with the next frame. */
  soon() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  /** @param {Size} size */
  resize(size) {
    this.size = size;
    this.element.dataset.size = size;
    this.measure();
  }

  measure() {
    const style = getComputedStyle(this.element);
    this.caption = parseFloat(style.getPropertyValue("--caption")) * parseFloat(style.fontSize);
    const found = layout(this.element.clientWidth, this.size, this.caption, parseFloat(getComputedStyle(document.documentElement).fontSize) / USUAL_LETTERS);
    this.layout = found;
    this.inner.style.gap = `${found.gap}px`;
    this.inner.style.gridTemplateColumns = `repeat(${found.columns}, minmax(0, 1fr))`;
    this.inner.style.gridAutoRows = `${found.row - found.gap}px`;
    this.inner.style.setProperty("--shot", `${found.shot}px`);
    this.stretch();
    this.seen = "";
    this.soon();
  }

  stretch() {
    const rows = Math.ceil(this.order.length / this.layout.columns);
    this.element.style.height = `${rows * this.layout.row}px`;
  }

  /** @param {Stream[]} order */
  arrange(order) {
    this.order = order;
    this.seen = "";
    this.stretch();
    this.draw();
  }

  /** Give an element to what is seen, and take it from the rest. */
  draw() {
    const { columns, row } = this.layout;
    const top = -this.element.getBoundingClientRect().top;
    const from = Math.max(0, Math.floor(top / row) - BEYOND);
    const to = Math.max(0, Math.ceil((top + innerHeight) / row) + BEYOND);
    const seen = `${from}-${to}`;
    if (seen === this.seen) return;
    this.seen = seen;
    this.inner.style.transform = `translateY(${from * row}px)`;
    this.place(this.order.slice(from * columns, to * columns));
  }

  /** @param {Stream[]} streams */
  place(streams) {
    const focused = this.inner.contains(document.activeElement);
    const wanted = new Set(streams);
    const free = [...this.tiles.values()].filter((tile) => !wanted.has(tile.stream));
    for (const tile of free) {
      this.tiles.delete(tile.stream);
      tile.leave();
      tile.element.remove();
    }
    for (const stream of streams) if (!this.tiles.has(stream)) this.seat(stream, free.pop());
    this.line(streams);
    this.mark(streams);
    if (focused && !this.inner.contains(document.activeElement)) this.focus();
  }

  /**
   * @param {Stream} stream
   * @param {Tile | undefined} free
   */
  seat(stream, free) {
    const tile = free || new Tile(this.loader, this.page, stream);
    tile.show(stream);
    tile.update();
    this.tiles.set(stream, tile);
  }

  /**
   * Bring the elements into the order of the streams. What is in order already is not moved.
   * @param {Stream[]} streams
   */
  line(streams) {
    let next = this.inner.firstChild;
    for (const stream of streams) {
      const element = /** @type {Tile} */ (this.tiles.get(stream)).element;
      if (element === next) next = next.nextSibling;
      else this.inner.insertBefore(element, next);
    }
  }

  /**
   * One tile is reached by Tab, the others from there by arrows.
   * @param {Stream[]} streams
   */
  mark(streams) {
    const reached = this.current && this.tiles.has(this.current) ? this.current : streams[0];
    for (const [stream, tile] of this.tiles) {
      const index = stream === reached ? 0 : -1;
      if (tile.element.tabIndex !== index) tile.element.tabIndex = index;
    }
  }

  /** Tell the tile of a stream, if there is one, that the stream has changed. @param {Stream} stream */
  touch(stream) {
    this.tiles.get(stream)?.update();
  }

  tick() {
    for (const tile of this.tiles.values()) tile.update();
  }

  /** @param {FocusEvent} event */
  focused(event) {
    for (const [stream, tile] of this.tiles) if (tile.element === event.target) this.current = stream;
    this.mark([...this.tiles.keys()]);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { columns, row } = this.layout;
    const page = Math.max(1, Math.floor((innerHeight - this.page.top()) / row)) * columns;
    /** @type {Record<string, number>} */
    const steps = {
      ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns,
      PageUp: -page, PageDown: page, Home: -Infinity, End: Infinity,
    };
    const step = steps[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const at = this.current ? this.order.indexOf(this.current) : 0;
    this.go(Math.min(this.order.length - 1, Math.max(0, at + step)));
  }

  /** Move to a stream by its place. @param {number} index */
  go(index) {
    if (!this.order.length) return;
    this.current = this.order[index];
    const { columns, row } = this.layout;
    const above = this.page.top() + GAP;
    const at = this.element.getBoundingClientRect().top + Math.floor(index / columns) * row;
    if (at < above) scrollBy({ top: at - above, behavior: "instant" });
    else if (at + row > innerHeight) scrollBy({ top: at + row - innerHeight, behavior: "instant" });
    this.draw();
    this.focus();
  }

  /** Focus the tile that Tab reaches. */
  focus() {
    const tile = (this.current && this.tiles.get(this.current)) || this.tiles.values().next().value;
    if (!tile) return;
    this.current = tile.stream;
    this.mark([]);
    tile.element.focus({ preventScroll: true });
  }
}
