// What becomes of sessions, as it happens: a stream, of which the last ROWS_MAX are shown. However
// many come, they are drawn DRAW_MS apart, and only those that are shown are kept.

import { reason_of, stream } from "/page/api.js";
import { Table, byId, note, say } from "/page/elements.js";
import { number, time } from "/page/figures.js";

const ROWS_MAX = 30;
const DRAW_MS = 500;
const AGAIN_MS = 2000;
const LOCKED_MS = 200;
const STALL_MS = 20_000; // a stream that lives says something every 5 s
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

export class Events {
  // `hear`: called with every event; `may_ask`: whether to ask at all now
  constructor(hear, may_ask) {
    Object.assign(this, { hear, may_ask });
    this.kept = [];
    this.count = 0;
    this.last_id = "";
    this.is_paused = false;
    this.waiting = new AbortController();
    this.timer = 0;
    this.stall = 0;
    this.table = new Table("happened", [
      { name: "Seen at", text: (event) => time(event.at_ms) },
      { name: "What", text: (event) => event.kind },
      { name: "User", is_long: true, text: (event) => event.principal },
      { name: "Session", text: (event) => event.session_id.slice(0, 6) },
      { name: "Why", text: (event) => event.reason },
      { name: "Goes on as", text: (event) => event.successor_id.slice(0, 6) },
    ], ROWS_MAX);
    byId("kinds").addEventListener("change", () => this.restart());
  }

  // Read for ever.
  async follow() {
    for (;;) {
      while (!this.may_ask()) await pause(LOCKED_MS);
      this.waiting = new AbortController();
      try {
        const kinds = byId("kinds").value;
        this.say("Events are about to be read.");
        this.expect();
        for await (const piece of stream(`events?kinds=${kinds}`, this.last_id, this.waiting.signal)) this.take(piece);
        this.say("The stream has ended, and is asked for again.");
      } catch (error) {
        if (error.name === "AbortError") continue;
        if (error.slug === "bad_request") this.last_id = ""; // no position of this store, any more
        this.say(`Events are not known: ${reason_of(error)}.`);
      } finally {
        clearTimeout(this.stall);
      }
      await pause(AGAIN_MS);
    }
  }

  // With other kinds, or with a token: go on from where it was.
  restart() {
    this.waiting.abort();
  }

  // Something must come in time, from the moment when the stream is asked for.
  expect() {
    clearTimeout(this.stall);
    this.stall = setTimeout(() => this.waiting.abort(new DOMException("", "TimeoutError")), STALL_MS);
  }

  take({ id, event, data }) {
    this.expect();
    if (id) this.last_id = id;
    this.say("");
    if (!event) return;
    const heard = { ...JSON.parse(data), key: `${id} ${this.count}`, at_ms: Date.now() };
    this.count += 1;
    this.kept.unshift(heard);
    this.kept.length = Math.min(this.kept.length, ROWS_MAX);
    this.hear(heard);
    this.timer ||= setTimeout(() => this.draw(), DRAW_MS);
  }

  hold(is_paused) {
    this.is_paused = is_paused;
    this.draw();
  }

  draw() {
    this.timer = 0;
    if (this.is_paused) return;
    this.table.fill(this.kept, (event) => event.key);
    const more = this.count > this.kept.length ? `; the last ${number(this.kept.length)} are shown` : "";
    say(byId("events-count"), `${number(this.count)} since this page was opened${more}`);
  }

  say(text) {
    note(byId("events-note"), text);
  }
}
