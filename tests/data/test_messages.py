"""Messages as data holds them: parts joined, columns of others left out, and what is no text refused with its place."""

from __future__ import annotations

from typing import Any

import pytest

from cohort.data.messages import is_chat, messages_of, tools_of
from cohort.errors import UsageError, shown

SCHEMA = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
PART = {"type": "text", "text": "1 + "}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"role": "user", "content": "a"}, {"role": "user", "content": "a"}),
        ({"role": "user", "content": [PART, {"type": "text", "text": "1"}]}, {"role": "user", "content": "1 + 1"}),
        ({"role": "user", "content": [{"text": "1", "image_url": None}]}, {"role": "user", "content": "1"}),
        ({"role": "user", "content": []}, {"role": "user", "content": ""}),
        ({"role": "user", "content": PART}, {"role": "user", "content": "1 + "}),
        (
            {"role": "user", "content": "a", "tool_calls": None, "name": "B"},
            {"role": "user", "content": "a", "name": "B"},
        ),
        (
            {"role": "assistant", "content": None, "tool_calls": [SCHEMA]},
            {"role": "assistant", "content": "", "tool_calls": [SCHEMA]},
        ),
        ({"role": "assistant", "tool_calls": [SCHEMA]}, {"role": "assistant", "content": "", "tool_calls": [SCHEMA]}),
    ],
)
def test_a_message_is_a_role_and_a_text(message: dict[str, Any], expected: dict[str, Any]) -> None:
    assert is_chat([message])
    before = repr(message)
    assert messages_of([message]) == [expected]
    assert repr(message) == before


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"role": "user", "content": None}, r"message 2 \(user\) has no content"),
        ({"role": "assistant", "content": None, "tool_calls": []}, r"message 2 \(assistant\) has no content"),
        (
            {"role": "user", "content": 5},
            r"message 2 \(user\): the content must be a text, or a list of parts of text, not 5",
        ),
        (
            {"role": "user", "content": ["a"]},
            r"message 2 \(user\): a part of the content must be an object .*, not 'a'",
        ),
        (
            {"role": "user", "content": [PART, {"type": "image_url", "image_url": "x"}]},
            r"has a part of type 'image_url', and",
        ),
        ({"role": "user", "content": [{"type": "text", "text": None}]}, r"has the part {'text': None, 'type': 'text'}"),
        ({"role": None, "content": "a"}, r"message 2: the role must be a text such as user or assistant, not None"),
        ({"role": "", "content": "a"}, r"message 2: the role must be a text"),
        ({"role": ["user"], "content": "a"}, r"message 2: the role must be a text"),
    ],
)
def test_what_is_no_text_is_refused_with_the_message(message: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        messages_of([{"role": "user", "content": "a"}, message])


def test_what_is_deep_or_long_is_shown_in_part() -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(UsageError, match=r"the content must be|a part of the content") as error:
        messages_of([{"role": "user", "content": deep}])
    assert len(str(error.value)) < 400
    assert len(shown("x" * 10**6)) < 200
    assert not is_chat(deep)


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ([SCHEMA], [SCHEMA]),
        ('[{"name": "add"}]', [{"name": "add"}]),
        ([{**SCHEMA, "strict": None}], [SCHEMA]),
        ("hammer, saw", []),
        ("[", []),
        ("[1]", []),
        (["hammer"], []),
        ([], []),
        (None, []),
        (5, []),
        ([{"price": 3}], []),
    ],
)
def test_schemas_of_tools_are_told_from_other_columns(held: Any, expected: list[Any]) -> None:
    assert tools_of({"tools": held}) == expected
    assert tools_of({}) == []
