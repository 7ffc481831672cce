"""Chat templates: what they refuse or leave out is said, and what they put around turns is found."""

from __future__ import annotations

from typing import Any

import pytest

from cohort.errors import UsageError
from cohort.policies.template import between, render_chat, takes_system, turn_of
from tests.model_folders import CHATML, GEMMA, tokenizer_of

USER, SYSTEM = {"role": "user", "content": "1 + 1?"}, {"role": "system", "content": "Be brief."}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
# Knows two roles, and says nothing of others.
SILENT = (
    "{% for m in messages %}{% if m['role'] == 'user' %}U: {{ m['content'] }}\n{% elif m['role'] == 'assistant' %}"
    "A: {{ m['content'] }}\n{% endif %}{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
)
LAST_ONLY = "{{ messages[-1]['content'] }}"
CALLING = (
    "{% for t in tools or [] %}[{{ t['function']['name'] }}]{% endfor %}{% for m in messages %}{{ m['content'] }}"
    "{% for c in m['tool_calls'] or [] %}<{{ c['function']['name'] }}>{% endfor %}{% endfor %}"
)


def rendered(template: Any, messages: list[dict[str, Any]], tools: Any = ()) -> str:
    return render_chat(tokenizer_of(template=template), messages, tools, "some model")


@pytest.mark.parametrize(
    ("template", "messages", "said"),
    [
        (
            GEMMA,
            [SYSTEM, USER],
            r"some model does not take these messages \(TemplateError: 'System role not .* no system role",
        ),
        (GEMMA, [USER, USER], r"TemplateError: 'Conversation roles must alternate .*; the roles are user, user"),
        (
            SILENT,
            [SYSTEM, USER],
            r"leaves out message 1 \(system\): it has no system role; put the text into --template",
        ),
        (
            SILENT,
            [USER, {"role": "critic", "content": "1"}],
            r"leaves out message 2 \(critic\): it does not know the role",
        ),
        (
            LAST_ONLY,
            [USER, {"role": "assistant", "content": "2"}, {"role": "user", "content": "so?"}],
            r"leaves out message 1",
        ),
        ("{% for %}", [USER], r"the chat template of some model is malformed \(line 1: .*prompt_format=text"),
        (
            "{{ messages[0]['content'] | upper }}{{ 1 / 0 }}",
            [USER],
            r"does not take these messages \(ZeroDivisionError",
        ),
        (
            "{{ raise_exception(1) }}",
            [USER],
            r"does not take these messages \(TemplateError: '1'\); the roles are user",
        ),
        ("{{ messages[0]['content'] + 1 }}", [USER], r"\(TypeError: "),
        ({"other": CHATML}, [USER], r"does not take these messages \(ValueError"),
        (
            CALLING,
            [{"role": "assistant", "content": "", "tool_calls": TOOLS}],
            r"message 1, the last one, .* calls tools",
        ),
        (CHATML, [{"role": "assistant", "content": " "}], r"the only message is the assistant's, and empty"),
    ],
)
def test_what_a_template_does_not_write_is_refused(template: Any, messages: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        rendered(template, messages)
    assert len(str(error.value)) < 600


def test_what_it_writes_otherwise_is_not() -> None:
    assert (
        rendered("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}", [{"role": "tool", "content": "ab"}])
        == "AB"
    )
    thought = {"role": "assistant", "content": "<think>long</think>short"}
    cut = "{% for m in messages %}{{ m['role'] }}: {{ m['content'].split('</think>')[-1] }}\n{% endfor %}"
    assert "long" not in rendered(cut, [USER, thought, USER])


def test_tools_are_given_to_templates_that_show_them() -> None:
    call = {"role": "assistant", "content": "", "tool_calls": TOOLS}
    assert rendered(CALLING, [USER, call, USER], TOOLS) == "[add]1 + 1?<add>1 + 1?"
    assert rendered(CALLING, [USER]) == "1 + 1?"


@pytest.mark.parametrize(
    ("template", "end", "frame"),
    [
        (CHATML, "<|im_end|>", {"<|im_start|>", "<|im_end|>"}),
        (SILENT, None, set()),
        ("{{ 1 / 0 }}", None, set()),
        (None, None, set()),
        (CHATML.replace("'<|im_end|>\n'", "' <|endoftext|>'"), "<|endoftext|>", {"<|im_start|>", "<|endoftext|>"}),
    ],
)
def test_what_is_around_a_turn_is_found_by_trying(template: str | None, end: str | None, frame: set[str]) -> None:
    tokenizer = tokenizer_of(template=template)
    turn = turn_of(tokenizer)
    assert turn.end == (None if end is None else tokenizer.convert_tokens_to_ids(end))
    assert set(tokenizer.convert_ids_to_tokens(sorted(turn.frame))) == frame


def test_a_token_that_is_not_special_can_end_a_turn() -> None:
    tokenizer = tokenizer_of(
        template=CHATML.replace("<|im_end|>", "<end>"),
        added=("<end>", "\n\n"),
        added_special=False,
        eos="<|endoftext|>",
    )
    assert tokenizer.convert_ids_to_tokens(turn_of(tokenizer).end) == "<end>"


# Shows results behind calls alone, as Gemma 4 does.
BEHIND_CALLS = (
    "{% set ns = namespace(called=false) %}{% for m in messages %}{% if m['role'] == 'tool' %}"
    "{% if ns.called %}={{ m['name'] }}:{{ m['content'] }};{% endif %}"
    "{% else %}{% set ns.called = m['tool_calls'] is defined %}<{{ m['role'] }}>{{ m['content'] }}"
    "{% for c in m['tool_calls'] or [] %}[{{ c['function']['name'] }}]{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def test_results_are_shown_behind_calls_where_the_template_wants_them_there() -> None:
    told = [{"role": "tool", "name": "add", "content": "12 and a number of other things"}]
    assert between(tokenizer_of(template=BEHIND_CALLS), told, TOOLS, "it") == (
        "=add:12 and a number of other things;<assistant>"
    )
    with pytest.raises(UsageError, match=r"leaves out message 3 \(tool\)"):
        between(tokenizer_of(template=SILENT), told, TOOLS, "it")


def test_whether_a_template_takes_a_system_message_is_found_by_trying() -> None:
    assert takes_system(tokenizer_of(template=CHATML))
    assert not takes_system(tokenizer_of(template=GEMMA))
    assert not takes_system(tokenizer_of(template=SILENT))
