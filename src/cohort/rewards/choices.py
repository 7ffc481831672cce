"""Rewards of a report that ends in the letter of an option: letter, sections, language. Source: arXiv:2512.00601."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cohort.errors import UsageError
from cohort.rewards.kinds import Kind, Values, plain
from cohort.rewards.verifiers import text_of, unanswered
from cohort.signals.answers import gold_text, is_missing
from cohort.signals.choices import boxed_letter, english_share, in_sections


def gold_letter(gold: Any) -> str | None:
    """The letter that a row's `answer` is: B, (b), \\text{B}; None if it is none."""
    found = None if is_missing(gold) else re.fullmatch(r"(?:\\text\s*\{)?\W*([A-Za-z])\W*", gold_text(gold))
    return None if found is None else found[1].upper()


def choice(completions: Sequence[Any], answer: Sequence[Any], **_: Any) -> Values:
    """1 if the only \\boxed{...} holds the letter that the row's `answer` is, 0 for another letter or no box.

    n boxes give -n, a box that cannot be read -1, one with anything but a capital letter -0.5. The whole completion counts,
    reasoning included. None if `answer` is no letter.
    """
    letters = [(text_of(completion), gold_letter(gold)) for completion, gold in zip(completions, answer, strict=True)]
    return [None if gold is None else boxed_letter(text, gold) for text, gold in letters]


def english(completions: Sequence[Any], **_: Any) -> Values:
    """Share of the characters that are ASCII letters, digits, spaces, line breaks and common punctuation."""
    return [english_share(text_of(completion)) for completion in completions]


def sections(first: str, second: str) -> Callable[..., Values]:
    """1 if the completion is <first>...</first><second>...</second> and nothing else, 1.5 if the second part also leads up to
    one \\boxed{...}; else 0."""

    def score(completions: Sequence[Any], **_: Any) -> Values:
        return [in_sections(text_of(completion), first, second) for completion in completions]

    return score


def _sections(argument: str) -> Callable[..., Values]:
    tags = argument.split(",") if argument else ["think", "answer"]
    if len(tags) != 2 or not all(re.fullmatch(r"\w+", tag) for tag in tags):
        raise UsageError(f"reward 'sections:{argument}': name two tags, as in sections:think,answer")
    return sections(*tags)


def _unlettered(argument: str, rows: Sequence[Mapping[str, Any]]) -> list[tuple[list[int], str]]:
    ((missing, why),) = unanswered(argument, rows)
    other = [i for i, row in enumerate(rows) if i not in set(missing) and gold_letter(row.get("answer")) is None]
    return [(missing, why), (other, "have an answer that is no letter")]


KINDS = (
    plain("choice", {"": choice}, verifies=True, columns=("answer",), inapplicable=_unlettered),
    Kind("sections", ("sections", "sections:TAG,TAG"), _sections),
    plain("english", {"": english}),
)
