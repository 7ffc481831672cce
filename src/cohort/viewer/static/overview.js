// The runs, their curves over each other, what the doctor says, and in what their configurations differ.

import { get, metrics, Refused } from "./api.js";
import { Chart } from "./chart.js";
import { line } from "./colours.js";
import { ago, fill, h, later, notice, num, percent, prose } from "./dom.js";
import { ABOUT, isMain, order } from "./names.js";
import { panels } from "./scale.js";

const DOCTOR_EVERY = 20000;
const MOST_SAID = 4;
// What stands in the table of runs, and what it is.
const HEAD = {
  run: "", method: "", state: "", steps: "made, and planned", accuracy: "of the rollouts that were sampled, in the first and in the last step",
  reward: "mean of the last step", "held out": "greedy accuracy on held-out prompts, before and after training", "a step": "time that the last one took", "": "",
};
const AXES = { step: "step", tokens: "sampled tokens", hours: "hours" };

export function overview(view, root) {
  const places = {};
  for (const name of ["runs", "notices", "findings", "tools", "charts", "wide", "config"]) places[name] = h(`section.${name}`);
  places.wide.classList.add("charts");
  root.append(...Object.values(places));
  // The line is there from the start, so that the curves do not move where he finds nothing.
  fill(places.findings, h("h2", {}, "the doctor's findings", h("span.quiet", {}, "  …")));
  let charts = new Map();
  let wide = new Map();
  const every = () => [...charts.values(), ...wide.values()];
  let drawn = "";
  let doctored = "";
  let doctoredAt = 0;
  let configured = "";
  const seen = new IntersectionObserver(
    (entries) => entries.forEach((entry) => entry.isIntersecting && entry.target.chart?.appear()),
    { rootMargin: "200px" },
  );

  const chosen = () => {
    const asked = view.state.getAll("run").filter((name) => view.runs.some((run) => run.name === name));
    return asked.length ? asked : view.runs.slice(0, 6).map((run) => run.name);
  };
  const style = (name) => line(view.runs.findIndex((run) => run.name === name));
  const zoom = () => {
    const [low, high] = (view.state.get("zoom") || "").split(",").map(Number);
    return Number.isFinite(low) && Number.isFinite(high) && high > low ? [low, high] : null;
  };

  // runs ---------------------------------------------------------------------------------------------------------------

  function drawRuns() {
    const now = Date.now() / 1000;
    const on = chosen();
    const row = (run) => {
      const { colour, dash } = style(run.name);
      const part = run.steps ? Math.min(1, run.step / run.steps) : 0;
      const toggle = () =>
        view.set({ run: view.runs.map((each) => each.name).filter((name) => (name === run.name) !== on.includes(name)) });
      const bar = h("span.done");
      bar.append(h("i", { style: { width: `${100 * part}%` } }));
      return h(
        "tr",
        { class: on.includes(run.name) ? "" : "off" },
        h(
          "td.name",
          {},
          h(
            "label",
            { title: run.folder },
            h("input", { type: "checkbox", checked: on.includes(run.name), onchange: toggle }),
            h(`span.swatch${dash.length ? ".dashed" : ""}`, { style: { color: colour } }),
            run.name,
          ),
        ),
        h("td", {}, run.method ?? "–"),
        h("td", { title: run.written ? ago(now - run.written) : "" }, h(`span.state.${run.state}`, {}, run.state), run.problems.length && run.state !== "broken" ? h("span.state.broken", { title: run.problems.join("\n") }, " damaged") : null),
        h("td.number", {}, bar, `${num(run.step)}${run.steps ? ` / ${num(run.steps)}` : ""}`),
        h("td.number", {}, run.step > 1 && run.first.accuracy !== null ? `${percent(run.first.accuracy)} → ` : "", percent(run.last.accuracy)),
        h("td.number", {}, num(run.last["reward/mean"])),
        h("td.number", {}, heldOut(run)),
        h("td.number", {}, run.last["time/step"] ? `${num(run.last["time/step"])} s` : "–"),
        h("td", {}, h("a", { href: view.link("rollouts", { run: run.name }) }, "rollouts")),
      );
    };
    fill(
      places.runs,
      view.runs.length
        ? h("div.scroll", {}, h("table", {}, h("thead", {}, h("tr", {}, Object.entries(HEAD).map(([text, about]) => h("th", { title: about }, text)))), h("tbody", {}, view.runs.map(row))))
        : notice("There are no runs yet. They appear here as soon as one is started.", "note"),
    );
    const said = view.runs.flatMap((run) => run.problems.map((text) => notice(text)));
    const open = places.notices.querySelector("details")?.open;
    const more = said.length > MOST_SAID ? h("details", { open }, h("summary", {}, `${said.length - MOST_SAID} more that could not be read`), said.slice(MOST_SAID)) : null;
    fill(places.notices, said.slice(0, MOST_SAID), more);
  }

  // curves -------------------------------------------------------------------------------------------------------------

  const filter = h("input", { type: "search", placeholder: "metric …  ( / )", "aria-label": "metrics whose name contains" });
  filter.oninput = later(() => view.set({ metric: filter.value.trim() }), 150);
  const smooth = h("input", { type: "range", min: "0", max: "0.98", step: "0.02", "aria-label": "smoothing" });
  smooth.oninput = () => view.set({ smooth: Number(smooth.value) || null });
  const axis = h("select", { "aria-label": "horizontal axis" }, Object.entries(AXES).map(([value, text]) => h("option", { value }, text)));
  axis.onchange = () => view.set({ x: axis.value === "step" ? null : axis.value, zoom: null });
  const all = h("input", { type: "checkbox" });
  all.onchange = () => view.set({ all: all.checked ? 1 : null });
  const reset = h("button", { type: "button", onclick: () => view.set({ zoom: null }) }, "whole range");
  fill(
    places.tools,
    h("h2", {}, "curves"),
    filter,
    h("label", {}, "against ", axis),
    h("label", {}, "smooth ", smooth),
    h("label", {}, all, " all metrics"),
    reset,
    h("span.quiet.hint", {}, "drag to zoom, double-click for all, click for the step's rollouts"),
  );

  async function drawCharts() {
    const runs = chosen();
    const data = await Promise.all(runs.map((run) => metrics(run)));
    if (view.name !== "overview" || JSON.stringify(runs) !== JSON.stringify(chosen())) return;
    const wanted = (view.state.get("metric") || "").toLowerCase();
    const everything = view.state.has("all");
    const names = order(data.flatMap((each) => Object.keys(each.values))).filter((name) =>
      wanted ? name.toLowerCase().includes(wanted) : everything || isMain(name),
    );
    const exact = names.filter((name) => name.toLowerCase() === wanted);
    const shown = exact.length === 1 && view.state.has("metric") ? [...exact, ...names.filter((name) => name !== exact[0])] : names;
    const x = view.state.get("x") in AXES ? view.state.get("x") : "step";
    const scale = wanted ? [] : panels(runs, data, style);
    const made = JSON.stringify([shown, scale.map((each) => each.name), document.documentElement.dataset.theme]);
    if (made !== drawn) {
      drawn = made;
      every().forEach((chart) => chart.close());
      seen.disconnect();
      const chart = (name, about) => new Chart(name, about, { onzoom, onpick, onhover });
      charts = new Map(shown.map((name) => [name, chart(name, ABOUT[name] || "")]));
      wide = new Map(scale.map((each) => [each.name, chart(each.name, each.about)]));
      fill(places.wide, scale.length ? h("h2", {}, "workers and ranks") : null, [...wide.values()].map((each) => each.element));
      fill(
        places.charts,
        shown.length
          ? [...charts.values()].map((each) => each.element)
          : notice(data.some((each) => each.steps.length) ? "No metric has such a name." : "No step was written yet.", "note"),
      );
      every().forEach((chart) => seen.observe(chart.element));
    }
    const how = { label: AXES[x], smooth: Number(view.state.get("smooth")) || 0, zoom: zoom() };
    const placed = (line, i) => ({ ...line, steps: data[i].steps, x: along(data[i], x) });
    charts.forEach((chart, name) =>
      chart.set({ ...how, lines: runs.map((run, i) => placed({ run, ...style(run), y: data[i].values[name] }, i)) }),
    );
    // Shares that lie over each other are not averaged.
    for (const each of scale) wide.get(each.name).set({ ...how, lines: each.lines.map((line) => placed(line, line.at)), smooth: each.stacked ? 0 : how.smooth });
  }

  const onzoom = (range) => view.set({ zoom: range ? range.map((value) => Number(value.toPrecision(6))).join(",") : null });
  const onpick = (run, step) => view.go(view.link("rollouts", { run, step }));
  const onhover = (from, x) => every().forEach((chart) => chart !== from && chart.point(x));

  // doctor and configuration ---------------------------------------------------------------------------------------------

  async function drawFindings() {
    const runs = chosen();
    const shown = view.runs.filter((run) => runs.includes(run.name));
    const key = JSON.stringify(shown.map((run) => [run.name, run.state]));
    // He reads the rollouts of many steps: of a run that goes on he is not asked at each of its steps.
    if (key === doctored && (Date.now() - doctoredAt < DOCTOR_EVERY || shown.every((run) => run.state !== "running"))) return;
    doctored = key;
    doctoredAt = Date.now();
    const reports = await Promise.all(runs.map((run) => get("findings", { run }).catch(() => null)));
    if (view.name !== "overview" || key !== doctored) return;
    places.findings.dataset.runs = String(runs.length);
    const cards = reports.flatMap((report, i) => (report?.findings || []).map((finding) => card(runs[i], finding, runs.length > 1)));
    // What cannot be read stands above already.
    const failed = reports.flatMap((report, i) => (report?.problems || []).filter((text) => !view.runs.some((run) => run.problems.includes(text))).map((text) => notice(`${runs[i]}: ${text}`, "note")));
    const made = reports.filter(Boolean).reduce((sum, report) => sum + report.made, 0);
    fill(
      places.findings,
      made ? h("h2", {}, "the doctor's findings", cards.length ? null : h("span.quiet", {}, `  none, in ${made} diagnoses`)) : null,
      cards,
      failed,
    );
  }

  function card(run, finding, named) {
    const where = (evidence) => {
      const [, , , ...rest] = evidence.where.split("/");
      return evidence.where ? `#/run/${encodeURIComponent(run)}/${rest.join("/")}` : null;
    };
    return h(
      `details.finding.${finding.severity}`,
      {},
      h("summary", {}, h("b", {}, finding.severity), named ? h("span.run", { style: { color: style(run).colour } }, run) : null, h("span", {}, prose(finding.what)), h("code", {}, finding.name)),
      h("ul", {}, finding.evidence.map((each) => h("li", {}, prose(each.text), " ", where(each) ? h("a", { href: where(each) }, "see it") : null))),
      h("p", {}, prose(finding.meaning)),
      finding.tries.length ? h("p", {}, "What can be tried:") : null,
      h("ul", {}, finding.tries.map((each) => h("li", {}, prose(each.text), " ", [...each.methods, ...each.settings].map((name) => h("code", {}, name))))),
      h("p.quiet", {}, prose(`Source: ${finding.source}`)),
    );
  }

  async function drawConfig() {
    const runs = chosen();
    const now = JSON.stringify(runs);
    if (!runs.length || now === configured) return runs.length || fill(places.config);
    const rows = await get("configurations", { run: runs }).catch((error) => {
      if (!(error instanceof Refused)) throw error;
      return [];
    });
    if (view.name !== "overview") return;
    configured = now;
    const table = (kept) =>
      h("div.scroll", {}, h("table", {}, h("thead", {}, h("tr", {}, h("th", {}, "key"), runs.map((run) => h("th", {}, h("span.swatch", { style: { color: style(run).colour } }), run)))),
        h("tbody", {}, kept.map((row) => h("tr", {}, h("td", {}, h("code", {}, row.key)), runs.map((run) => h("td", {}, setting(row.values[run]))))))));
    const differing = rows.filter((row) => row.differs);
    const same = rows.filter((row) => !row.differs);
    const open = places.config.querySelector("details")?.open;
    fill(
      places.config,
      h("h2", {}, runs.length > 1 ? "in what the configurations differ" : "configuration"),
      differing.length ? table(differing) : runs.length > 1 ? h("p.quiet", {}, "in nothing") : null,
      h("details", { open }, h("summary", {}, runs.length > 1 ? `the same in all: ${same.length} keys` : `${same.length} keys`), table(same)),
    );
  }

  async function draw() {
    filter.value = document.activeElement === filter ? filter.value : view.state.get("metric") || "";
    smooth.value = view.state.get("smooth") || 0;
    axis.value = view.state.get("x") || "step";
    all.checked = view.state.has("all");
    reset.hidden = !zoom();
    drawRuns();
    await drawCharts();
    await Promise.all([drawConfig(), drawFindings()]);
  }

  return {
    show: draw,
    recolour() {
      drawn = doctored = configured = "";
      draw();
    },
    key(key) {
      if (key === "/") return filter.focus(), true;
      return false;
    },
    close() {
      seen.disconnect();
      every().forEach((chart) => chart.close());
    },
  };
}

function along(data, x) {
  if (x === "step") return data.steps;
  let total = 0;
  const hours = () => data.steps.map((_, i) => (total += data.values["time/step"]?.[i] || 0) / 3600);
  const found = x === "tokens" ? data.values.tokens || [] : hours();
  // A run that sampled nothing, or says nothing of its time, has no such axis.
  return found.length && found.every((value, i) => value !== null && (!i || value > found[i - 1])) ? found : data.steps;
}

const setting = (value) =>
  value === null || value === undefined ? h("span.quiet", {}, "–") : typeof value === "object" ? JSON.stringify(value) : value === "" ? '""' : String(value);

function heldOut(run) {
  const { accuracy_before: before, accuracy_after: after } = run.summary;
  if (before === undefined || before === null) return "–";
  return after === undefined ? percent(before) : `${percent(before)} → ${percent(after)}`;
}
