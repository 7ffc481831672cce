// The pages, the state in the address, the keys, and what is read again while runs go on.

import { get, Lost, Refused } from "./api.js";
import { fill, h, notice } from "./dom.js";
import { overview } from "./overview.js";
import { rollouts } from "./rollouts.js";
import { tokens } from "./tokens.js";

const EVERY = 2000;
const PAGES = { overview, rollouts, tokens };
const KEYS = [
  ["1  2  3", "overview, rollouts, tokens"],
  ["j  k", "next, previous rollout"],
  ["h  l", "previous, next step"],
  ["n  p", "next, previous token"],
  ["c  C", "next, previous colouring"],
  ["Enter", "the tokens of the chosen rollout"],
  ["g", "the rollouts of the token page's step"],
  ["/", "search"],
  ["Esc", "leave a field; close this"],
  ["?", "this help"],
];

const $ = (id) => document.getElementById(id);

/** What pages share: the runs as they stand, and moving about. */
const view = {
  runs: [],
  page: null,
  name: "",
  state: new URLSearchParams(),

  /** The run that a page of one run shows. */
  run() {
    return this.runs.find((each) => each.name === this.state.get("run")) || this.runs[0];
  },

  /** The address of a page with a state. */
  link(name, state) {
    const query = new URLSearchParams();
    for (const [key, value] of Object.entries(state))
      for (const each of Array.isArray(value) ? value : [value])
        if (each !== null && each !== undefined && each !== "" && each !== false) query.append(key, each);
    const text = query.toString();
    return `#/${name}${text ? `?${text}` : ""}`;
  },

  /** Change parts of the state; null takes one away. Typing and moving replace the entry in the history. */
  set(changes, { push = false } = {}) {
    const state = new URLSearchParams(this.state);
    for (const [key, value] of Object.entries(changes)) {
      state.delete(key);
      for (const each of Array.isArray(value) ? value : [value])
        if (each !== null && each !== undefined && each !== "" && each !== false) state.append(key, each);
    }
    const text = state.toString();
    this.go(`#/${this.name}${text ? `?${text}` : ""}`, { push });
  },

  go(address, { push = true } = {}) {
    if (address === location.hash) return;
    history[push ? "pushState" : "replaceState"](null, "", address);
    route();
  },
};

/** "#/run/NAME/metric/M" and "#/run/NAME/step/N", as the doctor writes them, are short for a page and a state. */
function expand(hash) {
  const [, kind, name, what, ...rest] = hash.replace(/^#/, "").split("/").map(decodeURIComponent);
  if (kind !== "run") return hash;
  const found = view.runs.find((run) => run.name === name || run.folder.endsWith(`/${name}`));
  const run = found ? found.name : name;
  if (what === "step") return view.link("rollouts", { run, step: rest[0] });
  return view.link("overview", { run, metric: rest.join("/") });
}

function route() {
  const [path, query] = expand(location.hash || "#/overview").replace(/^#\/?/, "").split("?");
  const name = path in PAGES ? path : "overview";
  view.state = new URLSearchParams(query || "");
  const missing = view.state.getAll("run").filter((run) => !view.runs.some((each) => each.name === run));
  if (name !== view.name) {
    view.page?.close?.();
    view.name = name;
    fill($("page"));
    view.page = PAGES[name](view, $("page"));
    window.scrollTo(0, 0);
  }
  drawTabs();
  document.title = `${name === "overview" ? "" : `${view.run()?.name ?? ""} · `}${name} · cohort view`;
  if (missing.length) {
    const there = view.runs.map((each) => each.name).join(", ") || "none";
    say(`There is no run ${missing.join(", ")} here. Shown are: ${there}.`);
  } else if (!lost) say("");
  draw(view.page.show);
}

/** Pages that ask a server that is gone keep what they show, and are drawn anew when it is back. */
async function draw(page) {
  try {
    await page();
  } catch (error) {
    if (error instanceof Lost) nobody();
    else if (error instanceof Refused) say(error.message);
    else if (error.name !== "AbortError") throw error;
  }
}

function nobody() {
  lost = true;
  signature = "";
  say("The viewer's server does not answer. Shown is what was read before; it goes on when `cohort view` runs again.");
}

function drawTabs() {
  const run = view.run()?.name;
  const step = view.state.get("step");
  const to = {
    overview: view.link("overview", { run: view.name === "overview" ? view.state.getAll("run") : null }),
    rollouts: view.link("rollouts", { run, step }),
    tokens: view.link("tokens", { run, step, row: view.state.get("row") }),
  };
  fill(
    $("tabs"),
    Object.keys(PAGES).map((name) =>
      h("a", { href: to[name], "aria-current": name === view.name ? "page" : null }, name),
    ),
  );
}

function say(text) {
  $("banner").hidden = !text;
  fill($("banner"), text ? notice(text) : null);
}

let lost = false;
let signature = "";

async function look() {
  try {
    view.runs = await get("runs");
    if (lost) say("");
    lost = false;
  } catch (error) {
    if (error instanceof Lost) nobody();
    else say(error.message);
    return false;
  }
  const going = view.runs.filter((run) => run.state === "running").length;
  $("pulse").className = going ? "going" : "";
  $("pulse").textContent = going ? `${going} running` : "";
  const now = JSON.stringify(view.runs.map((run) => [run.name, run.step, run.rewritten, run.state, run.problems]));
  const changed = now !== signature;
  signature = now;
  return changed;
}

async function follow() {
  try {
    if (!document.hidden && (await look()) && view.page) {
      drawTabs();
      await draw(view.page.show);
    }
  } finally {
    setTimeout(follow, EVERY);
  }
}

const THEMES = { "": "◐", light: "☀", dark: "☾" };

function drawTheme() {
  const chosen = document.documentElement.dataset.theme || "";
  $("theme").textContent = THEMES[chosen];
  $("theme").setAttribute("aria-label", `colours: ${chosen || "as the system says"}`);
}

$("theme").onclick = () => {
  const order = Object.keys(THEMES);
  const next = order[(order.indexOf(document.documentElement.dataset.theme || "") + 1) % order.length];
  if (next) document.documentElement.dataset.theme = next;
  else delete document.documentElement.dataset.theme;
  localStorage.setItem("cohort-theme", next);
  drawTheme();
  view.page?.recolour?.();
};
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => view.page?.recolour?.());

function showKeys() {
  if ($("keys").open) return $("keys").close();
  fill(
    $("keys"),
    h("h2", {}, "keys"),
    h("dl", {}, KEYS.map(([keys, what]) => [h("dt", {}, keys.split("  ").map((key) => h("kbd", {}, key))), h("dd", {}, what)])),
    h("form", { method: "dialog" }, h("button", {}, "close")),
  );
  $("keys").showModal();
}
$("help").onclick = showKeys;

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const field = event.target.closest?.("input, select, textarea");
  if (field && event.key === "Escape") return field.blur();
  if (field && !(field.type === "checkbox" || field.type === "range" || field.type === "button")) return;
  if ($("keys").open && event.key !== "?") return;
  const key = event.key;
  if (key === "?") showKeys();
  else if (key in { 1: 0, 2: 0, 3: 0 }) view.go($("tabs").children[Number(key) - 1].getAttribute("href"));
  else if (!view.page?.key?.(key, event)) return;
  event.preventDefault();
});

addEventListener("popstate", route);
drawTheme();
await look();
route();
setTimeout(follow, EVERY);
