// A metric over the steps of several runs: uPlot, with zoom, smoothing and a shared cursor.

import { isDark } from "./colours.js";
import { fill, h, num } from "./dom.js";

const HEIGHT = 168;
// There is no step between two steps.
const WHOLE = [0, 1, 2, 3, 4, 5, 6, 7].flatMap((power) => [1, 2, 5].map((digit) => digit * 10 ** power));

export class Chart {
  constructor(name, about, { onzoom, onpick, onhover }) {
    Object.assign(this, { name, onzoom, onpick, onhover, plot: null, given: null, dirty: false, visible: false });
    this.values = h("span.values");
    this.body = h("div.body");
    this.element = h("figure.chart", { data: { metric: name } }, h("figcaption", { title: about }, h("span.title", {}, name), this.values), this.body);
    this.element.chart = this;
    this.sizes = new ResizeObserver(() => this.plot?.setSize({ width: this.body.clientWidth, height: HEIGHT }));
    this.sizes.observe(this.body);
  }

  /** Lines to draw: drawn at once where the chart is on the screen, otherwise when it comes there. A line may have a label, to
   * be told from others of its run, a colour to fill the space under it with, and `own`: values to be shown in place of y. */
  set(given) {
    const key = JSON.stringify([given.lines.map((line) => [line.run, line.label, line.colour]), given.label, given.smooth > 0]);
    if (key !== this.made) this.destroy();
    this.made = key;
    this.given = given;
    this.dirty = true;
    if (this.visible) this.draw();
  }

  appear() {
    this.visible = true;
    if (this.dirty) this.draw();
  }

  draw() {
    this.dirty = false;
    const { zoom, smooth } = this.given;
    this.lines = this.given.lines.filter((line) => line.y?.some((value) => value !== null));
    const tables = this.lines.map((line) => [line.x, ...(smooth ? [line.y, averaged(line.y, smooth)] : [line.y])]);
    const data = tables.length ? uPlot.join(tables) : [[]];
    if (!this.plot) this.make(data);
    else this.plot.setData(data, false);
    const xs = data[0];
    const [low, high] = zoom || [xs[0] ?? 0, xs.at(-1) ?? 1];
    this.plot.batch(() => this.plot.setScale("x", { min: low, max: high > low ? high : low + 1 }));
    this.say(null);
  }

  make(data) {
    const ink = isDark() ? "#9aa0a8" : "#6a7078";
    const grid = { stroke: isDark() ? "#ffffff12" : "#0000000d", width: 1 };
    const axis = { stroke: ink, grid, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const smooth = this.given.smooth > 0;
    const series = this.lines.flatMap(({ colour, dash, run, y, fill: under }) => {
      const alone = y.filter((value) => value !== null && value !== undefined).length < 2;
      const drawn = { label: run, stroke: colour, fill: under, width: 1.6, dash, spanGaps: true, points: { show: alone } };
      return smooth ? [{ ...drawn, stroke: `${colour}40`, width: 1, points: { show: false } }, drawn] : [drawn];
    });
    let pressed = null;
    this.plot = new uPlot(
      {
        width: this.body.clientWidth || 320,
        height: HEIGHT,
        legend: { show: false },
        padding: [6, 10, 0, 0],
        scales: { x: { time: false }, y: { range: (_, low, high) => bounds(this.lines.some((line) => line.fill) ? 0 : low, high) } },
        axes: [
          { ...axis, size: 24, gap: 3, incrs: this.given.label === "step" ? WHOLE : undefined, values: (_, ticks) => ticks.map((tick) => short(tick)) },
          { ...axis, size: 46, gap: 4, values: (_, ticks) => ticks.map((tick) => short(tick)) },
        ],
        cursor: { y: false, drag: { x: true, y: false, setScale: false, dist: 4 }, points: { size: 6 } },
        series: [{}, ...series],
        hooks: {
          setSelect: [
            (plot) => {
              if (plot.select.width < 4) return;
              const range = [plot.posToVal(plot.select.left, "x"), plot.posToVal(plot.select.left + plot.select.width, "x")];
              plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
              this.onzoom(range);
            },
          ],
          setCursor: [
            (plot) => {
              this.say(plot.cursor.idx);
              if (plot.cursor.event) this.onhover(this, plot.cursor.left >= 0 ? plot.posToVal(plot.cursor.left, "x") : null);
            },
          ],
        },
      },
      data,
      this.body,
    );
    this.plot.over.addEventListener("mousedown", (event) => (pressed = event.clientX));
    this.plot.over.addEventListener("dblclick", () => this.onzoom(null));
    this.plot.over.addEventListener("click", (event) => {
      if (pressed === null || Math.abs(event.clientX - pressed) > 4) return;
      clearTimeout(this.waiting);
      if (event.detail > 1) return;
      const x = this.plot.posToVal(this.plot.cursor.left, "x");
      this.waiting = setTimeout(() => this.pick(x), 260);
    });
  }

  /** The step of the nearest point, of the run whose line is nearest. */
  pick(x) {
    let best = null;
    for (const line of this.lines)
      line.x.forEach((value, i) => {
        const far = Math.abs(value - x);
        if (!best || far < best.far) best = { far, run: line.run, step: line.steps[i] };
      });
    if (best) this.onpick(best.run, best.step);
  }

  /** Show the cursor where another chart has it. */
  point(x) {
    if (!this.plot) return;
    this.plot.setCursor({ left: x === null ? -10 : this.plot.valToPos(x, "x"), top: 0 }, false);
    this.say(x === null ? null : this.plot.valToIdx(x), x);
  }

  /** The values under the cursor, or the last ones. */
  say(index) {
    const per = this.given.smooth ? 2 : 1;
    const at = (column) => {
      if (index !== null && index !== undefined) return column[index];
      return column.findLast((value) => value !== null && value !== undefined);
    };
    const data = this.plot.data;
    fill(
      this.values,
      index === null || index === undefined ? null : h("span.at", {}, num(data[0][index], 4)),
      this.lines.map((line, i) => h("b", { style: { color: line.colour }, title: line.run }, line.label ? h("span.label", {}, line.label, " ") : null, num(at(line.own || data[1 + i * per] || [])))),
    );
  }

  destroy() {
    this.plot?.destroy();
    this.plot = null;
  }

  close() {
    this.sizes.disconnect();
    clearTimeout(this.waiting);
    this.destroy();
  }
}

/** Exponential moving average without the bias towards its first value. */
function averaged(values, weight) {
  let sum = 0;
  let total = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return sum / total;
  });
}

function bounds(low, high) {
  if (low === null || high === null) return [0, 1];
  const room = (high - low) * 0.08 || Math.abs(high) * 0.1 || 0.5;
  return [low >= 0 && low - room < 0 ? 0 : low - room, high + room];
}

function short(value) {
  const size = Math.abs(value);
  if (size >= 1e9) return `${Number((value / 1e9).toPrecision(3))}G`;
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(3))}k`;
  if (size && size < 1e-3) return value.toExponential(0);
  return String(Number(value.toPrecision(6)));
}
