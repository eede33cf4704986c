// The viewer's time zone in words.

/** Such as "Europe/Berlin (UTC+1)". */
export const ZONE = zone();

function zone() {
  const { timeZone } = new Intl.DateTimeFormat().resolvedOptions();
  const parts = new Intl.DateTimeFormat("en", { timeZoneName: "shortOffset" }).formatToParts();
  const offset = parts.find((one) => one.type === "timeZoneName")?.value.replace("GMT", "UTC");
  return offset && timeZone !== "UTC" ? `${timeZone} (${offset})` : timeZone;
}
