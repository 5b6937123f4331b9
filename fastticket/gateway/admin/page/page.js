// The page of the admin listener: asks the API again and again, and shows what it says. Each answer
// is asked for by itself, so that what is slow or away holds up nothing else.

import { ask, on_token_wanted, reason_of, use_token } from "/page/api.js";
import { compare, tell } from "/page/changes.js";
import { byId, note, say, show } from "/page/elements.js";
import { Events } from "/page/events.js";
import { time } from "/page/figures.js";
import { Fleet } from "/page/fleet.js";
import { Gateway } from "/page/gateway.js";
import { Keys } from "/page/keys.js";
import { Sessions } from "/page/sessions.js";
import { Upstreams } from "/page/upstreams.js";

const OFTEN_MS = 2000;
const SELDOM_MS = 10_000;

const troubles = new Map(); // what cannot be had, and since when
let is_paused = false;
let is_locked = false; // a token is wanted
const is_live = () => !is_paused && !is_locked; // nothing is shown otherwise

// Asks for one thing for ever, `every_ms`; `now` does it at once, and again if it is being done: what
// is on its way may be of before a change.
class Watch {
  constructor(name, every_ms, use) {
    Object.assign(this, { name, every_ms, use, timer: 0, asking: null, is_wanted: false });
  }

  now() {
    this.is_wanted = true;
    this.asking ??= this.run().finally(() => { this.asking = null; });
    return this.asking;
  }

  async run() {
    clearTimeout(this.timer);
    while (this.is_wanted) {
      this.is_wanted = false;
      if (is_live() && !document.hidden) await this.look();
    }
    this.timer = setTimeout(() => this.now(), this.every_ms);
  }

  async look() {
    try {
      const answer = await ask("GET", this.name);
      if (!is_live()) return; // since it was asked
      this.use(answer);
      show_known(true);
      compare(this.name, answer);
      troubles.delete(this.name);
      say(byId("fresh"), `As of ${time(Date.now())}.`);
    } catch (error) {
      if (!is_live()) return;
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

const fleet = new Fleet();
const gateway = new Gateway(() => Promise.all([watches.status.now(), watches["log-level"].now()]));
const keys = new Keys(() => watches.keys.now());
const sessions = new Sessions(tell);
const events = new Events((event) => sessions.hear(event), () => !is_locked);
const upstreams = new Upstreams(() => watches.upstreams.now(), tell);
const watches = {
  status: new Watch("status", OFTEN_MS, (answer) => gateway.show(answer)),
  gateways: new Watch("gateways", OFTEN_MS, (answer) => fleet.show(answer)),
  upstreams: new Watch("upstreams", OFTEN_MS, (answer) => upstreams.show(answer)),
  keys: new Watch("keys", SELDOM_MS, (answer) => keys.show(answer)),
  "log-level": new Watch("log-level", SELDOM_MS, (answer) => gateway.show_level(answer)),
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
  show_troubles();
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
