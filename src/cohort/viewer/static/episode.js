// An episode as its turns: what the policy said and called, what was answered, and what each turn was worth.

import { h, num, signed, straight } from "./dom.js";

/** Why an episode ended, in words; nothing of one that ended by itself. */
export const ENDS = {
  turns: "out of turns", tokens: "out of tokens", seconds: "out of time", failed: "its environment failed", unparseable: "not understood",
};

/** A long text is folded: of the longest answers the beginning says what they are. */
const LONG = 1200;

function body(text) {
  if (text.length <= LONG) return h("pre", { dir: "auto" }, straight(text));
  return h("details.long", {}, h("summary", {}, straight(text.slice(0, 160)), h("span.quiet", {}, ` … ${num(text.length)} characters`)), h("pre", { dir: "auto" }, straight(text)));
}

function message(said) {
  const who = said.role === "assistant" ? "policy" : said.role || "?";
  return h(`div.message.${/^[a-z]+$/.test(said.role) ? said.role : "other"}`, {},
    h("span.role", {}, who, said.name ? ` ${said.name}` : "", said.failed ? h("span.wrong", {}, " failed") : null),
    said.text ? body(said.text) : null,
    said.calls.map((call) => h("div.call", {}, h("code", {}, h("b", {}, call.name || "?"), "(", straight(call.arguments), ")"))),
    said.errors.map((error) => h("div.call.wrong", {}, straight(error))),
  );
}

/** What stands above a turn: its number, and its reward where there is one. */
export function heading(turn, number) {
  return [h("b", {}, `turn ${number}`), turn.reward === null ? null : h("span", { class: turn.reward > 0 ? "up" : turn.reward < 0 ? "down" : "quiet" }, ` reward ${signed(turn.reward)}`)];
}

/** What the policy saw in place of the conversation so far; nothing where it saw that. */
export function rebuilt(turn) {
  return turn.context === null ? null : h("details.context", {}, h("summary", {}, "from here on it saw this in place of all before"), h("pre", { dir: "auto" }, straight(turn.context)));
}

/** The turns of an episode, one under the other; null of a rollout that nothing answered. */
export function conversation(opening, turns) {
  if (turns.length < 2 && !opening.length && !turns.some((turn) => turn.messages.length > 1 || turn.messages.some((each) => each.calls.length))) return null;
  return h("div.episode", {},
    opening.map(message),
    turns.map((turn, i) => h("section.turn", {}, h("header", {}, heading(turn, i + 1)), rebuilt(turn), turn.messages.map(message))),
  );
}
