"""Rewards of answers that list something: sets, rankings, boxes, citations."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from cohort.errors import UsageError, shown
from cohort.rewards.kinds import READ, Function, Kind, Placed, Values, plain
from cohort.rewards.texts import no_object
from cohort.rewards.verifiers import text_of, unanswered
from cohort.signals import boxes, citations
from cohort.signals.answers import final_answer, gold_number, is_missing, outside_thought
from cohort.signals.items import METRICS, hits, set_of
from cohort.signals.wording import f1, region

# Most ranks that are looked at where none are named.
RANKS = 1000


def listed(value: Any) -> list[Any] | None:
    """A column's list, also one that is written as JSON; None of another value."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return list(value) if isinstance(value, (list, tuple)) else None


def has_list(
    reward: str, column: str, form: str, each: Callable[[Any], bool], *, empty: bool = False
) -> Callable[[str, Sequence[Placed]], None]:
    """A check: every row has a list in `column`.

    Args:
        form: what it must be, for messages.
        each: whether an element is one.
        empty: a list of nothing will do.
    """

    def check(argument: str, rows: Sequence[Placed]) -> None:
        for where, row in rows:
            if column not in row:
                raise UsageError(READ.format(reward=reward, column=column, where=where, held=", ".join(row)))
            found = listed(row[column])
            if found is None or not (found or empty) or not all(map(each, found)):
                raise UsageError(f"{where}: the column '{column}' must be {form}, got {shown(row[column])}")

    return check


# sets ------------------------------------------------------------------------------------------------------------------


def _sets(partial: bool) -> Function:
    def score(completions: Sequence[Any], answer: Sequence[Any], **_: Any) -> Values:
        out: Values = []
        for completion, gold in zip(completions, answer, strict=True):
            wanted = frozenset() if is_missing(gold) else set_of(gold)
            said = set_of(final_answer(text_of(completion)))
            value = f1(list(said), list(wanted)) if partial else float(said == wanted)
            out.append(value if wanted else None)
        return out

    return score


# rankings --------------------------------------------------------------------------------------------------------------


def ranking(argument: str) -> Function:
    """A metric of the items that the completion names, one a line, of which those in the row's `items` are right.

    Raises:
        UsageError: no such metric.
    """
    match = re.fullmatch(r"(\w*)(?:@(\d+))?", argument)
    metric = METRICS.get((match[1] if match else "") or "ndcg")
    if match is None or metric is None or match[2] == "0":
        raise UsageError(
            f"reward 'ranking:{argument}': write ranking:METRIC or ranking:METRIC@K, of {', '.join(METRICS)}"
        )
    most = int(match[2]) if match[2] else None

    def score(completions: Sequence[Any], items: Sequence[Any], seen: Sequence[Any] | None = None, **_: Any) -> Values:
        out: Values = []
        for i, (completion, wanted) in enumerate(zip(completions, items, strict=True)):
            text, old = outside_thought(text_of(completion)).strip(), listed(seen[i]) if seen else None
            wanted = listed(wanted) or []
            ranks = most or min(len(text.split("\n")), RANKS)
            found = hits(text, wanted, lines=ranks, seen=old or ())
            out.append(float(metric(found, len(wanted))) if wanted else None)
        return out

    return score


# boxes -----------------------------------------------------------------------------------------------------------------


def overlap(argument: str) -> Function:
    """How well the boxes of the final answer cover the row's `boxes`.

    Raises:
        UsageError: a threshold that is none.
    """
    at: float | None = None
    if argument:
        at = float(argument) if re.fullmatch(r"0?\.\d+|1(?:\.0*)?", argument) else 0.0
        if at == 0:
            raise UsageError(
                f"reward 'boxes:{argument}': write boxes, or boxes:IOU with a share of overlap, as boxes:0.5"
            )

    def score(completions: Sequence[Any], **columns: Any) -> Values:
        out: Values = []
        for completion, gold in zip(completions, columns["boxes"], strict=True):
            wanted = [box for each in listed(gold) or () if (box := boxes.box_of(each)) is not None]
            said = boxes.read_boxes(final_answer(text_of(completion)))
            out.append(boxes.mean_iou(said, wanted) if at is None else boxes.box_f1(said, wanted, at))
        return out

    return score


def boxes_in_thought(completions: Sequence[Any], count: Sequence[Any] | None = None, **_: Any) -> Values:
    """0.5 for a box before <rethink>, plus 1 where they are as many as the row's `count`; 0 without the tag."""
    wanted = [None] * len(completions) if count is None else count
    return [region(text_of(c), _whole(n)) for c, n in zip(completions, wanted, strict=True)]


def _whole(count: Any) -> int | None:
    value = None if is_missing(count) else gold_number(count)
    return int(value) if value is not None and value.denominator == 1 else None


_BOXES = has_list(
    "boxes", "boxes", "a list of [x1, y1, x2, y2]", lambda each: boxes.box_of(each) is not None, empty=True
)


def _box_rows(argument: str, rows: Sequence[Placed]) -> None:
    if argument != "thought":
        _BOXES(argument, rows)


# citations -------------------------------------------------------------------------------------------------------------


def cites(completions: Sequence[Any], **columns: Any) -> Values:
    """F1 of the sources that a completion cites, each once, and the numbers in the row's `citations`."""
    out: Values = []
    for completion, gold in zip(completions, columns["citations"], strict=True):
        wanted = {int(number) for number in listed(gold) or ()}
        out.append(f1(sorted(set(citations.cited(outside_thought(text_of(completion))))), sorted(wanted)))
    return out


def cites_known(completions: Sequence[Any], sources: Sequence[Any], **_: Any) -> Values:
    """Share of a completion's citations that are of one of the row's `sources`; 0 without any."""
    return [
        citations.known_share(outside_thought(text_of(c)), len(listed(s) or ()))
        for c, s in zip(completions, sources, strict=True)
    ]


def quotes(completions: Sequence[Any], sources: Sequence[Any], **_: Any) -> Values:
    """Share of a completion's quotations that stand in a source cited right behind them; 0 without any."""
    return [
        citations.quoted_share(outside_thought(text_of(c)), listed(s) or ())
        for c, s in zip(completions, sources, strict=True)
    ]


_NUMBERS = has_list(
    "citations",
    "citations",
    "a list of numbers of sources, as [1, 3]",
    lambda each: isinstance(each, int) and not isinstance(each, bool) and each > 0,
    empty=True,
)
_SOURCES = has_list(
    "citations", "sources", "a list of texts, which are cited as [1], [2] ...", lambda each: isinstance(each, str)
)


def _cited_rows(argument: str, rows: Sequence[Placed]) -> None:
    (_SOURCES if argument else _NUMBERS)(argument, rows)


KINDS = (
    plain(
        "set",
        {"": _sets(False), "partial": _sets(True)},
        verifies=True,
        columns=("answer",),
        check=no_object("set"),
        inapplicable=unanswered,
    ),
    Kind(
        "ranking",
        ("ranking", *(f"ranking:{metric}@K" for metric in METRICS)),
        ranking,
        check=has_list("ranking", "items", 'a list of titles, as ["Heat (1995)"]', lambda each: isinstance(each, str)),
    ),
    Kind(
        "boxes",
        ("boxes", "boxes:IOU", "boxes:thought"),
        lambda argument: boxes_in_thought if argument == "thought" else overlap(argument),
        check=_box_rows,
    ),
    plain("citations", {"": cites, "known": cites_known, "quotes": quotes}, check=_cited_rows),
)
