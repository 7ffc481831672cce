// Small things that every page needs. Texts of models go into text nodes alone, never into HTML.

/** An element: h("a.name", {href: "#"}, "text", child, ...). Handlers are given as onclick and the like. */
export function h(what, attributes = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const element = document.createElement(tag || "div");
  if (classes.length) element.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name in element && name !== "list" && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A number in as few digits as tell it: 0.731, 12.4, 1.2e-6, 165,901. */
export function num(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return Math.abs(value) < 1e4 ? String(value) : value.toLocaleString("en");
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(Math.max(0, digits - 1));
  const shown = Number(value.toPrecision(digits));
  return (size >= 1e4 ? Math.round(value).toLocaleString("en") : String(shown)).replace("-", "−");
}

/** A reward; rewards may abstain. */
/** What counts of a reward component, and what its function gave where gates and ranges made something else of it. */
export const counted = (value, raw) => (raw === null || raw === undefined || raw === value ? num(value) : `${num(value)} of ${num(raw)}`);
export const reward = (value) => (value === null || value === undefined ? h("span.quiet", {}, "no reward") : num(value));

// Characters that would turn the text after them around, and those that have no shape of their own.
const TURNS = /[\u202a-\u202e\u2066-\u2069]/g;
const NAMELESS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;
const UNSEEN = /^[\u00ad\u200b-\u200f\u2060-\u2064\ufe00-\ufe0f\ufeff]+$/;
const named = (character) => `⟨U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`;

/** A text without what would turn it, and what follows, around. */
export const straight = (text) => text.replace(TURNS, named);

/** A token's text, with what cannot be seen in it named. */
export function visible(piece) {
  const text = piece.replace(/\n/g, "⏎\n").replace(/\t/g, "⇥\t").replace(TURNS, named).replace(NAMELESS, named);
  return UNSEEN.test(text) ? [...text].map(named).join("") : text || "∅";
}

export const signed = (value, digits = 3) => (value > 0 ? "+" : "") + num(value, digits);
export const percent = (value) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(1)} %`);

export function ago(seconds) {
  if (seconds < 60) return "just now";
  for (const [unit, size] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    const count = Math.floor(seconds / size);
    if (count) return `${count} ${unit}${count > 1 ? "s" : ""} ago`;
  }
}

/** The last call of several within a time is made. */
export function later(call, wait = 250) {
  let timer;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...values), wait);
  };
}

/** A sentence whose `names` stand in backticks. */
export const prose = (text) => text.split("`").map((part, i) => (i % 2 ? h("code", {}, part) : part));

export function notice(text, kind = "warning") {
  return h(`p.notice.${kind}`, {}, typeof text === "string" ? prose(text) : text);
}

/** Put children in, keeping the element. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const isNarrow = () => matchMedia("(max-width: 820px)").matches;
