// What a run over many processes shows: several metrics in one chart, only where a run has them.

import { between, line } from "./colours.js";

// What a chart is called, what it is about, and its lines: what each is called -> the metric it draws.
const PANELS = [
  ["who waits for whom", "seconds of a step", { trainer: "time/wait_rollouts", samplers: "time/wait_trainer" }],
  ["queue of groups", "finished and waiting when the step began, and being drawn", { finished: "queue/depth", "in flight": "queue/in_flight" }],
  ["workers", "alive at the step's end, and restarts so far", { alive: "engine/workers", restarts: "engine/restarts" }],
  ["drawn again", "requests of workers that died, so far", { requests: "engine/redrawn" }],
  ["tokens a second", "that each worker drew", /^engine\/tokens_per_second\/(.+)$/],
  ["transfer of weights", "seconds of a step", { seconds: "engine/transfer_seconds" }],
  ["weights sent", "bytes of a step", { bytes: "engine/transfer_bytes" }],
  ["mismatch in parts", "mean absolute difference of log-probability, nats: sampler to trainer, and what the weights' change adds", { engine: "mismatch/engine", staleness: "mismatch/staleness" }],
  ["ranks: most tokens", "of a rank, over the mean", { "over the mean": "ranks/imbalance" }],
  ["ranks: waiting", "share of the update's time that ranks waited for each other", { share: "ranks/idle" }],
];
const AGE = /^rollouts\/age\/(\d+)$/;

/** Charts of what the runs have: name, about, lines (for Chart.set, without their x), and stacked. */
export function panels(runs, data, style) {
  const found = [];
  const of = (values, wanted) =>
    wanted instanceof RegExp
      ? Object.keys(values).filter((name) => wanted.test(name)).sort().map((name) => [name.match(wanted)[1], name])
      : Object.entries(wanted).filter(([, name]) => name in values);
  runs.forEach((run, i) => {
    const ages = Object.keys(data[i].values).filter((name) => AGE.test(name)).map((name) => Number(name.match(AGE)[1]));
    if (ages.length)
      found.push({
        name: runs.length > 1 ? `age of tokens, ${run}` : "age of tokens",
        about: "shares of the step's tokens by the steps that the weights have moved on between drawing and use",
        lines: stacked(ages.sort((a, b) => a - b), data[i].values).map((each) => ({ ...each, run, at: i })),
        stacked: true,
      });
  });
  for (const [name, about, wanted] of PANELS) {
    const lines = runs.flatMap((run, i) =>
      of(data[i].values, wanted).map(([label, metric], place) => {
        const own = runs.length > 1 ? { ...style(run), dash: line(8 * place).dash } : line(place);
        return { run, at: i, ...own, label, y: data[i].values[metric] };
      }),
    );
    if (lines.length) found.push({ name, about, lines });
  }
  return found;
}

/** A line for each age, the oldest first, at the share of tokens up to that age; `own` has the share of the age itself. */
function stacked(ages, values) {
  const shares = ages.map((age) => values[`rollouts/age/${age}`]);
  const known = shares[0].map((_, step) => shares.some((share) => (share[step] ?? null) !== null));
  let sum = known.map(() => 0);
  const out = ages.map((age, k) => {
    const own = shares[k].map((value, step) => (known[step] ? value ?? 0 : null));
    sum = sum.map((total, step) => total + (own[step] ?? 0));
    const colour = between(ages.length > 1 ? k / (ages.length - 1) : 0);
    return { colour, dash: [], fill: colour, label: `age ${age}`, own, y: sum.map((total, step) => (known[step] ? total : null)) };
  });
  return out.reverse();
}
