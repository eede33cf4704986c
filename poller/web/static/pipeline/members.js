// The daemons that share the spool: what each holds, what it alone does, and when its lease ends.

import { fill, h } from "../dom.js";
import { count } from "../numbers.js";
import { age, moment, seconds } from "../times.js";

/**
 * What a daemon has taken and not settled, in words. Pure.
 * @param {Record<string, number>} held
 */
export const heldBy = (held) => Object.entries(held).map(([sink, many]) => `${sink} ${count(many)}`).join(", ") || "–";

/**
 * @param {HTMLElement} place
 * @param {any} status
 */
export function renderMembers(place, status) {
  const members = status.members;
  place.hidden = members.length === 0;
  if (place.hidden) return;
  const scrolled = place.querySelector(".scroll")?.scrollLeft || 0;
  const names = ["Daemon", "Lease ends in", "Alone does", "Holds", "Since"];
  const head = h("tr", null, names.map((name) => h("th", { scope: "col" }, name)));
  fill(place, h("h2", null, "Daemons"), h("p", { class: "quiet small" }, "They share the spool. When a lease ends, the others take over."),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Daemons" }, h("table", { class: "members" }, h("thead", null, head), h("tbody", null, members.map(line)))));
  const scroll = place.querySelector(".scroll");
  if (scroll) scroll.scrollLeft = scrolled;
}

/** @param {any} member */
function line(member) {
  const here = member.here ? h("span", { class: "quiet" }, " (here)") : null;
  return h("tr", null, h("th", { scope: "row" }, `${member.number}: ${member.name}`, here),
    h("td", null, age(member.expires)), h("td", null, member.duties.join(", ") || "–"), h("td", null, heldBy(member.held)),
    h("td", null, moment(seconds(member.since))));
}
