// The page of the admin listener: asks the API again and again, and shows what it says. Each answer
// is asked for by itself, so that what is slow or away holds up nothing else.

import { ask, on_token_wanted, reason_of, use_token } from "/page/api.js";
import { compare, tell } from "/page/changes.js";
import { Table, byId, note, say, show } from "/page/elements.js";
import { Events } from "/page/events.js";
import { NOTHING, duration, moment, number, time } from "/page/figures.js";
import { Fleet, show_status } from "/page/fleet.js";
import { Sessions } from "/page/sessions.js";
import { Upstreams } from "/page/upstreams.js";

const OFTEN_MS = 2000;
const SELDOM_MS = 10_000;

const troubles = new Map(); // what cannot be had, and since when
let is_paused = false;
let is_locked = false; // a token is wanted

// Asks for one thing for ever, `every_ms`; `now` does it at once.
class Watch {
  constructor(name, every_ms, use) {
    Object.assign(this, { name, every_ms, use, timer: 0, is_asking: false });
  }

  async now() {
    clearTimeout(this.timer);
    if (this.is_asking) return;
    this.is_asking = true;
    if (!is_paused && !is_locked && !document.hidden) await this.look();
    this.is_asking = false;
    this.timer = setTimeout(() => this.now(), this.every_ms);
  }

  async look() {
    try {
      const answer = await ask("GET", this.name);
      this.use(answer);
      show_known(true);
      compare(this.name, answer);
      troubles.delete(this.name);
      say(byId("fresh"), `As of ${time(Date.now())}.`);
    } catch (error) {
      const since_ms = troubles.get(this.name)?.since_ms ?? Date.now();
      troubles.set(this.name, { since_ms, why: reason_of(error) });
    }
    show_troubles();
  }
}

// Before anything is known, or while a token is wanted, there is nothing to see.
function show_known(is_known) {
  show(byId("known"), is_known);
  show(byId("sections"), is_known);
}

// The same reason for several things is said once.
function show_troubles() {
  const by_reason = new Map();
  for (const [name, { since_ms, why }] of is_locked ? [] : troubles) {
    const said = by_reason.get(why) ?? { names: [], since_ms };
    said.names.push(name);
    said.since_ms = Math.min(said.since_ms, since_ms);
    by_reason.set(why, said);
  }
  const text = [...by_reason].map(([why, { names, since_ms }]) => (
    `Not known since ${time(since_ms)}: ${names.join(", ")}. Why: ${why}.`));
  note(byId("trouble"), text.join(" "));
}

const ring = new Table("ring", [
  { name: "Key", text: (key) => `${key.id}` },
  { name: "State", text: (key) => `${key.state}${key.is_loaded ? "" : ", not loaded yet"}` },
  { name: "Made", text: (key) => (key.created ? moment(Date.parse(key.created)) : NOTHING) },
  { name: "Age", text: (key) => duration(key.age_s) },
  { name: "Tickets verified", is_number: true, text: (key) => number(key.uses) },
  { name: "Last used", is_number: true,
    text: (key) => (key.last_used_s === null ? "not since the start" : `${duration(key.last_used_s)} ago`) },
]);

function show_keys({ source, keys }) {
  note(byId("keys-note"), `From ${source}. The newest first.`);
  ring.fill([...keys].reverse(), (key) => key.id);
}

const fleet = new Fleet();
const sessions = new Sessions(tell);
const events = new Events((event) => sessions.hear(event), () => !is_locked);
const upstreams = new Upstreams(() => watches.upstreams.now(), tell);
const watches = {
  status: new Watch("status", OFTEN_MS, show_status),
  gateways: new Watch("gateways", OFTEN_MS, (answer) => fleet.show(answer)),
  upstreams: new Watch("upstreams", OFTEN_MS, (answer) => upstreams.show(answer)),
  keys: new Watch("keys", SELDOM_MS, show_keys),
};
const look_at_all = () => Object.values(watches).forEach((watch) => watch.now());

byId("pause").addEventListener("click", () => {
  is_paused = !is_paused;
  byId("pause").setAttribute("aria-pressed", `${is_paused}`);
  if (is_paused) say(byId("fresh"), `Paused at ${time(Date.now())}.`);
  events.hold(is_paused);
  look_at_all();
});
document.addEventListener("visibilitychange", look_at_all);

on_token_wanted((is_refused) => {
  const was_locked = is_locked;
  is_locked = true;
  note(byId("token-refused"), is_refused ? "The gateway does not know this token." : "");
  show(byId("token"), true);
  show_known(false);
  if (!was_locked) byId("token-text").focus();
});
byId("token").addEventListener("submit", (event) => {
  event.preventDefault();
  use_token(byId("token-text").value.trim());
  byId("token-text").value = "";
  is_locked = false;
  show(byId("token"), false);
  byId("main").focus();
  events.restart();
  look_at_all();
});

look_at_all();
events.follow();
