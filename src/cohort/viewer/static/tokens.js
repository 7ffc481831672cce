// A rollout, every token coloured by what the user chooses, and all the numbers of the one that was clicked.

import { get, Refused } from "./api.js";
import { base, colour, isDark } from "./colours.js";
import { counted, fill, h, notice, num, prose, reward, signed, straight, visible } from "./dom.js";
import { conversation, ENDS, heading, rebuilt } from "./episode.js";
import { nearest, stepper } from "./stepper.js";

export function tokens(view, root) {
  let found = null;
  let key = "";
  let explained = "";

  const steps = stepper(view, {
    choose: (run) => view.set({ run, step: null, row: null, token: null }, { push: true }),
    to: (step) => view.set({ step, token: null }),
  });
  const facts = h("p.summary");
  const notices = h("div");
  const prompt = h("pre.prompt", { dir: "auto" });
  const talk = h("div");
  const picker = h("div.picker", { role: "radiogroup", "aria-label": "colour by" });
  const legend = h("div.legend");
  const strip = h("canvas.strip", { height: 44, title: "the values along the rollout; click to go there" });
  const text = h("div.tokens", { tabIndex: 0, "aria-label": "tokens", dir: "auto" });
  const whole = h("pre.prompt.whole");
  const panel = h("aside.panel.about");
  root.append(
    h("section.tools.sticky", {}, steps.element, facts, picker),
    notices,
    h("div.split.wide", {}, h("div", {}, h("details.prompt", { open: true }, h("summary", {}, "prompt"), prompt), talk, legend, strip, whole, text), panel),
  );

  const columns = () => found?.columns ?? {};
  const colourings = () => found?.colourings ?? [];
  const by = () => colourings().find((each) => each.name === view.state.get("by")) || colourings()[0];
  const current = () => (view.state.has("token") ? Number(view.state.get("token")) : null);

  async function show() {
    const run = view.run();
    if (!run) return fill(text, notice("There are no runs yet.", "note"));
    await steps.load();
    if (view.name !== "tokens") return;
    if (!steps.steps.length) {
      steps.draw(null);
      return refuse(`${run.name} has stored no rollouts; its curves are on the first page.`);
    }
    const step = view.state.has("step") ? nearest(steps.steps, Number(view.state.get("step"))) : steps.steps.at(-1);
    steps.draw(step);
    if (!view.state.has("row")) {
      // The first that has something to show: by default the tokens of some groups alone are recorded.
      const all = await get("rollouts", { run: run.name, step }).catch((error) => {
        if (!(error instanceof Refused)) throw error;
        return refuse(error.message);
      });
      if (view.name !== "tokens" || !all) return;
      return view.set({ step, row: (all.rollouts.find((each) => each.recorded) ?? { row: 0 }).row });
    }
    const row = Number(view.state.get("row")) || 0;
    const now = JSON.stringify([run.name, run.rewritten, step, row]);
    if (now !== key) {
      key = now;
      explained = "";
      // The first one waits for the tokenizer.
      const waiting = setTimeout(() => now === key && !found && fill(text, h("span.quiet", {}, "reading …")), 200);
      try {
        const answer = await get("tokens", { run: run.name, step, row });
        if (now !== key || view.name !== "tokens") return;
        found = answer;
      } catch (error) {
        if (!(error instanceof Refused)) {
          key = "";
          throw error;
        }
        return refuse(error.message);
      } finally {
        clearTimeout(waiting);
      }
      drawRollout(run.name);
    }
    paint();
  }

  function refuse(message) {
    found = null;
    key = "";
    for (const place of [facts, picker, legend, text, panel, prompt, talk]) fill(place);
    strip.hidden = true;
    fill(notices, notice(message, "note"));
  }

  function drawRollout(run) {
    const own = found.rollout;
    const group = view.link("rollouts", { run, step: found.step, row: found.index });
    const parts = Object.entries(own.components).filter(([, value], _, all) => all.length > 1 || value !== own.reward);
    const advantage = own.advantage_mean;
    fill(
      facts,
      h("a", { href: group }, `group ${own.group}`), `, rollout ${found.index}  ·  `, (own.reward ?? null) === null ? reward(null) : ["reward ", h("b", {}, num(own.reward))],
      parts.map(([name, value]) => ` (${name} ${counted(value, own[`raw/${name}`])})`),
      found.group.mean === null || found.group.mean === undefined ? "" : `  ·  group ${num(found.group.mean)} ± ${num(found.group.std)}`,
      own.accuracy === null || own.accuracy === undefined ? "" : ["  ·  ", own.accuracy >= 0.5 ? h("span.right", {}, "✓ correct") : h("span.wrong", {}, "✗ wrong")],
      advantage === null || advantage === undefined ? "" : `  ·  advantage ${signed(advantage)}`,
      `  ·  ${num(own.length ?? found.pieces.length)} tokens`,
      drawnBy(columns()),
      own.agent ? `  ·  agent ${own.agent}` : "",
      found.turns.length > 1 ? `  ·  ${found.turns.length} turns` : "",
      ENDS[own.end] ? `  ·  ${ENDS[own.end]}` : own.finished === false ? "  ·  cut at the token limit" : "",
      own.trained === false ? `  ·  left out of the update${own.kept ? ` (${own.kept})` : ""}` : "",
    );
    const others = found.recorded.filter((row) => row !== found.index).slice(0, 8);
    const links = others.map((row) => [" ", h("a", { href: view.link("tokens", { run, step: found.step, row, by: view.state.get("by") }) }, String(row))]);
    fill(notices, found.note ? notice([prose(found.note), others.length ? [" Rollouts of this step that have them:", links] : null], "note") : null);
    fill(prompt, straight(own.prompt ?? ""));
    const told = conversation(found.opening, found.turns);
    fill(talk, told ? h("details.prompt", {}, h("summary", {}, "the episode, turn by turn"), told) : null);
    // Without the texts of tokens there are their numbers, under the whole text.
    const ids = found.pieces.length && found.pieces.every((piece) => /^<\d+>$/.test(piece));
    fill(whole, ids ? straight(own.completion ?? "") : "");
    whole.hidden = !ids;
    fill(picker, colourings().map((each) =>
      h("button", { type: "button", role: "radio", title: each.about, data: { by: each.name }, onclick: () => view.set({ by: each.name }) }, each.label)));
    if (!found.pieces.length) return fill(text, own.completion || h("span.quiet", {}, "The completion is empty: it has no tokens."));
    const shown = document.createDocumentFragment();
    const turns = found.turns.length > 1 ? new Map(found.turns.map((turn, i) => [turn.start, [turn, i + 1]])) : new Map();
    found.pieces.forEach((piece, i) => {
      if (turns.has(i)) shown.append(h("div.turn", {}, heading(...turns.get(i)), rebuilt(turns.get(i)[0])));
      const element = h("span.token", { data: { i } }, visible(piece));
      if (columns().mask && !columns().mask[i]) element.classList.add("masked");
      shown.append(element);
    });
    text.replaceChildren(shown);
  }

  function paint() {
    if (!found) return;
    const scale = by();
    picker.querySelectorAll("button").forEach((button) => button.setAttribute("aria-checked", String(button.dataset.by === scale?.name)));
    const checked = picker.querySelector("[aria-checked=true]");
    if (checked) picker.scrollLeft = checked.offsetLeft - picker.offsetLeft - picker.clientWidth / 2;
    const values = scale ? columns()[scale.name] : [];
    const at = current();
    text.querySelectorAll(".token").forEach((element, i) => {
      const value = values[i] ?? null;
      element.style.backgroundColor = scale ? colour(value, scale) : "";
      element.classList.toggle("missing", Boolean(scale) && value === null);
      element.classList.toggle("marked", scale?.kind === "binary" && Boolean(value));
      element.classList.toggle("chosen", i === at);
      element.title = scale ? `${scale.label} ${num(value)}` : "";
    });
    drawLegend(scale, values);
    drawStrip(scale, values, at);
    drawToken(at);
  }

  function drawLegend(scale, values) {
    const asked = view.state.get("by");
    const lacks = asked && scale?.name !== asked ? h("span.lacks", {}, "no token of this rollout has a value of ", h("code", {}, asked), scale ? "; instead:" : "") : null;
    if (!scale) return fill(legend, lacks, found.pieces.length && !lacks ? h("span.quiet", {}, "no numbers of these tokens were recorded") : null);
    const known = values.filter((value) => value !== null && value !== undefined);
    const about = h("span.quiet", {}, [scale.unit, scale.about].filter(Boolean).join("; "));
    if (scale.kind === "binary") {
      const box = (value) => {
        const swatch = h(`span.box${value ? ".marked" : ""}`);
        swatch.style.backgroundColor = colour(value, scale);
        return h("span", {}, swatch, `${value} (${num(known.filter((each) => Boolean(each) === Boolean(value)).length)} tokens)`);
      };
      return fill(legend, lacks, h("b", {}, scale.label), box(1), box(0), about);
    }
    // A scale needs two numbers: of one alone its ends would be made up.
    if (known.every((value) => value === known[0]))
      return fill(legend, lacks, h("b", {}, scale.label), h("span", {}, `${num(known[0])} for ${known.length === values.length ? "every token" : `${num(known.length)} of ${num(values.length)} tokens, none for the others`}`), about);
    const ramp = h("span.ramp");
    for (let i = 0; i < 41; i++) {
      const cell = h("i");
      cell.style.backgroundColor = colour(scale.low + ((scale.high - scale.low) * i) / 40, scale);
      ramp.append(cell);
    }
    const middle = num(scale.kind === "diverging" ? scale.center : (scale.low + scale.high) / 2);
    fill(legend, lacks, h("b", {}, scale.label), h("span.scale", {}, ramp, h("span.ticks", {}, h("span", {}, num(scale.low)), h("span", {}, middle), h("span", {}, num(scale.high)))),
      about);
  }

  /** The values along the rollout: a long one has its odd places found here. */
  function drawStrip(scale, values, at) {
    strip.hidden = !scale || values.length < 2;
    if (strip.hidden) return;
    const width = strip.clientWidth;
    const height = 44;
    const ratio = devicePixelRatio || 1;
    strip.width = width * ratio;
    strip.height = height * ratio;
    const pen = strip.getContext("2d");
    pen.scale(ratio, ratio);
    pen.clearRect(0, 0, width, height);
    const [low, high] = scale.kind === "binary" ? [0, 1] : [scale.low, scale.high];
    const from = scale.kind === "binary" ? 0 : base(scale);
    const y = (value) => height - 2 - ((Math.min(high, Math.max(low, value)) - low) / (high - low || 1)) * (height - 4);
    const each = Math.min(24, width / values.length);
    values.forEach((value, i) => {
      if (value === null) return;
      pen.fillStyle = colour(value, scale) || "transparent";
      const top = Math.min(y(value), y(from));
      pen.fillRect(i * each, top, Math.max(1, each - (each > 3 ? 1 : 0)), Math.max(1, Math.abs(y(value) - y(from))));
    });
    pen.fillStyle = isDark() ? "#ffffff50" : "#00000040";
    pen.fillRect(0, y(from) - 0.5, width, 1);
    if (at !== null) {
      pen.strokeStyle = isDark() ? "#fff" : "#000";
      pen.strokeRect(at * each - 0.5, 0.5, Math.max(2, each), height - 1);
    }
  }

  async function drawToken(at) {
    panel.classList.toggle("open", at !== null);
    if (at === null || at >= found.pieces.length) {
      explained = "";
      return fill(panel, h("p.quiet", {}, found.pieces.length ? "Click a token, or press n, for all its numbers." : ""));
    }
    const run = view.run().name;
    const now = JSON.stringify([key, at]);
    if (now === explained) return;
    explained = now;
    const place = h("div", {}, h("p.quiet", {}, "…"));
    fill(panel,
      h("button.close", { type: "button", onclick: () => view.set({ token: null }) }, "‹ close"),
      h("h2", {}, h("code.piece", {}, visible(found.pieces[at])), h("span.quiet", {}, ` token ${at + 1} of ${found.pieces.length}`)),
      place);
    text.querySelectorAll(".token")[at]?.scrollIntoView({ block: "nearest" });
    let answer;
    try {
      answer = await get("token", { run, step: found.step, row: found.index, token: at });
    } catch (error) {
      return fill(place, notice(error.message));
    }
    if (now !== explained || view.name !== "tokens") return;
    fill(place,
      h("table.numbers", {}, h("tbody", {}, answer.numbers.map((each) =>
        h("tr", { class: each.name === by()?.name ? "chosen" : "", title: each.about, data: { name: each.name } }, h("th", {}, each.label), h("td", {}, num(each.value, 5)), h("td.quiet", {}, each.unit))))),
      answer.lines.length ? h("h3", {}, "what made them so") : null,
      h("ol.axes", {}, answer.lines.map(inParts)),
    );
  }

  text.onclick = (event) => {
    const token = event.target.closest(".token");
    if (token) view.set({ token: Number(token.dataset.i) });
  };
  strip.onclick = (event) => {
    const at = Math.floor(event.offsetX / Math.min(24, strip.clientWidth / found.pieces.length));
    view.set({ token: Math.min(found.pieces.length - 1, Math.max(0, at)) });
  };
  const resize = () => found && paint();
  addEventListener("resize", resize);

  return {
    show,
    recolour: () => found && paint(),
    key(pressed, event) {
      if (pressed === "h" || pressed === "l") return steps.move(pressed === "l" ? 1 : -1), true;
      if (!found) return false;
      if (pressed === "j" || pressed === "k") {
        const row = found.index + (pressed === "j" ? 1 : -1);
        if (row >= 0 && row < found.sampled) view.set({ row, token: null });
        return true;
      }
      if (pressed === "n" || pressed === "p") {
        const last = found.pieces.length - 1;
        const at = current() ?? (pressed === "n" ? -1 : last + 1);
        return view.set({ token: Math.min(last, Math.max(0, at + (pressed === "n" ? 1 : -1))) }), true;
      }
      if (pressed === "c" || pressed === "C") {
        const list = colourings();
        const next = list[(list.indexOf(by()) + (pressed === "c" ? 1 : list.length - 1)) % list.length];
        if (next) view.set({ by: next.name });
        return true;
      }
      if (pressed === "g") return view.go(view.link("rollouts", { run: view.run().name, step: found.step, row: found.index })), true;
      return false;
    },
    close() {
      removeEventListener("resize", resize);
    },
  };
}

/** Which weights drew it, where these were not the step's own. */
function drawnBy({ version = [], age = [] }) {
  const oldest = Math.max(0, ...age);
  if (!oldest) return "";
  const versions = version.filter((value) => value !== undefined && value !== null);
  const [low, high] = [Math.min(...versions), Math.max(...versions)];
  return `  ·  drawn by version ${low === high ? low : `${low} to ${high}`} of the weights, up to ${oldest} update${oldest > 1 ? "s" : ""} before the step's`;
}

/** "axis [who fills it]: what it did", in parts; other lines as they are. */
function inParts(line) {
  const [, axis, filled, what] = line.match(/^([a-z]+) \[(.*)\]: (.*)$/s) || [];
  return axis ? h("li", {}, h("b", {}, axis), " ", what, h("div.quiet", {}, filled)) : h("li", {}, line);
}
