// The servers of the upstreams. One can be drained, and put back.

import { ask, reason_of } from "/page/api.js";
import { Table, byId, confirm, note, say } from "/page/elements.js";
import { number } from "/page/figures.js";

const STATES = { up: "up", down: "down", drained: "drained" };

export class Upstreams {
  // `refresh`: asks for the state anew; `tell`: of what this page has changed
  constructor(refresh, tell) {
    Object.assign(this, { refresh, tell });
    this.table = new Table("servers", [
      { name: "Server", is_long: true, text: (row) => row.server },
      { name: "Upstream", is_long: true, text: (row) => row.upstream },
      { name: "State", is_long: true, text: (row) => `${STATES[row.state] ?? row.state}${row.why ? `: ${row.why}` : ""}` },
      { name: "Requests under way", is_number: true, text: (row) => number(row.active) },
      { name: "Connections that idle", is_number: true, text: (row) => number(row.idle) },
      { name: "Requests that wait", is_number: true, text: (row) => number(row.queued) },
      { name: "Change", button: (row) => this.button(row) },
    ]);
  }

  // `shown`: as GET /v1/upstreams
  show(shown) {
    // In an order of their own: a server stays where it is when its state changes.
    const rows = shown.upstreams.flatMap((upstream) => upstream.servers
      .map((server) => ({ ...server, upstream: upstream.name }))
      .sort((one, other) => (one.server < other.server ? -1 : 1)));
    const left_out = this.table.fill(rows, (row) => `${row.upstream} ${row.server}`);
    const empty = shown.upstreams.filter((upstream) => !upstream.servers.length).map((upstream) => upstream.name);
    const notes = [];
    if (left_out) notes.push(`${number(left_out)} more servers are not shown.`);
    if (empty.length) notes.push(`Without a server: ${empty.join(", ")}.`);
    note(byId("upstreams-note"), notes.join(" "));
  }

  button(row) {
    const is_drained = row.state === "drained";
    const label = is_drained ? "Put back" : "Drain";
    return { label, about: `${label} ${row.server} of ${row.upstream}`, act: () => this.change(row, is_drained) };
  }

  async change(row, is_drained) {
    const what = `${row.server} of ${row.upstream}`;
    if (!is_drained && !await confirm(`Drain ${what}?`,
      "This gateway sends it no new request, and finishes those under way. Other gateways go on.", "Drain it")) return;
    const path = `upstreams/${encodeURIComponent(row.upstream)}/servers/${encodeURIComponent(row.server)}/drain`;
    try {
      await ask(is_drained ? "DELETE" : "POST", path);
      const done = is_drained ? `${what} is back.` : `${what} is drained.`;
      say(byId("upstreams-said"), done);
      this.tell(`By you: ${done}`);
    } catch (error) {
      say(byId("upstreams-said"), `${what} is as before: ${reason_of(error)}.`);
    }
    this.refresh();
  }
}
