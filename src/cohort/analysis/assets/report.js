"use strict";
// Draws the charts of a comparison from the numbers in the page. Colours are CSS variables: they follow the page's scheme.
const found = JSON.parse(document.getElementById("findings").textContent);
const DASHES = ["none", "7 3", "2 3", "9 3 2 3", "4 2", "12 4", "1 2"];
const SYMBOLS = ["circle", "square", "triangle", "diamond", "cross", "star", "wye"];
const COLOURS = 7;
const style = Object.fromEntries(found.entries.map((name, i) => [name, {
  colour: `var(--c${i % COLOURS})`,
  dash: DASHES[(i + Math.floor(i / COLOURS)) % DASHES.length],
  symbol: SYMBOLS[(i + Math.floor(i / COLOURS)) % SYMBOLS.length],
}]));
const hidden = new Set();
let axis = "step";
const AXES = {step: "step", tokens: "sampled tokens", seconds: "seconds of training"};

const shown = (names) => names.filter((name) => !hidden.has(name));
const rows = (columns) => columns.mean.map((_, i) => Object.fromEntries(
  Object.entries(columns).map(([key, values]) => [key, values[i]])));
const number = (value, percent) => value === null || Number.isNaN(value) ? "-"
  : percent ? `${(100 * value).toFixed(1)} %` : Math.abs(value) >= 1000 ? d3.format(".3s")(value) : d3.format(".4~g")(value);

function chart(figure, marks, options) {
  const width = Math.max(260, Math.min(figure.clientWidth, 760));
  figure.querySelectorAll(":scope > svg, :scope > .empty").forEach((old) => old.remove());
  const {y, x, ...rest} = options;
  figure.append(Plot.plot({
    width, height: Math.round(Math.max(210, Math.min(300, width * 0.62))), marginLeft: 52, marginBottom: 40, marginTop: 18,
    style: {fontSize: "12px", background: "transparent", color: "inherit", overflow: "visible"},
    x: {ticks: Math.max(3, Math.round(width / 90)), ...x}, y: {grid: true, ticks: 5, nice: true, ...y}, marks, ...rest,
    ariaLabel: figure.querySelector("figcaption").firstChild.textContent,
  }));
}

// Mean lines with a band, markers at a few places, and what the pointer is at.
function lines(byEntry, x, percent, {bars = false, every = true} = {}) {
  const marks = [], all = [];
  for (const name of shown(Object.keys(byEntry))) {
    const own = rows(byEntry[name]), {colour, dash, symbol} = style[name];
    const step = Math.max(1, Math.ceil(own.length / 8));
    if (bars) marks.push(Plot.ruleX(own, {x, y1: "low", y2: "high", stroke: colour, strokeOpacity: 0.6, strokeWidth: 1.5}));
    else marks.push(Plot.areaY(own, {x, y1: "low", y2: "high", fill: colour, fillOpacity: 0.13}));
    marks.push(Plot.lineY(own, {x, y: "mean", stroke: colour, strokeWidth: 2, strokeDasharray: dash}));
    marks.push(Plot.dot(own.filter((_, i) => every ? true : i % step === 0), {
      x, y: "mean", symbol, r: 3.5, stroke: colour, fill: "var(--page)", strokeWidth: 1.5}));
    for (const row of own) all.push({...row, name});
  }
  marks.push(Plot.tip(all, Plot.pointer({x, y: "mean", maxRadius: 60, title: (d) =>
    `${d.name}\n${number(d.mean, percent)} [${number(d.low, percent)}, ${number(d.high, percent)}]\nat ${number(d[x])}`})));
  return marks;
}

const share = (metric) => /accuracy|truncated|zero_signal|@/.test(metric);
const format = (percent) => percent ? {tickFormat: (v) => `${+(100 * v).toFixed(1)}`, label: "%"} : {label: null};

const draw = {
  curve(figure) {
    const byAxis = found.curves[figure.dataset.of] || {}, byEntry = byAxis[axis];
    if (!byEntry) {
      figure.querySelectorAll(":scope > svg, :scope > .empty").forEach((old) => old.remove());
      const said = document.createElement("p");
      said.className = "empty lead";
      said.textContent = `not recorded against ${AXES[axis]}`;
      figure.append(said);
      return;
    }
    const percent = share(figure.dataset.of);
    const most = Math.max(...Object.values(byEntry).map((columns) => columns.x.length));
    chart(figure, lines(byEntry, "x", percent, {every: most <= 16}), {
      x: {label: AXES[axis], tickFormat: axis === "tokens" ? "~s" : undefined}, y: format(percent)});
  },
  k(figure) {
    const byEntry = found[figure.dataset.of][figure.dataset.data];
    const ks = [1, 2, 4, 8, 16].filter((k) => Object.values(byEntry).some((c) => c.k.includes(k)));
    chart(figure, lines(byEntry, "k", true, {bars: figure.dataset.of === "votes"}), {
      x: {type: "log", base: 2, label: "k", ticks: ks, tickFormat: "d"}, y: format(true)});
  },
  reliability(figure) {
    const marks = [Plot.link([0], {x1: 0, y1: 0, x2: 1, y2: 1, stroke: "currentColor", strokeOpacity: 0.4, strokeDasharray: "2 4"})];
    const all = [];
    for (const name of shown(Object.keys(found.reliability))) {
      const own = found.reliability[name].map(([sure, right, count]) => ({sure, right, count, name}));
      const {colour, dash, symbol} = style[name];
      marks.push(Plot.lineY(own, {x: "sure", y: "right", stroke: colour, strokeWidth: 1.5, strokeDasharray: dash}));
      marks.push(Plot.dot(own, {x: "sure", y: "right", symbol, r: 4, stroke: colour, fill: "var(--page)", strokeWidth: 1.5}));
      all.push(...own);
    }
    marks.push(Plot.tip(all, Plot.pointer({x: "sure", y: "right", title: (d) =>
      `${d.name}\nconfidence ${number(d.sure, true)}, correct ${number(d.right, true)}\n${d.count} completions`})));
    chart(figure, marks, {x: {domain: [0, 1], label: "confidence"}, y: {domain: [0, 1], label: "share correct"}});
  },
  difference(figure) {
    const own = found.differences.filter((d) => d.data === figure.dataset.data && d.measure === figure.dataset.of && !hidden.has(d.entry));
    const scaled = own.map((d) => ({...d, value: d.value * d.scale, low: d.low * d.scale, high: d.high * d.scale}));
    const names = scaled.map((d) => d.entry), longest = Math.max(6, ...names.map((name) => name.length));
    const left = Math.min(220, 12 + 7 * longest);
    chart(figure, [
      Plot.ruleX([0], {strokeOpacity: 0.5}),
      ...scaled.flatMap((d) => [
        Plot.ruleY([d], {x1: "low", x2: "high", y: "entry", stroke: style[d.entry].colour, strokeWidth: 2.5}),
        Plot.dot([d], {x: "value", y: "entry", symbol: style[d.entry].symbol, r: 6, fill: style[d.entry].colour}),
      ]),
      Plot.tip(scaled, Plot.pointer({x: "value", y: "entry", title: (d) => `${d.entry}\n${d.sentence}`})),
    ], {height: 60 + 30 * names.length, marginLeft: left,
      x: {label: `${own.length ? own[0].axis : ""}, ${found.entries[0]} = 0`, grid: true},
      y: {type: "band", domain: names, label: null, grid: false, ticks: undefined}});
  },
  setting(figure) {
    const of = figure.dataset.of, measure = figure.dataset.measure;
    const own = found.results.filter((r) => r.data === found.data[0] && r.measure === measure && r.entry in found.settings)
      .map((r) => ({...r, at: found.settings[r.entry][of]}));
    const plain = own.every((r) => typeof r.at === "number");
    const places = [...new Set(own.map((r) => r.at))].sort((a, b) => plain ? a - b : String(a).localeCompare(String(b)));
    const wide = plain && places[0] > 0 && places[places.length - 1] / places[0] >= 20;
    const few = !plain || places.length <= 8;
    const x = few ? (r) => String(r.at) : "at";
    const means = d3.rollups(own, (group) => d3.mean(group, (r) => r.value), (r) => r.at).map(([at, value]) => ({at, value}));
    means.sort((a, b) => places.indexOf(a.at) - places.indexOf(b.at));
    chart(figure, [
      Plot.lineY(means, {x, y: "value", stroke: "currentColor", strokeOpacity: 0.45, strokeDasharray: "4 3"}),
      ...own.filter((r) => !hidden.has(r.entry)).flatMap((r) => [
        Plot.ruleX([r], {x, y1: "low", y2: "high", stroke: style[r.entry].colour, strokeOpacity: 0.7}),
        Plot.dot([r], {x, y: "value", symbol: style[r.entry].symbol, r: 5, stroke: style[r.entry].colour, fill: "var(--page)", strokeWidth: 2}),
      ]),
      Plot.tip(own, Plot.pointer({x, y: "value", title: (r) => `${r.entry}\n${number(r.value, true)}`})),
    ], {x: few ? {type: "point", domain: places.map(String), label: of} : {type: wide ? "log" : "linear", label: of}, y: format(share(measure))});
  },
};

function redraw() {
  document.querySelectorAll("figure[data-chart]").forEach((figure) => draw[figure.dataset.chart](figure));
}

// The legend shows and hides.
const legend = document.getElementById("legend");
for (const name of found.entries) {
  const {colour, dash, symbol} = style[name];
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-pressed", "true");
  const mark = d3[`symbol${{circle: "Circle", square: "Square", triangle: "Triangle", diamond: "Diamond", cross: "Cross", star: "Star", wye: "Wye"}[symbol]}`];
  button.innerHTML = `<svg width="34" height="14" aria-hidden="true"><line x1="1" x2="33" y1="7" y2="7" stroke="${colour}" ` +
    `stroke-width="2" stroke-dasharray="${dash}"/><path d="${d3.symbol(mark, 44)()}" transform="translate(17,7)" ` +
    `stroke="${colour}" fill="var(--page)" stroke-width="1.5"/></svg>`;
  button.append(name);
  button.addEventListener("click", () => {
    hidden.has(name) ? hidden.delete(name) : hidden.add(name);
    button.setAttribute("aria-pressed", String(!hidden.has(name)));
    redraw();
  });
  legend.append(button);
}

document.querySelectorAll("input[name=axis]").forEach((input) => input.addEventListener("change", () => {
  axis = input.value;
  redraw();
}));

// Tables sort by the column whose head is pressed.
document.querySelectorAll("table.sorts").forEach((table) => {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "descending" || (head.getAttribute("aria-sort") === null && column === 0);
    heads.forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "ascending" : "descending");
    const key = (row) => {
      const cell = row.cells[column];
      return cell.dataset.value === undefined ? cell.textContent : cell.dataset.value === "" ? NaN : Number(cell.dataset.value);
    };
    const body = table.tBodies[0];
    [...body.rows].sort((a, b) => {
      const x = key(a), y = key(b);
      if (typeof x === "number" && typeof y === "number") {
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
        return down ? x - y : y - x;
      }
      return (down ? 1 : -1) * String(x).localeCompare(String(y));
    }).forEach((row) => body.append(row));
  }));
});

let waiting;
addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(redraw, 120); });
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => { each.open = true; }));
redraw();
