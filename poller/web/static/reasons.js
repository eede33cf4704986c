// Which page of the operators' documents a reason of `/readyz` belongs to. Pure.

/** @type {[RegExp, string, string][]} */
const PAGES = [
  [/^source .*: polling is paused:/, "polling-paused", "Polling is paused: the spool takes no more"],
  [/^source .*: \d+ polls were sent and brought nothing/, "polls-bring-nothing", "Polls were sent and brought nothing"],
  [/^source .*: takes nothing:/, "receiving-paused", "Pushes are not taken"],
  [/^source /, "no-good-answer", "No good answer from the platform"],
  [/^sink .*?: disabled:/, "sink-disabled", "A sink is disabled"],
  [/^sink .*?: its folder:/, "sink-folder", "A sink’s folder is gone"],
  [/^sink .*?: paused:/, "sink-paused", "A sink is paused"],
  [/^sink .*?: failing for/, "sink-failing", "A sink fails"],
  [/^sink .*?: its oldest event waits/, "sink-behind", "A sink is behind"],
  [/^journal: its oldest page waits/, "journal-holds", "A page waits in the journal"],
  [/^(spool|journal): damaged/, "damage-found", "Stored bytes are damaged"],
  [/^spool: the (database is away|lease of this daemon)/, "database-away", "The database of the spool is away"],
  [/^spool: /, "polling-paused", "Polling is paused: the spool takes no more"],
];

/**
 * @param {string} reason
 * @returns {{ file: string, title: string }}
 */
export function pageOf(reason) {
  const found = PAGES.find(([pattern]) => pattern.test(reason));
  const [file, title] = found ? [found[1], found[2]] : ["not-ready", "Not ready"];
  return { file: `docs/operations/alarms/${file}.md`, title };
}
