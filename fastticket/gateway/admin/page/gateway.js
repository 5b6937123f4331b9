// This gateway and its store: how they are; the configuration read anew, the gateway drained, the
// level of its log.

import { LONG_MS, ask } from "/page/api.js";
import { carry_out } from "/page/changes.js";
import { Table, byId, confirm, figures, mark, note, once, say, show } from "/page/elements.js";
import { NOTHING, clock, duration, milliseconds, moment, number } from "/page/figures.js";

const SERVER_STATES = { closed: "asked", open: "not asked, it failed", "half-open": "on trial" };
const of_most = (some, most) => `${number(some)} of ${number(most)}`;
const seconds = (value) => milliseconds(typeof value === "number" ? value * 1000 : null);
const heard = (value) => (typeof value === "number" ? `${duration(value)} ago` : NOTHING);

// Name, text, and the name in `attention` that says whether it is bad.
const OWN = [
  ["Worker", ({ workers_serving }) => (workers_serving ? "serves" : "missing"), "workers_serving"],
  ["Connections", (given) => of_most(given.connections, given.connections_max), "connections"],
  ["File descriptors", (given) => of_most(given.descriptors_used, given.descriptors_max), "descriptors_used"],
  ["Sessions held", (given) => of_most(given.sessions_held, given.sessions_capacity)],
  ["Clock", (given) => clock(given.clock_ahead_s), "clock_ahead_s"],
  ["99 of 100 ends known within", (given) => seconds(given.revocation_lag_s), "revocation_lag_s"],
  ["Last end heard", (given) => heard(given.revocation_heard_s), "revocation_heard_s"],
  ["Access log lines lost", (given) => number(given.access_lines_lost), "access_lines_lost"],
  ["Error log lines lost", (given) => number(given.error_lines_lost), "error_lines_lost"],
  ["Error log lines left out", (given) => number(given.error_lines_left_out)],
  ["Last reload", ({ last_reload }, { reloads }) => (reloads.done + reloads.refused === 0 ? "none"
    : `${last_reload.was_done ? "done" : "refused"}, ${moment(last_reload.at_s * 1000)}`), "last_reload"],
];
const OF_STORE = [
  ["Uses not written yet", (_, { store }) => number(store.touches_unwritten)],
  ["The oldest of them", (given) => seconds(given.flush_lag_s), "flush_lag_s"],
  ["Sessions that live, last count", (given) => number(given.sessions_living)],
  ["Times that its log was lost", (given) => number(given.store_log_gaps)],
];
const OF_MIRROR = [
  ["Mirror", (given) => given.mirror_trouble || "is written", "mirror_trouble"],
  ["Uses that wait for it", (given) => number(given.mirror_touches_waiting)],
  ["Changes that wait for both", (given) => number(given.mirror_changes_waiting)],
];

export class Gateway {
  // `refresh`: asks for the state anew
  constructor(refresh) {
    Object.assign(this, { refresh, is_draining: false });
    this.refusals = new Table("refusals", [
      { name: "Reason", text: (row) => row.reason },
      { name: "Since the start", is_number: true, text: (row) => number(row.count) },
      { name: "A second", is_number: true, text: (row) => number(row.per_s) },
    ]);
    byId("reload").addEventListener("click", (click) => once(click, () => this.reload()));
    byId("drain").addEventListener("click", () => this.drain());
    byId("level").addEventListener("change", () => this.set_level(byId("level").value));
  }

  // `status`: as GET /v1/status
  show(status) {
    say(byId("name"), location.host);
    const why = status.is_draining ? "drained" : status.reasons.join(", ");
    mark(byId("ready"), status.is_ready ? "Ready" : `Not ready: ${why}`, status.is_ready);
    const reloads = `${number(status.reloads.done)} reloads, ${number(status.reloads.refused)} refused`;
    const about = [`version ${status.version || NOTHING}`, `pid ${status.pid}`, `up for ${duration(status.uptime_s)}`,
      `${number(status.restarts)} workers replaced`, reloads];
    if (status.away.length) about.push(`away: ${status.away.join(", ")}`);
    say(byId("about"), about.join(" · "));
    figures(byId("own"), rows_of(OWN, status));
    const { was_done, why: refusal } = status.figures.last_reload;
    note(byId("reload-refused"), was_done ? "" : `The configuration before stays in force. Why: ${refusal}`);
    this.refusals.fill(status.refusals, (row) => row.reason);
    show(byId("refusals"), status.refusals.length > 0);
    note(byId("refusals-note"), status.refusals.length ? "" : "No request was refused here since the start.");
    this.is_draining = status.is_draining;
    say(byId("drain"), status.is_draining ? "Make it ready again" : "Drain this gateway");
    show_store(status);
  }

  // `shown`: as GET /v1/log-level
  show_level({ level, configured }) {
    if (document.activeElement !== byId("level")) byId("level").value = level;
    say(byId("level-configured"), level === configured ? "" : `until the next reload; configured: ${configured}`);
  }

  async reload() {
    say(byId("gateway-said"), "The configuration is being read.");
    await carry_out(byId("gateway-said"), () => ask("POST", "reload", { patience_ms: LONG_MS }),
      ({ configuration }) => `Reloaded: ${configuration} is in force.`);
    this.refresh();
  }

  async drain() {
    const is_draining = this.is_draining; // as the button says; somebody else may change it meanwhile
    if (!is_draining && !await confirm("Drain this gateway?",
      "Balancers are told that it is not ready, and connections are closed after their next answer. Who comes all the " +
      "same is served.", "Drain it")) return;
    await carry_out(byId("gateway-said"), () => ask(is_draining ? "DELETE" : "POST", "drain"),
      (now) => (now.is_draining ? "This gateway is drained." : "This gateway is ready again."));
    this.refresh();
  }

  async set_level(level) {
    await carry_out(byId("gateway-said"), () => ask("PUT", "log-level", { body: { level } }),
      (now) => `The log begins at ${now.level} now.`);
    this.refresh();
  }
}

function rows_of(table, status) {
  return table.map(([name, text, is_bad]) => [name, text(status.figures, status), status.attention.includes(is_bad)]);
}

function show_store(status) {
  const { store } = status;
  if (!store) {
    mark(byId("store-state"), "Not known: there is no worker now", false);
    return;
  }
  const outage = `Away for ${duration(store.outage_ms / 1000)}`;
  const then = store.is_outage_tolerated ? "sessions that are held go on being admitted" : "nobody is admitted";
  mark(byId("store-state"), store.is_away ? `${outage}: ${then}` : "Answers", !store.is_away);
  const servers = Object.entries(store.servers).map(([name, state]) => `${name}: ${SERVER_STATES[state] ?? state}`);
  say(byId("store-about"), [store.url, ...servers].join(" · "));
  figures(byId("store-figures"), [
    ["Shards leased", number(store.shards_leased)], ["Shards away", number(store.shards_away), store.shards_away > 0],
    ["Outage", store.outage_ms ? duration(store.outage_ms / 1000) : "none", store.is_away],
    ...rows_of(OF_STORE, status), ["Lease", milliseconds(store.lease_ms)],
    ...(status.figures.mirror_trouble === null ? [] : rows_of(OF_MIRROR, status)),
  ]);
}
