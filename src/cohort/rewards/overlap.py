"""How far the words of an answer are those of the row's: for short answers that may be put in several ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cohort.errors import UsageError
from cohort.rewards.kinds import Function, Kind, Values
from cohort.rewards.verifiers import text_of, unanswered
from cohort.signals.answers import final_answer, gold_text, is_missing
from cohort.signals.overlap import best_bleu


def overlap(max_order: int) -> Function:
    """The length-aware BLEU of the final answer with the row's `answer`, or the best with several (a list), by runs of
    up to `max_order` words. None if the row has none. Source: arXiv:2512.07478."""

    def score(completions: Sequence[Any], answer: Sequence[Any], **_: Any) -> Values:
        out: Values = []
        for completion, gold in zip(completions, answer, strict=True):
            references = [
                gold_text(each) for each in (gold if isinstance(gold, list) else [gold]) if not is_missing(each)
            ]
            said = final_answer(text_of(completion)) if references else ""
            out.append(best_bleu(said, references, max_order=max_order) if references else None)
        return out

    return score


def _make(argument: str) -> Function:
    if argument and not (argument.isdecimal() and int(argument)):
        raise UsageError(f"reward 'overlap:{argument}': write overlap or overlap:N, with N words in a row at most")
    return overlap(int(argument) if argument else 4)


KINDS = (Kind("overlap", ("overlap", "overlap:N"), _make, columns=("answer",), inapplicable=unanswered),)
