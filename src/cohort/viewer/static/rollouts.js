// Finding rollouts, in a step or in all of them, and a group side by side.

import { get, Refused } from "./api.js";
import { counted, fill, h, isNarrow, later, notice, num, percent, reward, signed, straight } from "./dom.js";
import { conversation, ENDS } from "./episode.js";
import { nearest, stepper } from "./stepper.js";

const FLAGS = { correct: ["correct", "wrong"], truncated: ["truncated", "finished"], trained: ["trained", "not trained"], zero_signal: ["zero-signal group", "group with signal"] };
const FIELDS = ["text", "prompt", "reward_min", "reward_max", "length_min", "length_max", ...Object.keys(FLAGS)];
const SORTS = { "": "group", reward: "reward", length: "length", advantage: "advantage" };

export function rollouts(view, root) {
  let found = null; // {rollouts, components, ...} as last answered
  let rows = []; // as sorted
  let key = "";
  let drawn = "";
  let grouped = "";
  let stop = null;

  const steps = stepper(view, {
    choose: (run) => view.set({ run, step: null, row: null, at: null }, { push: true }),
    to: (step) => view.set({ step, row: null, at: null, all: null }),
  });
  const input = (name, attributes) => {
    const field = h("input", { name, ...attributes });
    field.oninput = later(() => view.set({ [name]: field.value.trim(), row: null, at: null }), 300);
    return field;
  };
  const fields = {
    text: input("text", { type: "search", placeholder: "text …  ( / )", "aria-label": "text in prompt or completion" }),
    prompt: input("prompt", { type: "search", placeholder: "prompt or its id", "aria-label": "prompt" }),
    reward_min: input("reward_min", { type: "number", step: "any", placeholder: "least", "aria-label": "least reward" }),
    reward_max: input("reward_max", { type: "number", step: "any", placeholder: "most", "aria-label": "most reward" }),
    length_min: input("length_min", { type: "number", min: "0", placeholder: "least", "aria-label": "least length" }),
    length_max: input("length_max", { type: "number", min: "0", placeholder: "most", "aria-label": "most length" }),
  };
  const flags = Object.fromEntries(
    Object.keys(FLAGS).map((name) => {
      const next = { "": "true", true: "false", false: null };
      return [name, h("button.flag", { type: "button", data: { flag: name }, onclick: () => view.set({ [name]: next[view.state.get(name) || ""], row: null, at: null }) })];
    }),
  );
  const scope = h("select", { "aria-label": "where to look" }, h("option", { value: "" }, "in this step"), h("option", { value: "1" }, "in all steps"));
  scope.onchange = () => view.set({ all: scope.value, row: null, at: null }, { push: true });
  const sort = h("select", { "aria-label": "order" }, Object.entries(SORTS).map(([value, text]) => h("option", { value }, `by ${text}`)));
  sort.onchange = () => view.set({ sort: sort.value });
  const clear = h("button", { type: "button", onclick: () => view.set(Object.fromEntries([...FIELDS, "all", "row", "at"].map((name) => [name, null]))) }, "clear");
  const summary = h("p.summary", { role: "status" });
  const list = h("div.list");
  const panel = h("aside.panel");
  root.append(
    h("section.tools.sticky", {}, steps.element,
      h("div.filters", {}, fields.text, fields.prompt,
        h("label.pair", {}, "reward ", fields.reward_min, "–", fields.reward_max),
        h("label.pair", {}, "length ", fields.length_min, "–", fields.length_max),
        Object.values(flags), scope, sort, clear)),
    summary,
    h("div.split", {}, list, panel),
  );

  const wanted = () => Object.fromEntries(FIELDS.map((name) => [name, view.state.get(name)]));
  const chosen = () => rows.findIndex((each) => String(each.row) === view.state.get("row") && String(each.step) === (view.state.get("at") || view.state.get("step") || String(steps.step)));

  async function show() {
    for (const [name, field] of Object.entries(fields)) if (document.activeElement !== field) field.value = view.state.get(name) || "";
    for (const [name, button] of Object.entries(flags)) {
      const value = view.state.get(name);
      button.textContent = value === "false" ? FLAGS[name][1] : FLAGS[name][0];
      button.setAttribute("aria-pressed", value ? "true" : "false");
      button.classList.toggle("not", value === "false");
    }
    scope.value = view.state.get("all") || "";
    sort.value = view.state.get("sort") || "";
    clear.hidden = ![...FIELDS, "all"].some((name) => view.state.has(name));
    const run = view.run();
    if (!run) return fill(list, notice("There are no runs yet.", "note"));
    await steps.load();
    if (view.name !== "rollouts") return;
    if (!steps.steps.length) {
      steps.draw(null);
      fill(summary);
      fill(panel);
      key = drawn = "";
      return fill(list, run.problems.map((text) => notice(text)), notice(`${run.name} has stored no rollouts; its curves are on the first page.`, "note"));
    }
    const step = view.state.has("step") ? nearest(steps.steps, Number(view.state.get("step"))) : steps.steps.at(-1);
    steps.draw(step);
    const now = JSON.stringify([run.name, run.rewritten, view.state.has("all") ? "all" : step, wanted()]);
    if (now !== key) {
      key = now;
      grouped = "";
      stop?.abort();
      stop = new AbortController();
      try {
        if (view.state.has("all")) await everywhere(run.name, stop.signal);
        else found = await get("rollouts", { run: run.name, step, ...wanted() }, stop.signal);
      } catch (error) {
        if (error.name === "AbortError") return;
        if (!(error instanceof Refused)) {
          key = "";
          throw error;
        }
        found = null;
        rows = [];
        drawn = "";
        fill(summary);
        fill(panel);
        return fill(list, notice(error.message));
      }
      if (view.name !== "rollouts") return;
    }
    draw();
  }

  /** All steps: the server answers in parts, so that what was found so far is on the screen. */
  async function everywhere(run, signal) {
    let first = 0;
    found = { rollouts: [], components: [], read: 0 };
    while (first !== null) {
      const part = await get("search", { run, first, ...wanted() }, signal);
      found = { rollouts: [...found.rollouts, ...part.rollouts], components: part.components.length ? part.components : found.components, read: found.read + part.steps_read, next: part.next };
      draw();
      if (found.rollouts.length >= 200) break;
      first = part.next;
    }
  }

  function draw() {
    if (!found) return;
    const by = view.state.get("sort");
    rows = by ? [...found.rollouts].sort((a, b) => (b[by] ?? -Infinity) - (a[by] ?? -Infinity)) : found.rollouts;
    drawSummary();
    const now = JSON.stringify([key, by, found.rollouts.length, found.read]);
    if (now === drawn) return mark();
    drawn = now;
    const some = rows.some((each) => each.recorded) && !rows.every((each) => each.recorded);
    const everywhere = view.state.has("all");
    const most = Math.max(1e-9, ...rows.map((each) => Math.abs(each.reward ?? 0)));
    const head = [
      everywhere ? ["step"] : null, ["group"], ["prompt", "prompt"], ["completion"], ["reward"],
      ...found.components.map((name) => [name, "component"]), ["advantage"], ["tokens"], [""],
    ].filter(Boolean);
    const body = rows.map((each, i) => {
      const same = !by && i && rows[i - 1].group === each.group && rows[i - 1].step === each.step;
      return h("tr", { class: same ? "same" : "first", data: { i }, onclick: () => choose(i) },
        everywhere ? h("td.number", {}, each.step) : null,
        h("td.number.group", {}, same ? "" : each.group),
        h("td.text.prompt", { title: each.question, dir: "auto" }, same ? "" : straight(each.question ?? "")),
        h("td.text.completion", { dir: "auto" }, straight(each.completion ?? "") || h("span.quiet", {}, "(empty)")),
        h("td.number", {}, meter(each.reward, most)),
        found.components.map((name) => h("td.number.component", {}, num(each.components[name]))),
        h("td.number", { class: each.advantage > 0 ? "up" : each.advantage < 0 ? "down" : "" }, each.advantage === null || each.advantage === undefined ? "–" : signed(each.advantage)),
        h("td.number", {}, num(each.length)),
        h("td.marks", {}, marks(each), some && each.recorded ? h("span.tag", { title: "the numbers of its tokens are recorded" }, "tok") : null),
      );
    });
    fill(list, rows.length
      ? h("table.rollouts", {}, h("thead", {}, h("tr", {}, head.map(([text, kind]) => h("th", { class: kind }, text)))), h("tbody", {}, body))
      : notice("No rollout is like that.", "note"));
    mark();
  }

  function drawSummary() {
    if (view.state.has("all")) {
      const done = found.next === null || found.next === undefined;
      const more = h("button", { type: "button", onclick: () => view.set({ all: null, step: found.next }) }, `look at step ${found.next}`);
      return fill(summary, `${found.rollouts.length} found in ${num(found.read)} of ${num(steps.steps.length)} steps`,
        done ? "" : found.rollouts.length >= 200 ? [". These are the first; ask for less to see the others, or ", more] : " … looking");
    }
    const parts = [
      found.rollouts.length === found.sampled ? `${num(found.sampled)} rollouts` : `${num(found.rollouts.length)} of ${num(found.sampled)} rollouts`,
      `${num(found.groups)} groups`, (found.reward ?? null) === null ? "no reward" : `reward ${num(found.reward)}`, `accuracy ${percent(found.accuracy)}`, `${num(found.length)} tokens each`,
    ];
    fill(summary, parts.join("  ·  "));
  }

  function choose(i) {
    const each = rows[i];
    if (!each) return;
    view.set({ row: each.row, at: view.state.has("all") ? each.step : null, step: view.state.has("all") ? view.state.get("step") : steps.step });
  }

  function mark() {
    let at = chosen();
    if (at < 0 && rows.length && !isNarrow()) at = 0;
    list.querySelectorAll("tr.chosen").forEach((row) => row.classList.remove("chosen"));
    const row = list.querySelectorAll("tbody tr")[at];
    if (!row) return fill(panel), panel.classList.remove("open");
    row.classList.add("chosen");
    if (view.state.has("row")) row.scrollIntoView({ block: "nearest" });
    panel.classList.toggle("open", view.state.has("row"));
    drawGroup(rows[at]);
  }

  async function drawGroup(chosen) {
    const run = view.run().name;
    if (chosen.group === null || chosen.group === undefined) return fill(panel, notice("The file does not say of which group this rollout is.", "note"));
    const now = JSON.stringify([run, chosen.step, chosen.group, key]);
    if (now !== grouped) {
      grouped = now;
      let group;
      try {
        group = await get("group", { run, step: chosen.step, group: chosen.group });
      } catch (error) {
        return fill(panel, notice(error.message));
      }
      if (now !== grouped || view.name !== "rollouts") return;
      const most = Math.max(1e-9, ...group.rollouts.map((each) => Math.abs(each.advantage ?? 0)));
      fill(panel,
        h("button.close", { type: "button", onclick: () => view.set({ row: null, at: null }) }, "‹ back to the list"),
        h("h2", {}, `group ${group.group}`, h("span.quiet", {}, ` of step ${group.step}  ·  ${group.rollouts.length} rollouts  ·  ${(group.mean ?? null) === null ? "no reward" : `reward ${num(group.mean)} ± ${num(group.std)}`}`)),
        h("pre.prompt", { dir: "auto" }, straight(group.prompt ?? "")),
        h("p", {}, h("a", { href: view.link("rollouts", { run, all: 1, prompt: group.prompt_id ?? group.prompt }) }, "this prompt in all steps")),
        h("div.cards", {}, group.rollouts.map((each) => rolloutCard(run, each, most, group.components))),
      );
    }
    panel.querySelectorAll(".card").forEach((card) => card.classList.toggle("chosen", card.dataset.row === String(chosen.row)));
  }

  function rolloutCard(run, each, most, components) {
    return h("article.card", { data: { row: each.row } },
      h("header", {}, h("a", { href: view.link("tokens", { run, step: each.step, row: each.row }) }, `rollout ${each.row}: its tokens`), h("span.marks", {}, marks(each))),
      h("dl", {},
        h("dt", {}, "reward"), h("dd", {}, h("b", {}, reward(each.reward))),
        components.filter((name) => components.length > 1 || each.components[name] !== each.reward).map((name) => [h("dt.part", {}, name), h("dd", {}, counted(each.components[name], each.raw?.[name]))]),
        h("dt", {}, "advantage"), h("dd", {}, each.advantage === null ? "–" : balance(each.advantage, most)),
        h("dt", {}, "tokens"), h("dd", {}, num(each.length)),
        each.turns ? [h("dt", {}, "turns"), h("dd", {}, num(each.turns))] : null,
        each.agent ? [h("dt", {}, "agent"), h("dd", {}, each.agent)] : null),
      each.error ? notice(each.error) : null,
      conversation(each.opening ?? [], each.said ?? []) ?? h("pre", { dir: "auto" }, straight(each.completion ?? "") || h("span.quiet", {}, "(empty)")),
    );
  }

  return {
    show,
    key(pressed) {
      if (pressed === "/") return fields.text.focus(), true;
      if (pressed === "h" || pressed === "l") return steps.move(pressed === "l" ? 1 : -1), true;
      if (pressed === "j" || pressed === "k") {
        const at = chosen();
        return choose(Math.min(rows.length - 1, Math.max(0, at + (pressed === "j" ? 1 : -1)))), true;
      }
      if (pressed === "Enter" && rows.length && !document.activeElement.closest("a, button, summary")) {
        const each = rows[Math.max(0, chosen())];
        return view.go(view.link("tokens", { run: view.run().name, step: each.step, row: each.row })), true;
      }
      return false;
    },
    close() {
      stop?.abort();
    },
  };
}

function marks(each) {
  const out = [];
  if (each.accuracy !== null && each.accuracy !== undefined) out.push(each.accuracy >= 0.5 ? h("span.right", { title: "correct" }, "✓") : h("span.wrong", { title: "wrong" }, "✗"));
  if (ENDS[each.end]) out.push(h(each.end === "failed" ? "span.tag.wrong" : "span.tag", { title: ENDS[each.end] }, each.end === "failed" ? "failed" : "cut"));
  else if (each.finished === false) out.push(h("span.tag", { title: "cut at the token limit" }, "cut"));
  if (each.trained === false) out.push(h("span.tag", { title: each.kept || "left out of the update" }, "out"));
  if (each.zero_signal) out.push(h("span.tag", { title: "all rewards of its group are equal" }, "="));
  return out;
}

function meter(value, most) {
  if (value === null || value === undefined) return reward(value);
  const bar = h("span.meter");
  bar.append(h("i", { style: { width: `${(100 * Math.abs(value ?? 0)) / most}%` }, class: value < 0 ? "down" : "" }));
  return [bar, num(value)];
}

/** A bar to the left or right of zero, and the number. */
function balance(value, most) {
  const part = (50 * Math.abs(value)) / most;
  const bar = h("span.balance");
  bar.append(h("i", { class: value < 0 ? "down" : "up", style: { width: `${part}%`, left: value < 0 ? `${50 - part}%` : "50%" } }));
  return [bar, signed(value)];
}
