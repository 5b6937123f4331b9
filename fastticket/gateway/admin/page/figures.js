// Numbers and times as text.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export const NOTHING = "–";

export function number(value) {
  if (typeof value !== "number") return NOTHING;
  return (Math.abs(value) < 100 ? fine : whole).format(value);
}

export function milliseconds(value) {
  if (typeof value !== "number") return NOTHING;
  return value < 1000 ? `${number(value)} ms` : `${number(value / 1000)} s`;
}

export function duration(seconds) {
  if (typeof seconds !== "number") return NOTHING;
  const steps = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const at = steps.findIndex(([, size]) => seconds >= size);
  if (at < 0) return "0 s";
  const [[unit, size], next] = [steps[at], steps[at + 1]];
  const rest = next ? Math.floor((seconds % size) / next[1]) : 0;
  return `${Math.floor(seconds / size)} ${unit}${rest ? ` ${rest} ${next[0]}` : ""}`;
}

// Of this machine, against the store's.
export function clock(ahead_s) {
  if (typeof ahead_s !== "number") return NOTHING;
  if (Math.abs(ahead_s) < 1) return "as the store's";
  return `${number(Math.abs(ahead_s))} s ${ahead_s > 0 ? "ahead of" : "behind"} the store's`;
}

export function time(at_ms) {
  return typeof at_ms === "number" ? new Date(at_ms).toLocaleTimeString("en-GB") : NOTHING;
}

// With the day, unless that is today.
export function moment(at_ms) {
  if (typeof at_ms !== "number") return NOTHING;
  const at = new Date(at_ms);
  const is_today = at.toDateString() === new Date().toDateString();
  return is_today ? time(at_ms) : `${at.toLocaleDateString("en-CA")} ${time(at_ms)}`;
}
