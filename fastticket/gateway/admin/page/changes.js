// What is different from the last look, in sentences.

import { byId, make } from "/page/elements.js";
import { time } from "/page/figures.js";

const LINES_MAX = 50;
const before = {};

export function tell(text) {
  const list = byId("changed");
  list.prepend(make("li", {}, `${time(Date.now())} ${text}`));
  while (list.children.length > LINES_MAX) list.lastChild.remove();
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
  keys: ({ keys }) => new Map(keys.map((key) => [
    `Key ${key.id}`, { is: `${key.state}${key.is_loaded ? "" : ", not loaded yet"}`, gone: "has gone" },
  ])),
};
