"""Rewards of a formula, or of a letter, in the last box. Source: arXiv:2509.23219."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cohort.rewards.kinds import Values, plain
from cohort.rewards.verifiers import text_of, unanswered
from cohort.signals.answers import gold_text, is_missing, last_box
from cohort.signals.equality import equivalent

_UPRIGHT = re.compile(r"\\(?:text|mathrm|operatorname)\{((?:[^{}]|\{[^{}]*\})*)\}")
_LETTER = re.compile(r"\(([A-D])\)|\[([A-D])\]|([A-D])[).:]?", re.IGNORECASE)
CHOICE = "mcq"


@dataclass(frozen=True)
class Checked:
    """What is known of a completion without a model.

    Attributes:
        answer: content of the last box; None without one that is closed and holds something.
        right: whether it is right; None where only a model could tell.
    """

    answer: str | None
    right: bool | None

    @property
    def boxed(self) -> float:
        """1 if there is an answer in a box; else 0."""
        return float(self.answer is not None)


def normalised(text: str) -> str:
    """A formula without spacing, dollar signs, upright type and the final period."""
    text = re.sub(r"\\[,;!]", "", text.strip().replace("$", ""))
    text = re.sub(r"\\(?:left|right)(?![A-Za-z])", "", text)
    text = re.sub(r"\\[dt]frac(?![A-Za-z])", r"\\frac", text)
    while (bare := _UPRIGHT.sub(r"\1", text)) != text:
        text = bare
    return re.sub(r"\s", "", text).removesuffix(".")


def checked(text: str, gold: str, kind: str = "") -> Checked:
    """A completion against the gold answer.

    Args:
        kind: "mcq" for a letter, which no model is ever asked about; anything else is a formula.
    """
    found = last_box(text)
    answer = None if found is None or not normalised(found) else found
    if answer is None:
        return Checked(None, False)
    said, wanted = normalised(answer), normalised(gold)
    if kind == CHOICE:
        letter, right = _LETTER.fullmatch(said), _LETTER.fullmatch(wanted)
        same = letter is not None and right is not None and _letter(letter) == _letter(right)
        return Checked(answer, same)
    return Checked(answer, True if said == wanted or equivalent(gold, answer) else None)


def _letter(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group).upper()


def verified(
    texts: Sequence[str],
    golds: Sequence[str],
    kinds: Sequence[str],
    ask: Callable[[list[tuple[str, str]]], list[int]] | None = None,
) -> tuple[list[float], list[float]]:
    """(is there a boxed answer, is it right): 1 or 0 for each completion.

    Args:
        ask: pairs (gold, answer) -> 1 where a model finds them equivalent; asked of formulas alone that are not found equal,
            each pair once. Without it they are wrong.
    """
    found = [checked(*each) for each in zip(texts, golds, kinds, strict=True)]
    open_ = [(golds[i], each.answer or "") for i, each in enumerate(found) if each.right is None]
    pairs = list(dict.fromkeys(open_))
    said = dict(zip(pairs, ask(pairs), strict=True)) if ask is not None and pairs else {}
    right = [
        float(said.get((gold, each.answer or ""), 0) if each.right is None else each.right)
        for gold, each in zip(golds, found, strict=True)
    ]
    return [each.boxed for each in found], right


def formula(completions: Sequence[Any], answer: Sequence[Any], type: Sequence[Any] | None = None, **_: Any) -> Values:
    """1 if the last \\boxed{...} holds the formula that the row's `answer` is, as text or by its value; else 0.

    Where the row's `type` is mcq, the letter alone is compared. None if the row has no answer.
    """
    rows = [i for i, gold in enumerate(answer) if not is_missing(gold)]
    kinds = [str(type[i]) if type is not None else "" for i in rows]
    right = verified([text_of(completions[i]) for i in rows], [gold_text(answer[i]) for i in rows], kinds)[1]
    given = dict(zip(rows, right, strict=True))
    return [given.get(i) for i in range(len(completions))]


def boxed_answer(completions: Sequence[Any], **_: Any) -> Values:
    """1 if the last \\boxed{...} is closed and holds something; else 0."""
    return [float(bool(normalised(last_box(text_of(completion)) or ""))) for completion in completions]


KINDS = (
    plain("formula", {"": formula}, verifies=True, columns=("answer",), inapplicable=unanswered),
    plain("boxed", {"": boxed_answer}),
)
