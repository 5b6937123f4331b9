// Lines of the last ten minutes. What they show stands in words, and in a table, too.

import { make, say } from "/page/elements.js";
import { time } from "/page/figures.js";

const POINTS_MAX = 300;
const ROWS = 10;
const [WIDTH, HEIGHT] = [300, 100];
const CLASSES = ["first", "second"];

export class Chart {
  // `names`: of one or two lines; `text`: a value as text
  constructor(place, title, names, text) {
    this.title = title;
    this.names = names;
    this.text = text;
    this.points = [];
    this.lines = names.map((_, at) => make("path", { class: CLASSES[at] }));
    this.picture = make("svg", { class: "plot", role: "img", viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none" });
    for (const y of [1, HEIGHT / 2, HEIGHT - 1]) this.picture.append(make("line", { x1: 0, x2: WIDTH, y1: y, y2: y }));
    this.picture.append(...this.lines);
    this.legend = names.map(() => make("span"));
    this.top = make("span");
    this.since = make("span");
    this.rows = make("tbody");
    const legend = make("ul", { class: "legend" }, ...names.map((_, at) => make("li", {},
      make("svg", { viewBox: "0 0 30 8", "aria-hidden": "true" }, make("path", { class: CLASSES[at], d: "M0 4H30" })),
      " ", this.legend[at])));
    const head = make("tr", {}, make("th", { scope: "col" }, "at"),
      ...names.map((name) => make("th", { scope: "col", class: "number" }, name)));
    const table = make("table", {}, make("caption", {}, title), make("thead", {}, head), this.rows);
    this.details = make("details", {}, make("summary", {}, "As a table"), table);
    this.details.addEventListener("toggle", () => this.fill());
    place.append(make("figure", {}, make("figcaption", {}, title), legend,
      make("p", { class: "ends" }, this.top), this.picture,
      make("p", { class: "ends" }, this.since, make("span", {}, "now")), this.details));
  }

  // A value of each line; null: it is not known, and the line has a gap.
  add(at_ms, values) {
    this.points.push({ at_ms, values });
    if (this.points.length > POINTS_MAX) this.points.shift();
    this.draw();
  }

  draw() {
    const known = this.points.flatMap((point) => point.values).filter((value) => value !== null);
    const top = nice(Math.max(...known, 0));
    const [first, last] = [this.points[0].at_ms, this.points.at(-1).at_ms];
    this.lines.forEach((line, at) => line.setAttribute("d", path_of(this.points, at, first, last - first || 1, top)));
    say(this.top, this.text(top));
    say(this.since, time(first));
    const now = this.points.at(-1).values;
    this.names.forEach((name, at) => say(this.legend[at], `${name}: ${this.text(now[at])}`));
    this.picture.setAttribute("aria-label", this.words(now));
    if (this.details.open) this.fill();
  }

  words(now) {
    const lines = this.names.map((name, at) => {
      const known = this.points.map((point) => point.values[at]).filter((value) => value !== null);
      if (!known.length) return `${name}: not known`;
      return `${name}: now ${this.text(now[at])}, lowest ${this.text(Math.min(...known))}, highest ` +
        `${this.text(Math.max(...known))}`;
    });
    return `${this.title} since ${time(this.points[0].at_ms)}. ${lines.join(". ")}.`;
  }

  // The table has the newest point first, and then others at even distances.
  fill() {
    const step = Math.max(1, Math.floor(this.points.length / ROWS));
    const picked = this.points.filter((_, at) => (this.points.length - 1 - at) % step === 0).slice(-ROWS).reverse();
    this.rows.replaceChildren(...picked.map((point) => make("tr", {}, make("th", { scope: "row" }, time(point.at_ms)),
      ...point.values.map((value) => make("td", { class: "number" }, this.text(value))))));
  }
}

function path_of(points, at, first_ms, span_ms, top) {
  let [path, is_down] = ["", false];
  for (const point of points) {
    const value = point.values[at];
    if (value !== null) {
      const x = ((point.at_ms - first_ms) / span_ms) * WIDTH;
      const y = HEIGHT - 1 - (value / top) * (HEIGHT - 2);
      path += `${is_down ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    }
    is_down = value !== null;
  }
  return path;
}

// The end of an axis: 1, 2 or 5 and zeroes.
function nice(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((each) => each >= value);
}
