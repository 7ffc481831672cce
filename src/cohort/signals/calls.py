"""What the policy's calls of tools are like, read from a rollout's turns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cohort.signals.answers import final_answer
from cohort.types import Message, Rollout


def calls_valid(rollout: Rollout) -> bool:
    """All of a rollout's calls could be read, name a tool that there is, and give it the arguments that it takes.

    True of a rollout that calls nothing. Where the tools' schemas are not known, calls need only be readable.
    """
    known = {tool["function"]["name"]: tool["function"] for tool in rollout.prompt.tools if "function" in tool}
    said = [turn.messages[0] for turn in rollout.turns if turn.messages]
    return rollout.end != "unparseable" and all(_fits(message, known) for message in said)


def _fits(message: Message, known: Mapping[str, Any]) -> bool:
    if message.get("call_errors"):
        return False
    called = [call.get("function", {}) for call in message.get("tool_calls") or []]
    return not known or all(each.get("name") in known and _taken(each, known[each["name"]]) for each in called)


def _taken(call: Mapping[str, Any], schema: Mapping[str, Any]) -> bool:
    """A call's arguments are those that a schema names, with all that it requires."""
    given, takes = call.get("arguments") or {}, schema.get("parameters") or {}
    try:
        given = json.loads(given) if isinstance(given, str) else given
    except ValueError:
        return False
    if not isinstance(given, Mapping):
        return False
    return set(takes.get("required") or ()) <= set(given) <= set(takes.get("properties") or given)


def answered(rollout: Rollout) -> bool:
    """A final answer stands at the rollout's end: it was not cut, and its last words are no call."""
    if not rollout.turns:
        return rollout.finished and bool(final_answer(rollout.text))
    last = rollout.turns[-1]
    calls = any(message.get("tool_calls") or message.get("call_errors") for message in last.messages[:1])
    return rollout.finished and not calls and bool(final_answer(last.texts[0] if last.messages else rollout.text))
