// The daemon's time, by which everything is judged and asked for. A viewer's clock may be wrong by hours.
//
// Each answer says the time in its header `Date`; a page opens after the first one. Live messages say it more exactly.

const COARSE = 2; // seconds by which a header may differ: it has whole seconds, and the answer was under way

let ahead = 0; // seconds by which the daemon's clock is ahead of the viewer's

/** The daemon's Unix time; the viewer's until the daemon's has been heard. */
export const now = () => Date.now() / 1000 + ahead;

/** @param {number} at the daemon's Unix time at this moment */
export function hear(at) {
  ahead = at - Date.now() / 1000;
}

/** @param {Headers} headers those of an answer that has just come */
export function hearHeaders(headers) {
  const at = Date.parse(headers.get("Date") || "") / 1000;
  if (Math.abs(at - now()) > COARSE) hear(at);
}
