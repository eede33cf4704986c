// The daemon's time, by which everything is judged and asked for. A viewer's clock may be wrong by hours.
//
// An answer whose JSON has `now` says it, and so does the live feed, every 15 seconds at least. A page opens after the
// first answer.

let ahead = 0; // seconds by which the daemon's clock is ahead of the viewer's

/** The daemon's Unix time; the viewer's until the daemon's has been heard. */
export const now = () => Date.now() / 1000 + ahead;

/** @param {number} at the daemon's Unix time at this moment */
export function hear(at) {
  ahead = at - Date.now() / 1000;
}
