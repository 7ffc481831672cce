"""Conversations of several turns under the chat templates that models come with: what stands is what the template writes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.errors import UsageError
from cohort.policies.conversation import Conversation, History, messages_of
from cohort.policies.renderer import TextRenderer
from cohort.types import Context, Message, Prompt
from tests.families import FAMILIES, policy_of

TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look at a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}
CALLS = {
    "qwen3": '<tool_call>\n{"name": "look", "arguments": {"place": "Ems"}}\n</tool_call>',
    "llama3_1": '{"name": "look", "parameters": {"place": "Ems"}}',
    "mistral": '[TOOL_CALLS] [{"name": "look", "arguments": {"place": "Ems"}, "id": "call00000"}]',
}
Said = tuple[str, str | list[Message]]


class Played:
    """A conversation that was played: what each turn followed, and what stands there in the end."""

    def __init__(
        self,
        family: str,
        turns: Sequence[Said],
        *,
        system: str | None = None,
        tools: Sequence[Any] = (),
        history: History = "auto",
        source: str | list[Message] = "Hi there",
        guided: str | None = None,
    ) -> None:
        self.renderer: TextRenderer = policy_of(family).renderer
        self.renderer.told_rewriting = False
        self.end = self.renderer.encode(FAMILIES[family].end)
        text, tokens = self.renderer.prompt(*self.renderer.offer(source, system, tools))
        context = Context(tokens if guided is None else self.renderer.prompt(guided, system, tools)[1])
        prompt = Prompt("p", text, tokens, source)
        self.talk = Conversation(self.renderer, prompt, context, text, system, tools, history=history)
        self.actions: list[int] = []
        self.sampled: list[tuple[int, int]] = []
        self.heads = [tuple(context)]
        self.begun = [*messages_of(source)]
        if system:
            self.begun = [{"role": "system", "content": system}, *self.begun]
        self.forms: list[tuple[list[Message], list[Message]]] = []
        raw, read = list(self.begun), list(self.begun)
        self.tools, self.exact = tools, family != "mistral_v1"
        for said, answer in turns:
            drawn = (*self.renderer.encode(said), *self.end)
            start = len(self.actions)
            self.actions += drawn
            self.sampled.append((start, len(self.actions)))
            message = self.renderer.message(said, tools)
            self.talk.said(message, drawn)
            ids = self.talk.heard(answer, self.actions)
            self.actions += ids or ()
            self.heads.append(self.talk.context.before(self.actions))
            raw = [*raw, {"role": "assistant", "content": said}, *messages_of(answer)]
            read = [*read, message, *messages_of(answer)]
            self.forms.append((raw, read))

    @property
    def starts(self) -> list[int]:
        """The turn before which each later piece begins."""
        ends = [end for _, end in self.sampled]
        return [1 + ends.index(place) for place, _ in self.talk.context.rebuilt]

    def written(self, messages: Sequence[Message]) -> str | None:
        """What the chat template makes of messages; None if it refuses them."""
        try:
            return str(
                self.renderer.tokenizer.apply_chat_template(
                    list(messages), tools=list(self.tools) or None, tokenize=False, add_generation_prompt=True
                )
            )
        except Exception:
            return None

    def check(self) -> None:
        """Every turn follows what the template writes of the conversation."""
        stood = list(self.begun)
        for turn, (head, (raw, read)) in enumerate(zip(self.heads[1:], self.forms, strict=True), 1):
            new = len(self.forms[turn - 2][0]) if turn > 1 else len(self.begun)
            # What was sampled stands in its own words, or as they are read; a new piece has all turns as they are read.
            told = [read] if turn in self.starts else [stood + raw[new:], stood + read[new:]]
            written = [self.written(each) for each in told]
            text = self.renderer.whole(head)
            if self.exact:
                assert text in written
                stood = told[written.index(text)]
            if turn in self.starts:
                assert written[0] is not None
                assert head == self.renderer.encode(written[0], start=True, templated=True)
            else:
                # Token by token.
                start, end = self.sampled[turn - 1]
                before = (*self.heads[turn - 1], *self.actions[start:end])
                assert head[: len(before)] == before


texts = st.text(st.sampled_from("ab4 \n.,é😀"), max_size=8)
thoughts = st.sampled_from(["", "<think>\nhm\n</think>\n\n", "<think>hm", "hm</think>"])


def answered(family: str) -> st.SearchStrategy[Said]:
    """A turn with what is said to it: a user's words, or the result of a call."""
    words: st.SearchStrategy[Said] = st.tuples(st.builds(str.__add__, thoughts, texts), texts.map(lambda t: f"no {t}"))
    if family not in CALLS:
        return words
    calls = st.builds(
        lambda thought, spaced: thought + (CALLS[family].replace(": ", ":  ") if spaced else CALLS[family]),
        st.sampled_from(["", "<think>\nhm\n</think>\n\n"] if family == "qwen3" else [""]),
        st.booleans(),
    )
    results = texts.map(
        lambda t: [{"role": "tool", "name": "look", "tool_call_id": "call00000", "content": f"rain {t}"}]
    )
    return words | st.tuples(calls, results)


@settings(max_examples=15, deadline=None)
@given(
    data=st.data(),
    family=st.sampled_from(list(FAMILIES)),
    system=st.sampled_from([None, "be kind"]),
    history=st.sampled_from(["auto", "rebuild"]),
)
def test_every_turn_follows_what_the_template_writes(
    data: st.DataObject, family: str, system: str | None, history: History
) -> None:
    turns = data.draw(st.lists(answered(family), min_size=1, max_size=4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tools = [TOOL] if family in CALLS else []
        played = Played(family, turns, system=system, history=history, tools=tools)
    played.check()
    if history == "rebuild":
        assert played.starts == list(range(1, len(turns) + 1))


THOUGHT = "<think>\nhm\n</think>\n\n"
PLAIN_TURNS: list[Said] = [("four", "no"), ("five", "no, again"), ("six", "yes")]


@pytest.mark.parametrize(
    ("family", "turns", "system", "starts"),
    [
        # Nothing is rewritten: one piece.
        *[(family, PLAIN_TURNS, None, []) for family in ("qwen3", "llama3", "llama3_1", "gemma3")],
        *[
            (family, [(f" {said}", answer) for said, answer in PLAIN_TURNS], None, [])
            for family in ("mistral", "mistral_v1")
        ],
        # Qwen3 drops the thoughts that came before a user's message.
        ("qwen3", [(THOUGHT + "four", "no"), ("five", "no"), (THOUGHT + "six", "yes")], None, [1, 3]),
        # These trim what is said, so that a turn that ends with spaces is another one.
        ("llama3", [("four ", "no"), ("five", "no")], None, [1]),
        ("gemma3", [("four", "no"), (" five", "no"), ("six", "no")], "be kind", [2]),
        # Mistral puts the system message before the last of the user's, and a space before what is said.
        ("mistral", [(f" {said}", answer) for said, answer in PLAIN_TURNS], "be kind", [1, 2, 3]),
        ("mistral", [("four", "no"), (" five", "no")], None, [1]),
        ("hostile", PLAIN_TURNS, None, [1, 2, 3]),
    ],
)
def test_a_template_that_rewrites_begins_a_piece(
    family: str, turns: list[Said], system: str | None, starts: list[int]
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        played = Played(family, turns, system=system)
    assert played.starts == starts
    played.check()
    # It is told once.
    assert len([each for each in caught if "rewrites what was said" in str(each.message)]) == bool(starts)


@pytest.mark.parametrize("family", list(CALLS))
@pytest.mark.parametrize("spaced", [False, True])
def test_tool_calls_are_answered_where_they_stand(family: str, spaced: bool) -> None:
    """A call stands as it was sampled, also where it is written otherwise than the template would."""
    call = CALLS[family].replace(": ", ":  ") if spaced else CALLS[family]
    result = [{"role": "tool", "name": "look", "tool_call_id": "call00000", "content": "rain"}]
    played = Played(family, [(call, result)], tools=[TOOL], source="weather in Ems?")
    assert played.forms[0][1][-2]["tool_calls"][0]["function"]["name"] == "look"
    # Mistral's template takes a result behind a call alone, so that here the call is written again.
    rewritten = family == "mistral" and spaced
    assert played.starts == ([1] if rewritten else [])
    text = played.renderer.whole(played.heads[1])
    assert ("rain" in text, call in text) == (True, not rewritten)


def test_tools_that_are_told_of_in_words_rewrite_nothing() -> None:
    result = [{"role": "tool", "content": "rain"}, {"role": "tool", "content": "wind"}]
    call = '<call>look(place="Ems")</call>'
    played = Played("llama3", [(f"{call}\n{call}", result), ("It rains.", "thanks")], tools=[TOOL], system="be kind")
    assert played.starts == []
    text = played.renderer.whole(played.heads[2])
    assert text.count("Call a function by writing") == 1
    assert "<result>rain</result>\n<result>wind</result><|eot_id|>" in text
    # A new piece tells of them again, and has the calls.
    with pytest.warns(RuntimeWarning):
        played = Played("llama3", [(f"{call} ", result)], tools=[TOOL], system="be kind")
    assert played.starts == [1]
    text = played.renderer.whole(played.heads[1])
    assert (text.count("Call a function by writing"), text.count(call)) == (1, 1)


def test_thoughts_stay_between_calls_of_tools() -> None:
    """Qwen3 drops thoughts only before a user's message: calls and results stand behind them in one piece."""
    result = [{"role": "tool", "content": "rain"}]
    turns: list[Said] = [
        (THOUGHT + CALLS["qwen3"], result),
        (THOUGHT + CALLS["qwen3"], result),
        ("It rains.", "thanks"),
    ]
    with pytest.warns(RuntimeWarning, match="history=append"):
        played = Played("qwen3", turns, tools=[TOOL], source="weather in Ems?")
    played.check()
    assert played.starts == [3]
    assert played.renderer.whole(played.heads[2]).count("<think>") == 2
    assert played.renderer.whole(played.heads[3]).count("<think>") == 0


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "hostile"])
def test_what_was_sampled_is_appended_to_if_asked(family: str) -> None:
    turns: list[Said] = [(THOUGHT + " four ", "no"), ("five\n", "no")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        played = Played(family, turns, history="append")
    assert played.starts == []
    start, end = played.sampled[1]
    assert played.heads[2][: len(played.heads[0]) + end] == (*played.heads[0], *played.actions[:end])
    answer = played.renderer.whole(played.actions[end:])
    assert "no" in answer
    assert "four" not in answer
    assert start > played.sampled[0][1]


def test_a_broken_call_stays_in_what_is_written_again() -> None:
    broken = '<tool_call>\n{"name": "look", \n</tool_call>'
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        played = Played("qwen3", [(THOUGHT + broken, "that is no call")], tools=[TOOL])
    assert played.starts == [1]
    assert '{"name": "look",' in played.renderer.whole(played.heads[1])


def test_guidance_stays_in_a_context_that_is_written_again() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        played = Played("qwen3", [(THOUGHT + "four", "no"), ("five", "no")], guided="Hi there. Hint: say five.")
        assert played.starts == [1]
        assert all("Hint: say five." in played.renderer.whole(head) for head in played.heads)
        assert "hm" not in played.renderer.whole(played.heads[1])
    # Where the beginning is written anew, too, guidance would be lost: what was sampled stays.
    moved = Played("mistral", [(" four", "no"), (" five", "no")], system="be kind", guided="Hi there. Hint: say five.")
    assert moved.starts == []
    assert "Hint: say five." in moved.renderer.whole(moved.heads[-1])
    with pytest.raises(UsageError, match="without guidance"):
        Played("hostile", PLAIN_TURNS, guided="Hi there. Hint: say five.")


def test_tools_that_change_are_shown() -> None:
    other = json.loads(json.dumps(TOOL).replace("look", "listen"))
    played = Played("qwen3", [("four", "no")], tools=[TOOL])
    assert "listen" not in played.renderer.whole(played.heads[-1])
    played.talk.tools = [other]
    played.talk.said({"role": "assistant", "content": "five"}, [*played.renderer.encode("five"), *played.end])
    played.actions += [*played.renderer.encode("five"), *played.end]
    with pytest.warns(RuntimeWarning):
        assert played.talk.heard("no", played.actions) is None
    shown = played.renderer.whole(played.talk.context.before(played.actions))
    assert ("listen" in shown, "four" in shown, "five" in shown) == (True, True, True)


def test_a_conversation_begins_anew() -> None:
    played = Played("qwen3", [("four", "no")], system="be kind")
    grown = played.talk.grown
    drawn = [*played.renderer.encode("five"), *played.end]
    played.talk.said({"role": "assistant", "content": "five"}, drawn)
    played.actions += drawn
    assert played.talk.heard("another question", played.actions, fresh=True) is None
    head = played.talk.context.before(played.actions)
    assert head == played.renderer.prompt("another question", "be kind")[1]
    assert grown == played.talk.grown == 0
    # It goes on from there, with nothing of what was said before.
    played.talk.said({"role": "assistant", "content": "six"}, drawn)
    played.actions += drawn
    ids = played.talk.heard("no", played.actions)
    assert ids is not None
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "another question"},
        {"role": "assistant", "content": "five"},
        {"role": "user", "content": "no"},
    ]
    assert played.renderer.whole((*head, *drawn, *ids)) == played.written(messages)


@pytest.mark.parametrize("history", ["auto", "append", "rebuild"])
def test_a_turn_that_the_prompt_began_goes_on(history: History) -> None:
    source = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "It is"}]
    played = Played("llama3", [(" four", "no")], source=source, history=history)
    assert played.starts == ([1] if history == "rebuild" else [])
    assert "assistant<|end_header_id|>\n\nIt is four<|eot_id|><|start_header_id|>user" in played.renderer.whole(
        played.heads[1]
    )


def test_what_the_template_does_not_take_is_refused() -> None:
    with pytest.raises(UsageError, match="must alternate"):
        Played("gemma3", [("four", [{"role": "assistant", "content": "five"}, {"role": "user", "content": "no"}])])
    with pytest.raises(UsageError, match="history=rebuild"):
        Played("hostile", [("four", "no")], history="append")
