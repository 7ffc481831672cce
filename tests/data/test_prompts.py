"""From rows to prompts: fields, templates, chat templates, lengths and identities."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.data.prompts import PromptSpec, fill, load_prompts, overlap, prompt_id, read_source
from cohort.errors import UsageError
from cohort.policies.causal_lm import CausalLM
from cohort.types import Prompt
from tests.helpers import tiny_policy


class Words:
    """A renderer whose tokens are words, and which shows its messages in brackets."""

    def __init__(self, context_length=None):
        self.context_length = context_length

    def prompt(self, source, system=None, tools=()):
        messages = [{"role": "user", "content": source}] if isinstance(source, str) else list(source)
        if system and not any(m["role"] == "system" for m in messages):
            messages = [{"role": "system", "content": system}, *messages]
        text = " ".join(f"[{m['role']}] {m['content']}" for m in messages)
        return text, tuple(len(word) for word in text.split())


def prompts_of(rows, *, policy=None, words=None, said=None, **spec):
    log = said.append if said is not None else lambda _: None
    renderer = policy.renderer if policy is not None else words or Words()
    return load_prompts(rows, renderer, PromptSpec(**spec), log=log)


# fields ------------------------------------------------------------------------------------------------------------


def test_a_prompt_carries_its_text_tokens_source_and_row():
    (prompt,) = prompts_of([{"prompt": "one two", "answer": "3", "level": 4}])
    assert prompt == Prompt(
        id=prompt_id("[user] one two"),
        text="[user] one two",
        tokens=(6, 3, 3),
        source="one two",
        row={"prompt": "one two", "answer": "3", "level": 4},
    )


def test_prompt_and_answer_fields_are_renamed_and_nothing_is_lost():
    row = {"task": "one", "gold": 1, "prompt": "another", "answer": "another too"}
    (prompt,) = prompts_of([row], prompt_field="task", answer_field="gold")
    assert prompt.source == "one"
    assert prompt.row == {"task": "one", "gold": 1, "prompt": "one", "answer": 1}
    assert row["prompt"] == "another"


def test_a_preset_is_used_and_said_unless_fields_are_named():
    rows, said = [{"question": "How many?", "answer": "I count.\n#### 2"}], []
    (prompt,) = prompts_of(rows, said=said)
    assert (prompt.source, prompt.row["answer"]) == ("How many?", "2")
    assert said == ["data: read as GSM8K"]
    (prompt,) = prompts_of(rows, said=said, prompt_field="question")
    assert (prompt.source, prompt.row["answer"]) == ("How many?", "I count.\n#### 2")
    assert len(said) == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"prompt_field": "text"}, r"data, row 2: there is no column 'text' \(--prompt-field\); it has prompt, more"),
        ({"answer_field": "text"}, r"data, row 2: there is no column 'text' \(--answer-field\)"),
        ({}, r"data, row 3: there is no column 'prompt' \(it has: more\); .*--prompt-field, .*--template"),
    ],
)
def test_a_missing_column_is_named_with_the_row_and_its_columns(spec, message):
    with pytest.raises(UsageError, match=message):
        read_source([{"text": "a", "prompt": "a"}, {"prompt": "b", "more": "c"}, {"more": "d"}], PromptSpec(**spec))


def test_a_file_is_named_with_the_line(tmp_path):
    path = tmp_path / "some.jsonl"
    path.write_text('{"prompt": "a"}\n{"text": "b"}\n')
    with pytest.raises(UsageError, match=rf"{re.escape(str(path))}, line 2: there is no column 'prompt'"):
        load_prompts(path, Words(), PromptSpec())


@pytest.mark.parametrize("value", [None, 3, [], ["text"], [{"role": "user"}], [{"content": "x"}], {"role": "user"}])
def test_a_prompt_that_is_neither_text_nor_messages_is_refused(value):
    with pytest.raises(UsageError, match="data, row 2: the prompt must be a text or a list of messages with role and"):
        prompts_of([{"prompt": "fine"}, {"prompt": value}])


# templates ---------------------------------------------------------------------------------------------------------

ROW = {
    "question": "1+1?",
    "metadata": {"expression": "1 + 1", "deep": {"er": [7, 8]}},
    "level": 3,
    "choices": ["a", "b"],
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{question}", "1+1?"),
        ("Q: {question} ({level})", "Q: 1+1? (3)"),
        ("{metadata[expression]} =", "1 + 1 ="),
        ("{metadata[deep][er][1]} {choices[0]}", "8 a"),
        (r"{question} Answer in \boxed{}.", r"1+1? Answer in \boxed{}."),
        (r"{question} \frac{1}{2} {unknown} {two words} {}", r"1+1? \frac{1}{2} {unknown} {two words} {}"),
        ('{question} as {"value": 1}', '1+1? as {"value": 1}'),
        ("{{question}}", "{1+1?}"),
    ],
)
def test_a_template_is_filled_with_fields_and_other_braces_stay(template, expected):
    assert fill(template, ROW) == expected
    (prompt,) = prompts_of([ROW], template=template)
    assert prompt.source == expected
    assert prompt.text == f"[user] {expected}"


def test_what_is_filled_in_is_not_filled_again():
    assert fill("{a}", {"a": "{b}", "b": "c"}) == "{b}"


@pytest.mark.parametrize("template", ["{metadata[nothing]}", "{choices[2]}", "{choices[x]}", "{level[0]}"])
def test_a_template_that_asks_for_what_a_row_lacks_is_refused(template):
    with pytest.raises(UsageError, match=rf"data, row 2: the template asks for {re.escape(template)}, which the row"):
        prompts_of([{"metadata": {"nothing": 1}, "choices": {"2": 1, "x": 2}, "level": [1]}, ROW], template=template)


def test_a_template_without_a_field_of_the_row_is_refused():
    with pytest.raises(UsageError, match=r"data, row 1: the template uses none of the row's fields \(question, .*levl"):
        prompts_of([ROW], template="Solve {levl}")


def test_a_template_may_stand_in_a_file(tmp_path):
    path = tmp_path / "template.txt"
    path.write_text("Löse: {question}", encoding="utf-8")
    (prompt,) = prompts_of([ROW], template=str(path))
    assert prompt.source == "Löse: 1+1?"


def test_a_template_in_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "template.bin"
    path.write_bytes(b"{question}\xff\xfe\x00")
    with pytest.raises(
        UsageError, match=r"--template: .*template.bin is no text in UTF-8 \(invalid start byte at byte 10\)"
    ):
        prompts_of([ROW], template=str(path))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (r"Q: {question}\nA:", "Q: 1+1?\nA:"),
        (r"{question}\n\n", "1+1?\n\n"),
        (r"{question} \nabla x \neq \nu \not\n2", "1+1? \\nabla x \\neq \\nu \\not\n2"),
        (r"{question}\\n", "1+1?\\\\n"),
        (r"{question} \boxed{} \t", r"1+1? \boxed{} \t"),
    ],
)
def test_a_new_line_can_be_typed(typed, meant, tmp_path):
    (prompt,) = prompts_of([ROW], template=typed)
    assert prompt.source == meant
    # A file says what it says.
    path = tmp_path / "template.txt"
    path.write_text(typed)
    (prompt,) = prompts_of([ROW], template=str(path))
    assert prompt.source == typed.replace("{question}", "1+1?")


def test_what_is_filled_in_keeps_its_backslashes():
    (prompt,) = prompts_of([{"question": r"a\nb"}], template=r"{question}\n")
    assert prompt.source == "a\\nb\n"


def test_a_long_template_is_a_text_and_no_file_name():
    (prompt,) = prompts_of([ROW], template="x" * 5000 + "{question}")
    assert prompt.source == "x" * 5000 + "1+1?"


# chat --------------------------------------------------------------------------------------------------------------


def test_a_row_that_names_none_of_several_environments_is_named():
    spec = PromptSpec(tools={"code": [], "game": []})
    load_prompts([{"prompt": "p", "environment": "game"}], Words(), spec)
    for row in ({"prompt": "p"}, {"prompt": "p", "environment": "gmae"}):
        with pytest.raises(UsageError, match="row 2: the column 'environment' names one of code, game, but holds"):
            load_prompts([{"prompt": "q", "environment": "code"}, row], Words(), spec)


def test_the_system_message_stands_before_every_prompt_that_has_none():
    own = [{"role": "system", "content": "own"}, {"role": "user", "content": "c"}]
    rows = [{"prompt": "a"}, {"prompt": [{"role": "user", "content": "b"}]}, {"prompt": own}]
    text, chat, with_own = prompts_of(rows, system="be brief")
    assert text.text == "[system] be brief [user] a"
    assert text.source == "a"
    assert chat.text == "[system] be brief [user] b"
    assert chat.source == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "b"}]
    assert with_own.text == "[system] own [user] c"
    assert with_own.source == own
    assert len(rows[1]["prompt"]) == 1


@pytest.fixture(scope="module")
def policy():
    return tiny_policy()


@pytest.fixture(scope="module")
def bare():
    """A policy whose tokenizer has no chat template."""
    made = tiny_policy()
    made.renderer.tokenizer.chat_template = None
    return made


def test_a_model_s_chat_template_is_used(policy):
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    text, turns = prompts_of([{"prompt": "a"}, {"prompt": chat}], policy=policy, system="s")
    assert text.text == "<|system|>s<|user|>a<|assistant|>"
    assert turns.text == "<|system|>s<|user|>a<|assistant|>b<|end|><|user|>c<|assistant|>"
    # The special tokens of the template are single tokens.
    assert len(text.tokens) == 5
    assert policy.renderer.decode(text.tokens) == "sa"


def test_a_message_that_is_no_text_is_named_with_its_row(policy, bare):
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]
    for made in (policy, bare):
        (prompt,) = prompts_of(
            [{"prompt": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}], policy=made
        )
        assert prompt.source == [{"role": "user", "content": "a"}]
        assert "a" in prompt.text
        with pytest.raises(UsageError, match=r"data, row 2: message 1 \(user\) has a part of type 'image_url'"):
            prompts_of([{"prompt": "a"}, {"prompt": image}], policy=made)
    with pytest.raises(
        UsageError, match=r"data, row 1: message 1 \(assistant\) calls tools, which only a chat template"
    ):
        prompts_of([{"prompt": [{"role": "assistant", "tool_calls": [{"name": "f"}]}]}], policy=bare)
    with pytest.raises(UsageError, match=r"data, row 1: the text has half of a surrogate pair \(U\+D800, character"):
        prompts_of([{"prompt": "a"}], policy=policy, system="\ud800")


def test_tools_that_a_template_does_not_show_are_mentioned(policy):
    said = []
    tools = [{"type": "function", "function": {"name": "add"}}]
    rows = [{"prompt": [{"role": "user", "content": "a"}], "tools": tools}, {"prompt": "b", "tools": tools}]
    first, second = prompts_of(rows, policy=policy, said=said)
    assert (first.tools, second.tools) == (tuple(tools), ())
    assert said == ["data: the model's chat template shows no tools: the column 'tools' is no part of the prompts"]


def test_a_model_without_a_chat_template_gets_plain_text(bare):
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    text, turns, system = (
        *prompts_of([{"prompt": "a+b="}, {"prompt": chat}], policy=bare),
        *prompts_of([{"prompt": "a"}], policy=bare, system="s"),
    )
    assert text.text == "a+b="
    assert bare.renderer.decode(text.tokens) == "a+b="
    assert turns.text == "a\n\nb"
    assert system.text == "s\n\na"


def test_an_empty_prompt_is_refused(bare):
    with pytest.raises(UsageError, match="data, row 2: the prompt is empty"):
        prompts_of([{"prompt": "a"}, {"prompt": ""}], policy=bare)


def test_bos_begins_a_prompt_once(policy, bare):
    def tokens(text, base, *, bos):
        made = CausalLM(base.model, base.renderer.tokenizer, bos=bos)
        (prompt,) = prompts_of([{"prompt": text}], policy=made)
        return prompt.tokens

    for base in (policy, bare):
        base.renderer.tokenizer.bos_token = "<|system|>"
        try:
            without, with_bos = tokens("a", base, bos=False), tokens("a", base, bos=True)
            assert with_bos == (base.renderer.tokenizer.bos_token_id, *without)
        finally:
            base.renderer.tokenizer.bos_token = None
    bare.renderer.tokenizer.bos_token = "<|system|>"
    try:
        assert tokens("<|system|>a", bare, bos=True) == tokens("<|system|>a", bare, bos=False)
    finally:
        bare.renderer.tokenizer.bos_token = None


def test_bos_without_such_a_token_is_refused(policy):
    with pytest.raises(UsageError, match="--bos: the tokenizer of some model has no beginning-of-sequence token"):
        CausalLM(policy.model, policy.renderer.tokenizer, bos=True, name="some model")


# lengths -----------------------------------------------------------------------------------------------------------


def test_a_prompt_that_leaves_no_room_is_refused_with_the_row_and_the_lengths():
    rows = [{"prompt": "short"}, {"prompt": "one two three four"}]
    assert len(prompts_of(rows, words=Words(context_length=8), max_new_tokens=3)) == 2
    with pytest.raises(UsageError) as error:
        prompts_of(rows, words=Words(context_length=8), max_new_tokens=4)
    assert str(error.value) == (
        "data, row 2: the prompt has 5 tokens, which with max_new_tokens=4 exceeds the model's context of 8: shorten "
        "it, or lower max_new_tokens to at most 3"
    )
    assert len(prompts_of(rows, words=Words(context_length=None), max_new_tokens=10**9)) == 2


# identity ----------------------------------------------------------------------------------------------------------


def test_repeated_prompts_are_left_out_with_a_note():
    said = []
    rows = [{"prompt": "a", "answer": 1}, {"prompt": "b"}, {"prompt": "a", "answer": 2}, {"prompt": "a"}]
    prompts = prompts_of(rows, said=said)
    assert [p.source for p in prompts] == ["a", "b"]
    assert prompts[0].row["answer"] == 1
    assert said == ["data: 2 of 4 rows repeat a prompt and were left out"]


def test_a_procedural_task_repeats_itself_without_a_note():
    said = []
    source = "reasoning_gym:chain_sum?size=300&min_terms=2&max_terms=2&min_digits=1&max_digits=1&seed=1"
    prompts = load_prompts(source, Words(), PromptSpec(template="{metadata[expression]}"), log=said.append)
    assert 1 < len(prompts) < 300
    assert said == []


def test_no_note_where_nothing_repeats():
    said = []
    prompts_of([{"prompt": "a"}, {"prompt": "b"}], said=said)
    assert said == []


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "a ", "b", "[user] a"]), st.sampled_from([None, "s"])), max_size=6))
def test_identities_are_equal_exactly_where_rendered_texts_are(pairs):
    prompts = [p for text, system in pairs for p in prompts_of([{"prompt": text}], system=system)]
    for one in prompts:
        for other in prompts:
            assert (one.id == other.id) == (one.text == other.text)


@settings(deadline=None)
@given(st.text(), st.text())
def test_prompt_ids_tell_texts_apart(one, other):
    assert (prompt_id(one) == prompt_id(other)) == (one == other)


def test_a_text_and_its_message_are_one_prompt_and_a_system_message_makes_another():
    chat = [{"role": "user", "content": "a"}]
    (prompt,) = prompts_of([{"prompt": "a"}, {"prompt": chat}])
    (with_system,) = prompts_of([{"prompt": chat}], system="s")
    assert prompt.id != with_system.id


def test_overlap_counts_prompts_that_stand_in_both():
    first = prompts_of([{"prompt": "a"}, {"prompt": "b"}, {"prompt": "c"}])
    second = prompts_of([{"prompt": "c"}, {"prompt": "a", "answer": 1}, {"prompt": "d"}])
    assert overlap(first, second) == overlap(second, first) == 2
    assert overlap(first, []) == 0


def test_a_source_that_was_read_gives_the_same_prompts(tmp_path):
    path = tmp_path / "some.jsonl"
    path.write_text("".join(json.dumps({"q": f"{i}", "a": i}) + "\n" for i in range(4)))
    spec = PromptSpec(prompt_field="q", answer_field="a")
    source = read_source(path, spec)
    assert source.where == str(path)
    assert load_prompts(source, Words(), spec) == load_prompts(str(path), Words(), spec)
