// The keys of this gateway. One can be added, one can be let sign, one can retire.

import { LONG_MS, ask } from "/page/api.js";
import { carry_out } from "/page/changes.js";
import { Table, byId, confirm, keep_focus, note, once } from "/page/elements.js";
import { NOTHING, duration, moment, number } from "/page/figures.js";

const kept = () => keep_focus("keys");
const LONG = { patience_ms: LONG_MS }; // each change ends with a reload

export class Keys {
  // `refresh`: asks for the keys anew
  constructor(refresh) {
    this.refresh = refresh;
    this.table = new Table("ring", [
      { name: "Key", text: (key) => `${key.id}` },
      { name: "State", text: (key) => `${key.state}${key.is_loaded ? "" : ", not loaded yet"}` },
      { name: "Made", text: (key) => (key.created ? moment(Date.parse(key.created)) : NOTHING) },
      { name: "Age", text: (key) => duration(key.age_s) },
      { name: "Tickets verified", is_number: true, text: (key) => number(key.uses) },
      { name: "Last used", is_number: true,
        text: (key) => (key.last_used_s === null ? "not since the start" : `${duration(key.last_used_s)} ago`) },
      { name: "Promote", button: (key) => (key.state === "signs" ? null
        : { label: "Promote", about: `Promote key ${key.id}`, act: () => this.promote(key).finally(kept) }) },
      { name: "Retire", button: (key) => (key.state === "signs" ? null
        : { label: "Retire", is_danger: true, about: `Retire key ${key.id}`,
          act: () => this.retire(key).finally(kept) }) },
    ]);
    byId("add-key").addEventListener("click", (click) => once(click, () => this.add()));
  }

  // `shown`: as GET /v1/keys
  show({ source, keys }) {
    note(byId("keys-note"), `From ${source}. The one that signs is the last.`);
    this.table.fill(keys, (key) => key.id);
  }

  add() {
    return this.change(() => ask("POST", "keys", { ...LONG, body: {} }),
      ({ id }) => `Key ${id} is added. It verifies; bring it to every gateway before it signs.`);
  }

  async promote(key) {
    if (!await confirm(`Promote key ${key.id}?`, "It signs from then on. Every gateway of the fleet must have loaded it " +
      "before: one that has not refuses the new tickets.", "Promote it")) return;
    await this.change(() => ask("POST", `keys/${key.id}/promote`, LONG), ({ id }) => `Key ${id} signs.`);
  }

  // Of a key that is in use the gateway says so, and it is asked for once more.
  async retire(key) {
    if (!await confirm(`Retire key ${key.id}?`, "Tickets that it has signed are refused at this gateway from then on. " +
      "This cannot be taken back.", "Retire it")) return;
    const retire = (query) => this.change(() => ask("DELETE", `keys/${key.id}${query}`, LONG),
      ({ id }) => `Key ${id} has retired.`);
    const refused = await retire("");
    if (refused?.slug !== "key_in_use") return;
    if (await confirm(`Retire key ${key.id} although it is in use?`, `${refused.message}. Who has a ticket of it must log ` +
      "in again.", "Retire it all the same")) await retire("?force=true");
  }

  async change(make, done) {
    const refused = await carry_out(byId("keys-said"), make, done);
    await this.refresh();
    return refused;
  }
}
