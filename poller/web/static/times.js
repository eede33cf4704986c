// Times for people, in the viewer's own zone.

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric", month: "short" });

/**
 * The time of day; with the day if it is not today.
 * @param {number} seconds Unix time
 */
export function moment(seconds) {
  const date = new Date(seconds * 1000);
  const today = date.toDateString() === new Date().toDateString();
  return today ? CLOCK.format(date) : `${DAY.format(date)}, ${CLOCK.format(date)}`;
}

/**
 * An age or a duration in its two largest units, such as "4 s", "3 min 20 s" or "2 d 4 h".
 * @param {number} seconds
 */
export function age(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return two(whole, 60, "min", 1, "s");
  if (whole < 86400) return two(whole, 3600, "h", 60, "min");
  return two(whole, 86400, "d", 3600, "h");
}

/**
 * @param {number} whole
 * @param {number} large
 * @param {string} largeName
 * @param {number} small
 * @param {string} smallName
 */
function two(whole, large, largeName, small, smallName) {
  const rest = Math.floor((whole % large) / small);
  const first = `${Math.floor(whole / large)} ${largeName}`;
  return rest ? `${first} ${rest} ${smallName}` : first;
}
