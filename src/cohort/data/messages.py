"""Chat messages as they stand in data: checked, and made what every chat template takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cohort.errors import UsageError, shown
from cohort.types import Message

# Calls are what such a message says; it needs no text.
CALLS = ("tool_calls", "function_call")


def is_chat(source: Any) -> bool:
    """True for messages: mappings with a role, and a content or tool calls."""
    return (
        isinstance(source, Sequence)
        and len(source) > 0
        and all(
            isinstance(m, Mapping) and "role" in m and ("content" in m or any(c in m for c in CALLS)) for m in source
        )
    )


def messages_of(source: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Messages with text as their content, and without keys that hold nothing.

    Columnar files give every message the keys of all others, with None where it has none; parts of text are joined.

    Raises:
        UsageError: a role that is no text, or content that is not text alone; the message is counted from 1.
    """
    return [_message(message, f"message {i}") for i, message in enumerate(source, 1)]


def _message(message: Mapping[str, Any], where: str) -> Message:
    role = message["role"]
    if not isinstance(role, str) or not role:
        raise UsageError(f"{where}: the role must be a text such as user or assistant, not {shown(role)}")
    where = f"{where} ({role})"
    held = {str(key): value for key, value in message.items() if value is not None}
    content = held.get("content")
    if content is None and not any(held.get(call) for call in CALLS):
        raise UsageError(f"{where} has no content: give it a text (an empty one if nothing is said), or leave it out")
    return {**held, "role": role, "content": _text(content, where)}


def _text(content: Any, where: str) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, Sequence) or isinstance(content, (bytes, bytearray)):
        raise UsageError(f"{where}: the content must be a text, or a list of parts of text, not {shown(content)}")
    texts = []
    for part in content:
        if not isinstance(part, Mapping):
            raise UsageError(f"{where}: a part of the content must be an object with type and text, not {shown(part)}")
        kind, text = part.get("type"), part.get("text")
        if kind not in (None, "text") or not isinstance(text, str):
            named = f"a part of type {shown(kind)}" if kind not in (None, "text") else f"the part {shown(part)}"
            raise UsageError(
                f"{where} has {named}, and only text can be trained on: a part is "
                '{"type": "text", "text": "..."}; leave the row out, or say in words what the part shows'
            )
        texts.append(text)
    return "".join(texts)


def tools_of(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The schemas of functions in a row's column `tools`, a list or its JSON; none where the column holds anything else."""
    held = row.get("tools")
    if isinstance(held, str) and held.lstrip().startswith("["):
        try:
            held = json.loads(held)
        except (ValueError, RecursionError):
            return []
    if not isinstance(held, Sequence) or isinstance(held, str) or not held:
        return []
    schemas = [_without_none(each) for each in held]
    known = all(isinstance(each, dict) and ("function" in each or "name" in each) for each in schemas)
    return schemas if known else []


def _without_none(value: Any) -> Any:
    """Columnar files fill in what an object does not have."""
    if isinstance(value, Mapping):
        return {key: _without_none(each) for key, each in value.items() if each is not None}
    return [_without_none(each) for each in value] if isinstance(value, list) else value
