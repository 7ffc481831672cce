"""Answers that stand in tags: texts, and actions on a screen."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cohort.errors import UsageError
from cohort.rewards.kinds import Function, Kind, Placed, Values
from cohort.rewards.verifiers import mathematically_equal, text_of, unanswered
from cohort.signals.answers import gold_text, is_missing
from cohort.signals.thoughts import first_in_tags

# Farthest distance of a click that hits, as a share of the screen. Source: arXiv:2505.16854.
RADIUS = 0.14
_TAG = re.compile(r"[A-Za-z][\w-]*")
Action = Mapping[str, Any]


def same_answer(said: str, gold: str, *, tag: str = "answer", symbolic: bool = True) -> bool:
    """The answer in a text's first tags is that of the gold text, as mathematics (`symbolic`) or as a text.

    Source: arXiv:2505.16854.
    """
    found, wanted = first_in_tags(said, tag), first_in_tags(gold, tag)
    return found == wanted or (symbolic and bool(mathematically_equal(found, gold_text(wanted))))


def in_tags(tag: str) -> Function:
    """1 if the answer in the completion's first tags (on one line; without tags all of it) is the row's `answer`; else 0. None
    if the row has none."""

    def score(completions: Sequence[Any], answer: Sequence[Any], **_: Any) -> Values:
        return [
            None if is_missing(gold) else float(same_answer(text_of(completion), str(gold), tag=tag))
            for completion, gold in zip(completions, answer, strict=True)
        ]

    return score


def action_of(value: Any) -> Action | None:
    """An action, {"action": name, "position": [x, y] or null}, of a mapping or of a text that is one; None if it is none."""
    if isinstance(value, str):
        for read in (json.loads, ast.literal_eval):
            try:
                value = read(value)
                break
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
    return value if isinstance(value, Mapping) and isinstance(value.get("action"), str) else None


def same_action(said: Action | None, gold: Action) -> float:
    """1 if the actions' names agree without case, else 0."""
    return float(said is not None and said["action"].casefold() == gold["action"].casefold())


def hits(said: Action | None, gold: Action, *, radius: float = RADIUS) -> float:
    """1 if both are clicks whose positions, as shares of the screen, are no farther apart than `radius`; else 0."""
    points = [_point(each) for each in (said, gold) if each is not None and each["action"].casefold() == "click"]
    if len(points) < 2 or points[0] is None or points[1] is None:
        return 0.0
    return float(math.dist(points[0], points[1]) <= radius)


def _point(action: Action) -> tuple[float, float] | None:
    found = action.get("position")
    if not isinstance(found, Sequence) or isinstance(found, str) or len(found) != 2:
        return None
    if any(isinstance(each, bool) or not isinstance(each, (int, float)) for each in found):
        return None
    return float(found[0]), float(found[1])


def acts(judge: Callable[[Action | None, Action], float]) -> Function:
    """What `judge` says of the action in a completion's first <action> tags and the row's `answer`; None without one."""

    def score(completions: Sequence[Any], answer: Sequence[Any], **_: Any) -> Values:
        out: Values = []
        for completion, row in zip(completions, answer, strict=True):
            gold = action_of(row)
            said = action_of(first_in_tags(text_of(completion), "action"))
            out.append(None if gold is None else judge(said, gold))
        return out

    return score


def _tagged(argument: str) -> Function:
    if argument and not _TAG.fullmatch(argument):
        raise UsageError(f"reward 'tagged:{argument}': write tagged or tagged:TAG, with the name of a tag")
    return in_tags(argument or "answer")


def _action(argument: str) -> Function | None:
    what, _, radius = argument.partition(":")
    if what == "name" and not radius:
        return acts(same_action)
    if what != "place":
        return None
    try:
        most = float(radius or RADIUS)
    except ValueError:
        most = math.nan
    if not 0 <= most < math.inf:
        raise UsageError(
            f"reward 'action:{argument}': write action:place:R, with the farthest distance R of a click that hits"
        )
    return acts(lambda said, gold: hits(said, gold, radius=most))


def _actions(_: str, rows: Sequence[Placed]) -> None:
    for where, row in rows:
        if not is_missing(row.get("answer")) and action_of(row.get("answer")) is None:
            raise UsageError(
                f"{where}: the reward 'action' reads the column 'answer', which holds no action: write "
                '{"action": "click", "position": [0.5, 0.25]}, with the position as shares of the screen'
            )


KINDS = (
    Kind("tagged", ("tagged", "tagged:TAG"), _tagged, verifies=True, columns=("answer",), inapplicable=unanswered),
    Kind(
        "action",
        ("action:name", "action:place", "action:place:R"),
        _action,
        verifies=True,
        columns=("answer",),
        inapplicable=unanswered,
        check=_actions,
    ),
)
