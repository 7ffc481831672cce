// Which run and which step: what the pages of rollouts and of tokens have at their head.

import { get } from "./api.js";
import { fill, h, later, num } from "./dom.js";

/** {element, steps, load(), draw(step), move(by)}; `choose(run)` and `to(step)` are called when the user asks for others. */
export function stepper(view, { choose, to }) {
  const run = h("select", { "aria-label": "run", onchange: () => choose(run.value) });
  const range = h("input", { type: "range", min: "0", step: "1", "aria-label": "step" });
  const number = h("input.step", { type: "number", "aria-label": "step number" });
  const total = h("span.quiet");
  const own = { steps: [] };
  range.oninput = later(() => to(own.steps[Number(range.value)]), 60);
  number.onchange = () => to(nearest(own.steps, Number(number.value)));
  const back = h("button", { type: "button", title: "previous step (h)", onclick: () => own.move(-1) }, "‹");
  const on = h("button", { type: "button", title: "next step (l)", onclick: () => own.move(1) }, "›");
  own.element = h("div.stepper", {}, run, h("span.steps", {}, "step ", back, number, on, total), range);

  own.load = async () => {
    const name = view.run()?.name;
    fill(run, view.runs.map((each) => h("option", { value: each.name, selected: each.name === name }, each.name)));
    own.steps = name ? await get("steps", { run: name }) : [];
    return own.steps;
  };
  own.draw = (step) => {
    own.step = step;
    range.max = Math.max(0, own.steps.length - 1);
    range.value = own.steps.indexOf(step);
    if (document.activeElement !== number) number.value = step ?? "";
    fill(total, own.steps.length ? `of ${num(own.steps.at(-1))}` : "");
    back.disabled = own.steps.indexOf(step) <= 0;
    on.disabled = own.steps.indexOf(step) >= own.steps.length - 1;
  };
  own.move = (by) => {
    const next = own.steps[own.steps.indexOf(own.step) + by];
    if (next === undefined) return;
    // At once, so that a key held down goes on from here.
    own.draw(next);
    to(next);
  };
  return own;
}

/** The stored step nearest to one that was asked for. */
export function nearest(steps, wanted) {
  return steps.reduce((best, step) => (Math.abs(step - wanted) < Math.abs(best - wanted) ? step : best), steps[0]);
}
