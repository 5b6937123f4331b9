// The gateways of the fleet: sums, lines, a row for each.

import { Chart } from "/page/chart.js";
import { Table, byId, figures, note, say } from "/page/elements.js";
import { NOTHING, milliseconds, moment, number, time } from "/page/figures.js";

const COUNTED = ["requests_per_s", "refused_per_s", "failed_per_s", "sessions_held", "connections"];
const text = (value) => (typeof value === "string" || typeof value === "number" ? String(value) : NOTHING);
const figure = (name) => ({ is_number: true, text: (card) => number(card.figures[name]) });

export class Fleet {
  constructor() {
    const place = byId("charts");
    this.requests = new Chart(place, "Requests a second", ["all gateways", "this gateway"], number);
    this.refused = new Chart(place, "Refused and failed a second", ["refused (401, 403)", "failed (5xx)"],
      number);
    this.latency = new Chart(place, "99 % of requests within", ["slowest gateway", "this gateway"], milliseconds);
    this.table = new Table("gateways", [
      { name: "Gateway", is_long: true, text: (card) => `${text(card.host)}, pid ${text(card.pid)}${card.is_self ? " (this one)" : ""}` },
      { name: "State", text: (card) => card.state },
      { name: "Requests/s", ...figure("requests_per_s") },
      { name: "Refused/s", ...figure("refused_per_s") },
      { name: "Failed/s", ...figure("failed_per_s") },
      { name: "99 % within", is_number: true, text: (card) => milliseconds(card.figures.p99_ms) },
      { name: "Sessions held", ...figure("sessions_held") },
      { name: "Connections", ...figure("connections") },
      { name: "Servers up", is_number: true,
        text: ({ figures: { servers_up, servers } }) => `${number(servers_up)} of ${number(servers)}` },
      { name: "Version, up since", text: (card) => `${text(card.version)}, ${moment(card.started_ms)}` },
      { name: "Admin listener", is_long: true, text: (card) => text(card.admin) },
    ], 256);
  }

  // `fleet`: as GET /v1/gateways
  show(fleet) {
    const since = fleet.unknown_since_ms;
    const cards = fleet.gateways.map((card) => {
      const is_self = card.id === fleet.self;
      const is_old = since !== null && !is_self;
      const does = [card.is_leaving ? "leaves" : "serves", ...(card.figures.store === "away" ? ["store away"] : [])];
      const state = is_old ? `as of ${time(fleet.known_at_ms)}` : does.join(", ");
      return { ...card, is_self, is_old, state };
    });
    note(byId("unknown"), unknown(fleet));
    const now = cards.filter((card) => !card.is_old);
    this.sum(now, since === null);
    this.draw(now, since === null);
    this.table.fill(cards, (card) => card.id);
    say(byId("gateways-count"), number(cards.length));
  }

  sum(cards, is_known) {
    const whose = is_known ? "" : ", this gateway";
    const [requests, refused, failed, sessions, connections] = COUNTED.map((name) => number(total(cards, name)));
    figures(byId("totals"), [
      ["Gateways", is_known ? number(cards.length) : NOTHING],
      ["Requests/s", requests], ["Refused/s", refused], ["Failed/s", failed],
      ["99 % within", milliseconds(slowest(cards))],
      ["Sessions held", sessions], ["Connections", connections],
      ["Log lines left out", number(total(cards, "error_lines_left_out"))],
      ["Versions", [...new Set(cards.map((card) => text(card.version)))].join(", ")],
    ].map(([name, value], at) => [at ? `${name}${whose}` : name, value]));
  }

  draw(cards, is_known) {
    const at_ms = Date.now();
    const own = cards.filter((card) => card.is_self);
    const all = is_known ? cards : [];
    const sum_of = (some, name) => (some.length ? total(some, name) : null);
    this.requests.add(at_ms, [sum_of(all, "requests_per_s"), sum_of(own, "requests_per_s")]);
    this.refused.add(at_ms, [sum_of(cards, "refused_per_s"), sum_of(cards, "failed_per_s")]);
    this.latency.add(at_ms, [slowest(all), slowest(own)]);
  }
}

function unknown(fleet) {
  if (fleet.unknown_since_ms === null) return "";
  const since = `The store has not answered since ${time(fleet.unknown_since_ms)}, so the fleet is not known. `;
  const here = "What this page shows is of this gateway. ";
  const before = fleet.known_at_ms === null
    ? "Nothing was known of others before."
    : `Others are listed as they were at ${time(fleet.known_at_ms)}.`;
  return since + here + before;
}

function total(cards, name) {
  return cards.reduce((sum, card) => sum + (Number(card.figures[name]) || 0), 0);
}

// null: nobody has answered a request
function slowest(cards) {
  const known = cards.map((card) => card.figures.p99_ms).filter((value) => typeof value === "number");
  return known.length ? Math.max(...known) : null;
}
