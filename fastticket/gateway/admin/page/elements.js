// Tables and lists that are filled anew without losing the focus: a row stays the same element for
// as long as it is there. Everything is put in as text.

export const byId = (id) => document.getElementById(id);

export function make(name, attributes = {}, ...inside) {
  const made = name === "svg" || name === "path" || name === "line"
    ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...inside);
  return made;
}

export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function show(element, is_shown) {
  if (element.hidden === is_shown) element.hidden = !is_shown;
}

// A note: its text, and nothing at all where there is none.
export function note(element, text) {
  say(element, text);
  show(element, text !== "");
}

export function mark(element, text, is_good) {
  say(element, text);
  element.className = `mark ${is_good ? "good" : "bad"}`;
}

// A table with these columns: {name, is_number, is_long, text: item => string} or {name, button:
// item => {label, about, act, is_danger} or null}. The first column names the row. A long text is
// broken anywhere.
export class Table {
  constructor(id, columns, rows_max = 200) {
    this.table = byId(id);
    this.table.setAttribute("role", "table");
    this.columns = columns;
    this.rows_max = rows_max;
    this.rows = new Map();
    const head = make("tr", { role: "row" });
    for (const column of columns) {
      const options = { scope: "col", role: "columnheader", class: column.is_number ? "number" : "" };
      head.append(make("th", options, column.name));
    }
    const [thead, tbody] = [this.table.tHead, this.table.tBodies[0]];
    for (const group of [thead, tbody]) group.setAttribute("role", "rowgroup");
    thead.append(head);
    this.body = tbody;
  }

  // How many items found no room.
  fill(items, key_of) {
    const shown = items.slice(0, this.rows_max);
    const keys = new Set(shown.map(key_of));
    for (const [key, row] of this.rows) {
      if (!keys.has(key)) {
        row.remove();
        this.rows.delete(key);
      }
    }
    let before = null;
    for (const item of shown) {
      const key = key_of(item);
      const row = this.rows.get(key) ?? this.add(key);
      const place = before ? before.nextSibling : this.body.firstChild;
      if (row !== place) this.body.insertBefore(row, place);
      this.columns.forEach((column, at) => this.put(row.cells[at], column, item));
      before = row;
    }
    return items.length - shown.length;
  }

  add(key) {
    const row = make("tr", { role: "row" });
    this.columns.forEach((column, at) => {
      const kind = column.is_number ? "number" : column.is_long ? "long" : "";
      row.append(at === 0
        ? make("th", { scope: "row", role: "rowheader", class: kind })
        : make("td", { role: "cell", class: kind, "data-name": column.name }));
    });
    this.rows.set(key, row);
    return row;
  }

  put(cell, column, item) {
    if (!column.button) {
      say(cell, column.text(item));
      return;
    }
    const wanted = column.button(item);
    if (!wanted) {
      cell.replaceChildren();
      return;
    }
    if (!cell.firstChild) cell.append(make("button", { type: "button" }));
    const button = cell.firstChild;
    say(button, wanted.label);
    button.className = wanted.is_danger ? "danger" : "";
    if (button.getAttribute("aria-label") !== wanted.about) button.setAttribute("aria-label", wanted.about);
    button.onclick = wanted.act;
  }
}

// Names and values of a <dl>: [[name, text, is_bad], ...]. What is bad says so by more than a colour.
export function figures(list, rows) {
  if (list.children.length !== rows.length) {
    list.replaceChildren(...rows.map(() => make("div", {}, make("dt"), make("dd"))));
  }
  rows.forEach(([name, text, is_bad], at) => {
    const place = list.children[at];
    place.className = is_bad ? "bad" : "";
    say(place.firstChild, name);
    say(place.lastChild, is_bad ? `\u26a0 ${text}` : text);
  });
}

// The button that was pressed may be gone: then the heading of its section has the focus.
export function keep_focus(heading) {
  const focused = document.activeElement;
  if (!focused || focused === document.body || !focused.getClientRects().length) byId(heading).focus();
}

// Does what a button is for, which it does not begin again meanwhile, nor for the second half of a
// double click, which may come after that. The focus stays where it is: a button with `disabled`
// would lose it, and to give it back later is to take it from somebody else.
export async function once(click, act) {
  const button = click.currentTarget;
  if (click.detail > 1 || button.ariaDisabled === "true") return;
  button.ariaDisabled = "true";
  await act();
  button.ariaDisabled = null;
}

const questions = []; // the first is asked now, the others wait

// Asks before something that cannot be taken back. -> whether to do it
// Questions wait for each other: none takes the place of another that is being read.
export function confirm(what, then, yes) {
  hear_close();
  return new Promise((done) => {
    questions.push({ what, then, yes, done });
    if (questions.length === 1) put_question();
  });
}

function put_question() {
  const [{ what, then, yes }] = questions;
  say(byId("confirm-what"), what);
  say(byId("confirm-then"), then);
  say(byId("confirm-yes"), yes);
  // The second half of a double click was meant for what was there before.
  byId("confirm-yes").onclick = (click) => { if (click.detail < 2) answer(true); };
  byId("confirm-no").onclick = () => answer(false);
  byId("confirm").onclose = hear_close;
  byId("confirm").showModal();
  byId("confirm-no").focus();
}

function answer(is_yes) {
  byId("confirm").close();
  questions.shift().done(is_yes);
  if (questions.length) put_question();
}

// Escape closes the dialog, and its `close` event comes later: by then the next question may be
// open, which this does not answer.
function hear_close() {
  if (questions.length && !byId("confirm").open) answer(false);
}
