// What is different from the last look, in sentences.

import { reason_of } from "/page/api.js";
import { byId, make, say } from "/page/elements.js";
import { time } from "/page/figures.js";

const LINES_MAX = 50;
const before = {};

export function tell(text) {
  const list = byId("changed");
  list.prepend(make("li", {}, `${time(Date.now())} ${text}`));
  while (list.children.length > LINES_MAX) list.lastChild.remove();
}

// Makes a change and says at `place` what came of it, and here. `done`: the answer in a sentence.
// -> the error, if it was refused
export async function carry_out(place, change, done) {
  try {
    const said = done(await change());
    say(place, said);
    tell(`By you: ${said}`);
    return null;
  } catch (error) {
    say(place, `Refused: ${reason_of(error)}.`);
    return error;
  }
}

// Compares an answer with the one before it. `name`: of a function of SAY.
export function compare(name, answer) {
  const now = SAY[name](answer);
  const last = before[name];
  before[name] = now;
  if (!last) return;
  for (const [key, { is, gone }] of now) {
    const was = last.get(key)?.is;
    if (was === undefined && gone) tell(`${key} has come: ${is}`);
    else if (was !== undefined && was !== is) tell(`${key}: ${is}, before: ${was}`);
  }
  for (const [key, { gone }] of last) {
    if (gone && !now.has(key)) tell(`${key} ${gone}`);
  }
}

// For each answer: what it says, by what it says that of. `gone`: how to say that it is not there any more.
const SAY = {
  status: (status) => new Map([
    ["This gateway", { is: status.is_ready ? "ready" : `not ready (${status.reasons.join(", ")})` }],
    ["Its program", { is: `version ${status.version}` }],
    ["Reloads", { is: `${status.reloads.done} done, ${status.reloads.refused} refused` }],
    ["Its configuration", { is: status.figures.last_reload.was_done ? "in force" : "the file on disk is refused" }],
    ["Parts of the store's log that were lost", { is: `${status.figures.store_log_gaps}` }],
    ["Workers replaced", { is: `${status.restarts}` }],
    ["The store", { is: status.store?.is_away ? "away" : status.store ? "answers" : "not known" }],
  ]),
  gateways: (fleet) => new Map(fleet.gateways.filter(({ id }) => id !== fleet.self).map((card) => [
    `Gateway ${card.host}, pid ${card.pid}`,
    { is: `version ${card.version}${card.is_leaving ? ", leaves" : ""}`, gone: "has gone" },
  ])),
  upstreams: (shown) => new Map(shown.upstreams.flatMap(({ name, servers }) => servers.map(({ server, state }) => [
    `Server ${server} of ${name}`, { is: state, gone: "has gone" },
  ]))),
  "log-level": ({ level }) => new Map([["Its log level", { is: level }]]),
  keys: ({ keys }) => new Map(keys.map((key) => [
    `Key ${key.id}`, { is: `${key.state}${key.is_loaded ? "" : ", not loaded yet"}`, gone: "has gone" },
  ])),
};
