// Numbers for people: counts with separators, rates and sizes.

const COUNT = new Intl.NumberFormat("en");
const UNITS = ["bytes", "KiB", "MiB", "GiB", "TiB"];

/** @param {number | null} value null is unknown */
export const count = (value) => (value === null ? "–" : COUNT.format(value));

/**
 * A count with its noun, such as "1 event" or "4,102 events".
 * @param {number} value
 * @param {string} one
 * @param {string} [many]
 */
export const counted = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

/**
 * How much a second; null is unknown.
 * @param {number | null | undefined} value
 */
export function rate(value) {
  if (value === null || value === undefined) return "–";
  return `${value >= 10 || value === 0 ? count(Math.round(value)) : value.toFixed(1)}/s`;
}

/** @param {number} bytes */
export function size(bytes) {
  let [value, unit] = [bytes, 0];
  while (value >= 1024 && unit < UNITS.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${unit ? value.toFixed(1) : value} ${UNITS[unit]}`;
}
