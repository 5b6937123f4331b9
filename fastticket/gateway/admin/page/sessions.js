// The sessions of one user. One of them can be ended, or all: at every gateway of the fleet.

import { ask, reason_of } from "/page/api.js";
import { Table, byId, confirm, keep_focus, say, show } from "/page/elements.js";
import { moment, number } from "/page/figures.js";

const LATER_MS = 400; // several events of a user are one look
const AGAIN_MS = 2000; // what is not known is asked for again
const end_of = (at_ms) => (at_ms === null ? "never" : moment(at_ms));

export class Sessions {
  // `tell`: of what this page has changed
  constructor(tell) {
    this.tell = tell;
    this.user = null; // who is looked for
    this.found = { user: null, count: 0 }; // whose sessions the table has
    this.said = ""; // what this page has ended last
    this.looks = 0;
    this.last_look = 0; // the newest that was answered
    this.timer = 0;
    this.table = new Table("found-sessions", [
      { name: "Session", text: (session) => session.id },
      { name: "Began", text: (session) => moment(session.created_ms) },
      { name: "Used, at least until", text: (session) => moment(session.last_access_ms) },
      { name: "Ends if not used", text: (session) => end_of(session.idle_deadline_ms) },
      { name: "Ends at the latest", text: (session) => end_of(session.absolute_deadline_ms) },
      { name: "Login", is_long: true, text: (session) => Object.entries(session.details).map((pair) => pair.join(": ")).join("; ") },
      { name: "Attributes", is_long: true, text: (session) => session.attributes.map(({ name, bytes }) => (
        `${name} (${number(bytes)} bytes)`)).join(", ") },
      { name: "End it", button: (session) => ({ label: "End", is_danger: true,
        about: `End the session ${session.id.slice(0, 6)} of ${session.principal}`, act: () => this.end(session) }) },
    ]);
    byId("search").addEventListener("submit", (event) => {
      event.preventDefault();
      this.search(byId("user").value);
    });
    byId("end-all").addEventListener("click", () => this.end_all());
  }

  search(user) {
    this.user = user;
    this.said = "";
    if (user !== this.found.user) show(byId("found"), false); // its buttons would end another user's
    this.look();
  }

  // Several may be under way, and be answered in any order: an old one shows nothing.
  async look() {
    const user = this.user;
    const look = ++this.looks;
    const is_old = () => {
      if (user !== this.user || look < this.last_look) return true;
      this.last_look = look;
      return false;
    };
    try {
      const { sessions } = await ask("GET", `principals/${encodeURIComponent(user)}/sessions`);
      if (is_old()) return;
      this.found = { user, count: sessions.length };
      const left_out = this.table.fill(sessions, (session) => session.id);
      const more = left_out ? ` The first ${number(sessions.length - left_out)} are shown.` : "";
      say(byId("sessions-said"), `${this.said}${user} has ${sessions_text(sessions.length)}.${more}`);
      say(byId("found-user"), user);
      show(byId("found"), sessions.length > 0);
      say(byId("end-all"), `End ${all_text(sessions.length)} of ${user}`);
    } catch (error) {
      if (is_old()) return;
      if (!(error.status < 500)) this.look_in(AGAIN_MS); // the store or the gateway is away
      say(byId("sessions-said"), `${this.said}The sessions of ${user} are not known: ${reason_of(error)}.`);
    }
  }

  // An event concerns this user: look again, soon.
  hear(event) {
    if (this.user === null || event.principal !== this.user) return;
    this.look_in(LATER_MS);
  }

  // A page in the background asks when it is looked at again.
  look_in(pause_ms) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => (document.hidden ? this.look_in(AGAIN_MS) : this.look()), pause_ms);
  }

  async end(session) {
    const what = `the session ${session.id.slice(0, 6)} of ${session.principal}`;
    if (!await confirm(`End ${what}?`, "Whoever uses it must log in again. This cannot be taken back.",
      "End the session")) return;
    const path = `sessions/${session.id}?principal=${encodeURIComponent(session.principal)}`;
    await this.change(path, () => `Ended ${what}. `);
  }

  async end_all() {
    const { user, count } = this.found;
    if (!await confirm(`End ${all_text(count)} of ${user}?`,
      `${user} must log in again everywhere. This cannot be taken back.`, `End ${all_text(count)}`)) return;
    await this.change(`principals/${encodeURIComponent(user)}/sessions`,
      (answer) => `Ended ${sessions_text(answer.ended)} of ${user}. `);
  }

  async change(path, done) {
    try {
      this.said = done(await ask("DELETE", path));
      this.tell(`By you: ${this.said.trim()}`);
    } catch (error) {
      this.said = `Nothing is ended: ${reason_of(error)}. `;
    }
    await this.look();
    keep_focus("sessions");
  }
}

function sessions_text(count) {
  return count === 1 ? "one session" : `${count === 0 ? "no" : number(count)} sessions`;
}

function all_text(count) {
  return count === 1 ? "the session" : `all ${number(count)} sessions`;
}
