"use strict";
// SETTLED_MS: after the last answer; a flush interval is 500, and the write of the last use is counted, too.
const LOOK_MS = 1000, SETTLED_MS = 1000, MANY = 500, SIDE_BY_SIDE = 6, CHIPS = 12;
const at = (id) => document.getElementById(id);
const shown = (number, digits = 0) => number.toLocaleString("en", { maximumFractionDigits: digits });
const user = at("user").textContent;
const ports = [];
let asked = 0, looks = 0, newest = 0;

async function json(path, form) {
  const sent = form && { method: "POST", body: new URLSearchParams(form) };
  const answer = await fetch(path, { headers: { Accept: "application/json" }, ...sent });
  if (answer.status === 401) location.assign("/login");
  if (!answer.ok) throw new Error((await answer.json()).error);
  return answer.json();
}

function chip(text, name) {
  const made = document.createElement("li");
  made.textContent = text;
  made.className = name;
  return made;
}

// --- which application answered

async function ask() {
  const { application } = await json("/whoami");
  asked += 1;
  if (!ports.includes(application)) ports.push(application), ports.sort();
  const chips = at("answers");
  chips.append(chip(application, ports.indexOf(application) ? "second" : ""));
  while (chips.children.length > CHIPS) chips.firstChild.remove();
  return application;
}

async function askOnce() {
  const application = await ask();
  at("answered").textContent = `Request ${shown(asked)} was answered by the application on port ${application}.`;
}

async function askMany() {
  at("ask-many").disabled = true;
  try {
    const before = await json("/desk/state");
    const began = performance.now();
    let left = MANY;
    await Promise.all(Array.from({ length: SIDE_BY_SIDE }, async () => { while (left-- > 0) await ask(); }));
    at("answered").textContent = `${shown(MANY)} requests in ${shown((performance.now() - began) / 1000, 1)} s, each with your ticket checked.`;
    at("counted").textContent = "Counting…";
    await new Promise((counted) => setTimeout(counted, SETTLED_MS));
    showFigures(before, await json("/desk/state"));
    at("counted").textContent = `Counted for ${shown((performance.now() - began) / 1000, 1)} s.`;
  } finally {
    at("ask-many").disabled = false;
  }
}

// --- figures and sessions

function showFigures(before, after) {
  const [requests, commands, asking] = ["requests", "commands", "commands_of_asking"].map((name) => after[name] - before[name]);
  const rate = (of) => requests ? shown(1000 * of / requests, of < requests ? 1 : 0) : "";
  at("requests").textContent = at("requests-of-asking").textContent = shown(requests);
  at("commands").textContent = shown(commands);
  at("commands-of-asking").textContent = shown(asking);
  at("rate").textContent = rate(commands);
  at("rate-of-asking").textContent = rate(asking);
  const most = Math.max(commands, asking, 1);
  at("bar").style.width = `${100 * commands / most}%`;
  at("bar-of-asking").style.width = `${100 * asking / most}%`;
}

function program(text) {
  const found = /(Firefox|Edg|OPR|HeadlessChrome|Chrome|Safari)\//.exec(text);
  return found ? { Edg: "Edge", OPR: "Opera", HeadlessChrome: "Chrome" }[found[1]] || found[1] : text.split("/")[0] || "unknown";
}

function row(session, second) {
  const made = document.createElement("tr");
  made.dataset.id = session.id;
  for (const text of [program(session.program), new Date(session.begun_ms).toLocaleTimeString()]) made.insertCell().textContent = text;
  const button = document.createElement("button");
  button.textContent = "End";
  button.className = second ? "" : "plain";
  button.setAttribute("aria-label", `End the session begun with ${program(session.program)} at ${made.cells[1].textContent}`);
  button.addEventListener("click", () => doing(() => end(session.id)));
  const cell = made.insertCell();
  cell.className = "act";
  cell.append(button);
  return made;
}

// Rows stay as they are while their sessions live, or the keyboard's focus would be lost every second.
function showSessions(sessions, second) {
  const body = at("sessions");
  const known = new Map(Array.from(body.rows, (each) => [each.dataset.id, each]));
  const wanted = [...sessions].sort((one, other) => one.begun_ms - other.begun_ms);
  for (const session of wanted) {
    if (!known.delete(session.id)) body.append(row(session, second && second.id === session.id));
  }
  for (const gone of known.values()) gone.remove();
  at("second-shown").hidden = !second;
  const lives = second && sessions.some((session) => session.id === second.id);
  at("second").disabled = Boolean(lives);
  if (second) at("second-answers").replaceChildren(...second.answers.map((status) => chip(status, status === 200 ? "" : "refused")));
}

async function look() {
  const number = ++looks;
  const state = await json("/desk/state");
  if (number < newest) return; // asked before what is shown was
  newest = number;
  if (state.user !== user) { location.assign("/login"); return; }
  at("away").textContent = "";
  showSessions(state.sessions, state.second);
}

async function beginSecond() {
  await json("/desk/second", {});
  at("ended").textContent = "The second session has begun.";
  await look();
}

async function end(id) {
  const { refused } = await json("/desk/end", { id });
  at("ended").textContent = !refused ? "Ended." : refused.admitted
    ? `Ended. The second session was refused ${shown(refused.after_ms, 1)} ms later; ${shown(refused.admitted)} of its requests had come before.`
    : "Ended. The second session's next request was refused.";
  await look();
}

// --- what is done when

async function doing(act) {
  try {
    await act();
  } catch (error) {
    at("away").textContent = `The gateway does not answer (${error.message}). Has the demo been ended?`;
  }
}

async function looking() {
  if (!document.hidden) await doing(look);
  setTimeout(looking, LOOK_MS);
}

at("ask").addEventListener("click", () => doing(askOnce));
at("ask-many").addEventListener("click", () => doing(askMany));
at("second").addEventListener("click", () => doing(beginSecond));
doing(askOnce);
looking();
