"""Tool calls in text: every format is recognised by its template, reads its calls, and tells of broken ones."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cohort.policies.calls import FORMATS, PLAIN, Format, format_of, typed, without_thoughts
from cohort.policies.renderer import TextRenderer
from cohort.types import Prompt
from tests.model_folders import CHATML, GEMMA, tokenizer_of

NAMED = {each.name: each for each in (*FORMATS, PLAIN)}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look",
            "parameters": {
                "type": "object",
                "properties": {"place": {"type": "string"}, "days": {"type": "integer"}, "flags": {"type": "array"}},
            },
        },
    }
]
GIVEN = {"place": "Bad Ems", "days": 3}
HERMES = '<tool_call>\n{"name": "look", "arguments": {"place": "Bad Ems", "days": 3}}\n</tool_call>'
DEEPSEEK = (
    '<｜tool▁call▁begin｜>function<｜tool▁sep｜>look\n```json\n{"place": "Bad Ems", "days": 3}\n```<｜tool▁call▁end｜>'
)
# format, what the policy says, what it says beside its calls
SAID = [
    ("hermes", HERMES, ""),
    ("hermes", f"I look.\n{HERMES}", "I look."),
    ("hermes", HERMES.replace('{"place": "Bad Ems", "days": 3}', '"{\\"place\\": \\"Bad Ems\\", \\"days\\": 3}"'), ""),
    (
        "qwen-xml",
        "<tool_call>\n<function=look>\n<parameter=place>\nBad Ems\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
        "</function>\n</tool_call>",
        "",
    ),
    (
        "glm",
        "So:<tool_call>look\n<arg_key>place</arg_key>\n<arg_value>Bad Ems</arg_value>\n<arg_key>days</arg_key>\n"
        "<arg_value>3</arg_value>\n</tool_call>",
        "So:",
    ),
    ("llama", '{"name": "look", "parameters": {"place": "Bad Ems", "days": 3}}', ""),
    ("llama", '<|python_tag|>{"name": "look", "parameters": {"place": "Bad Ems", "days": 3}}', ""),
    ("mistral", '[TOOL_CALLS] [{"name": "look", "arguments": {"place": "Bad Ems", "days": 3}, "id": "abcdefghi"}]', ""),
    ("mistral", 'Well.[TOOL_CALLS]look[ARGS]{"place": "Bad Ems", "days": 3}', "Well."),
    ("mistral", '[TOOL_CALLS]look[CALL_ID]abcdefghi[ARGS]{"place": "Bad Ems", "days": 3}', ""),
    ("deepseek", f"<｜tool▁calls▁begin｜>{DEEPSEEK}<｜tool▁calls▁end｜>", ""),
    (
        "deepseek",
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>look<｜tool▁sep｜>{"place": "Bad Ems", "days": 3}<｜tool▁call▁end｜>'
        "<｜tool▁calls▁end｜>",
        "",
    ),
    ("gemma", '<|tool_call>call:look{place:<|"|>Bad Ems<|"|>,days:3}<tool_call|>', ""),
    ("gemma", "<start_function_call>call:look{days:3,place:<escape>Bad Ems<escape>}<end_function_call>", ""),
    ("lfm", "<|tool_call_start|>[look(place='Bad Ems', days=3)]<|tool_call_end|>I look.", "I look."),
    ("plain", "<call>look('Bad Ems', 3)</call>", ""),
    ("plain", "I look: <call>look(place='Bad Ems', days=3)</call>", "I look:"),
]


def called(message: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(each["function"]["name"], each["function"]["arguments"]) for each in message.get("tool_calls", [])]


@pytest.mark.parametrize(("name", "text", "beside"), SAID)
def test_a_format_reads_a_call_and_what_is_said_beside_it(name: str, text: str, beside: str) -> None:
    message = NAMED[name].message(text, TOOLS)
    assert message["role"] == "assistant"
    assert message["content"] == beside
    assert called(message) == [("look", GIVEN)]
    assert message["tool_calls"][0]["type"] == "function"
    assert len(message["tool_calls"][0]["id"]) == 9
    assert "call_errors" not in message


@pytest.mark.parametrize("form", NAMED.values(), ids=NAMED)
@pytest.mark.parametrize("text", ["", "The answer is 4.", 'In JSON, {"a": 1} is an object [1, 2].', "a < b > c(1)"])
def test_what_calls_nothing_stands_as_it_is(form: Format, text: str) -> None:
    assert form.message(text, TOOLS) == {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("hermes", '<tool_call>{"name": "look"', "does not end"),
        ("hermes", '<tool_call>{"name": "look", arguments}</tool_call>', r"no JSON, .*\(character 18\)"),
        ("hermes", '<tool_call>{"arguments": {}}</tool_call>', "a name and arguments"),
        ("hermes", '<tool_call>{"name": "look", "arguments": [1]}</tool_call>', "no object of names and values"),
        ("hermes", '<tool_call>["look"]</tool_call>', "a name and arguments"),
        ("qwen-xml", "<tool_call>look</tool_call>", "<function=NAME>"),
        ("qwen-xml", "<tool_call><function=look>days 3</function></tool_call>", "'days 3' stands between"),
        ("glm", "<tool_call><arg_key>days</arg_key></tool_call>", "begins with the function's name"),
        ("llama", '{"name": "look", "parameters": {"days": }}', "a name and parameters"),
        ("llama", "<|python_tag|>print(3)", "a name and parameters"),
        ("mistral", "[TOOL_CALLS] look Bad Ems", "a list of objects, or"),
        ("mistral", '[TOOL_CALLS] [{"name": "look"', "no JSON"),
        ("deepseek", "<｜tool▁call▁begin｜>look<｜tool▁sep｜>{3}<｜tool▁call▁end｜>", "no JSON"),
        ("deepseek", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>look\n```json\n{}", "does not end"),
        ("gemma", "<|tool_call>look(3)<tool_call|>", "call:NAME"),
        ("plain", "<call>look(days=3", "does not end"),
        ("plain", "<call>look 3</call>", "name\\(argument=value"),
        ("plain", "<call>look(days=print(3))</call>", "numbers, texts"),
        ("plain", "<call>look(1, 2, 3, 4)</call>", "look takes 3 arguments"),
        ("plain", "<call>other(1)</call>", "name the arguments of other"),
        ("plain", "<call>look(**{'days': 3})</call>", "name the arguments of 'look', instead of unpacking"),
        ("plain", f"<call>look{'.look' * 2000}(1)</call>", "too long"),
    ],
)
def test_a_broken_call_is_told_and_a_good_one_beside_it_is_kept(name: str, text: str, why: str) -> None:
    import re

    message = NAMED[name].message(text, TOOLS)
    (error,) = message["call_errors"]
    assert re.search(why, error)
    assert "tool_calls" not in message
    if name == "hermes" and "does not end" not in why:
        both = NAMED[name].message(f"{text}{HERMES}", TOOLS)
        assert called(both) == [("look", GIVEN)]
        assert len(both["call_errors"]) == 1


def test_several_calls_of_a_turn_keep_their_order_and_have_ids_of_their_own() -> None:
    first, second = ("look", {"days": 1}), ("look", {"days": 2})
    texts = {
        "hermes": "".join(f'<tool_call>{{"name": "look", "arguments": {{"days": {n}}}}}</tool_call>' for n in (1, 2)),
        "llama": '{"name": "look", "parameters": {"days": 1}}; {"name": "look", "parameters": {"days": 2}}',
        "mistral": '[TOOL_CALLS]look[ARGS]{"days": 1}[TOOL_CALLS]look[ARGS]{"days": 2}',
        "lfm": "<|tool_call_start|>[look(days=1), look(days=2)]<|tool_call_end|>",
        "plain": "<call>look(days=1)</call><call>look(days=2)</call>",
    }
    for name, text in texts.items():
        message = NAMED[name].message(text, TOOLS)
        assert called(message) == [first, second], name
        assert len({each["id"] for each in message["tool_calls"]}) == 2


def test_bare_texts_get_the_types_that_the_schema_names() -> None:
    assert typed("75001", {"type": "string"}) == "75001"
    assert typed("75001", {"type": "integer"}) == 75001
    assert typed("True", {"type": "boolean"}) is True
    assert typed('["a"]', {"type": "array"}) == ["a"]
    assert typed("in Bad Ems", None) == "in Bad Ems"
    assert typed("7", None) == 7


def test_thoughts_are_parted_from_what_is_said() -> None:
    assert without_thoughts("<think>\nhm\n</think>\n\nYes.") == ("hm", "Yes.")
    assert without_thoughts("hm</think>Yes.") == ("hm", "Yes.")
    assert without_thoughts("<think>\n\n</think>\n\nYes.") == (None, "Yes.")
    assert without_thoughts("Yes.") == (None, "Yes.")


TEMPLATES = Path(__file__).parent.parent / "samples" / "templates"


def test_a_format_is_recognised_by_the_chat_template() -> None:
    expected = {"qwen3": "hermes", "llama3": "plain", "llama3_1": "llama", "gemma3": "plain", "mistral": "mistral"}
    found = {name: format_of((TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")).name for name in expected}
    assert found == expected
    assert format_of("{{ '[TOOL_CALLS]' }}").name == "mistral"
    assert format_of("").name == "plain"


def test_formats_of_further_templates_are_recognised() -> None:
    if find_spec("trl") is None:
        pytest.skip("these templates come with TRL, which make bench installs")
    import trl

    folder = Path(trl.__file__).parent / "chat_templates"
    expected = {
        "qwen2_5": "hermes",
        "qwen3": "hermes",
        "qwen3_vl": "hermes",
        "qwen3_5_think": "qwen-xml",
        "nemotron_3_nano": "qwen-xml",
        "glm4moe": "glm",
        "llama3_1": "llama",
        "llama3_2": "llama",
        "llama3": "plain",
        "gemma3": "plain",
        "gemma4": "gemma",
        "deepseekv3": "deepseek",
        "lfm2_2_5": "lfm",
    }
    found = {name: format_of((folder / f"{name}.jinja").read_text(encoding="utf-8")).name for name in expected}
    assert found == expected


def renderer(template: Any = CHATML, **attributes: Any) -> TextRenderer:
    tokenizer = tokenizer_of(template=template)
    for name, value in attributes.items():
        setattr(tokenizer, name, value)
    return TextRenderer(tokenizer, rows=len(tokenizer))


def test_a_renderer_reads_what_its_template_writes() -> None:
    hermes = renderer(CHATML + "{# <tool_call> </think> #}")
    message = hermes.message(f"<think>hm</think>I look.{HERMES}", TOOLS)
    assert (message["reasoning_content"], message["content"]) == ("hm", "I look.")
    assert called(message) == [("look", GIVEN)]
    named = renderer({"default": CHATML, "tool_use": CHATML + "{# <tool_call> #}"})
    assert called(named.message(HERMES, TOOLS)) == [("look", GIVEN)]
    # Without thoughts in the template they are text like any other.
    assert renderer().message("hm</think>Yes.") == {"role": "assistant", "content": "hm</think>Yes."}


def test_a_tokenizer_that_reads_its_responses_itself_is_asked() -> None:
    own = {
        "defaults": {"role": "assistant"},
        "start_anchor": "<|im_start|>assistant\n",
        "fields": {
            "tool_calls": {
                "open": "<do>",
                "close": "</do>",
                "repeats": True,
                "content": "json",
                "transform": {"type": "function", "function": "{content}"},
            },
            "content": {"close_pattern": r"<stop>", "content": "text"},
        },
    }
    made = renderer(response_template=own)
    message = made.message('So.<do>{"name": "look", "arguments": {"days": 3}}</do>', TOOLS)
    assert message["content"] == "So."
    assert called(message) == [("look", {"days": 3})]
    broken = made.message("<do>look</do>", TOOLS)
    assert broken["content"] == "<do>look</do>"
    assert len(broken["call_errors"]) == 1


def test_a_policy_whose_template_knows_no_tools_is_told_of_them_in_words() -> None:
    guide = "Call a function by writing <call>name(argument=value)</call>."
    known = "look(place: string, days: integer, flags: array):"
    chat = renderer(CHATML)
    for source, system in (
        ("2*3=", "S"),
        ([{"role": "system", "content": "S"}, {"role": "user", "content": "2*3="}], None),
    ):
        text = chat.prompt(*chat.offer(source, system, TOOLS))[0]
        assert text.startswith(f"<|im_start|>system\nS\n\n{guide}")
        assert known in text
        assert text.endswith("user\n2*3=<|im_end|>\n<|im_start|>assistant\n")
    no_system = renderer(GEMMA)
    text = no_system.prompt(*no_system.offer("2*3=", "S", TOOLS))[0]
    assert text.startswith(f"<start_of_turn>user\nS\n\n{guide}")
    assert text.endswith("\n\n2*3=<end_of_turn>\n<start_of_turn>model\n")
    none = renderer(None)
    assert none.prompt(*none.offer("2*3=", None, TOOLS))[0].startswith(guide)
    # Others are shown them by their templates.
    hermes = renderer(CHATML + "{# <tool_call> #}")
    assert hermes.offer("2*3=", "S", TOOLS) == ("2*3=", "S", TOOLS)
    assert chat.offer("2*3=", "S", ()) == ("2*3=", "S", ())


def test_results_are_a_users_message_where_the_template_knows_no_tools() -> None:
    said = [{"role": "tool", "name": "look", "content": "12"}, {"role": "tool", "name": "look", "content": "13"}]
    prompt = Prompt("p", "2*3=", (1,), "2*3=")
    chat, none = renderer(CHATML), renderer(None)
    both = "<result>12</result>\n<result>13</result>"
    assert f"<|im_start|>user\n{both}<|im_end|>" in chat.whole(chat.answer(prompt, said))
    assert none.whole(none.answer(prompt, said)) == f"\n\n{both}"
