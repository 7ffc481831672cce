"""Rewards of what a completion says and how it is written: words, tags, repetition, length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cohort.errors import UsageError, shown
from cohort.rewards.kinds import Function, Kind, Placed, Values, plain
from cohort.rewards.verifiers import text_of, unanswered
from cohort.signals import wording
from cohort.signals.answers import final_answer, gold_text, is_missing


def golds(answer: Any) -> list[str]:
    """The texts of a row's `answer`, of which each is right: those of a list, else the one."""
    each = answer if isinstance(answer, (list, tuple)) else [answer]
    return [gold_text(one) for one in each if not is_missing(one)]


def _best(judge: Callable[[str, str], float]) -> Function:
    """The best value that `judge` gives the final answer against one of the row's; None if the row has none."""

    def score(completions: Sequence[Any], answer: Sequence[Any], **_: Any) -> Values:
        out: Values = []
        for completion, gold in zip(completions, answer, strict=True):
            said, wanted = final_answer(text_of(completion)), golds(gold)
            out.append(max(float(judge(said, one)) for one in wanted) if wanted else None)
        return out

    return score


def no_object(reward: str) -> Callable[[str, Sequence[Placed]], None]:
    """A check: no row's `answer` is an object, which has no words of its own."""

    def check(_: str, rows: Sequence[Placed]) -> None:
        for where, row in rows:
            if isinstance(row.get("answer"), Mapping):
                raise UsageError(
                    f"the reward '{reward}' compares texts, but the column 'answer' of {where} is {shown(row['answer'])}: "
                    "write a text, or a list of texts; json-answer compares objects"
                )

    return check


def same_words(said: str, wanted: str) -> bool:
    """The texts are equal up to case, articles, punctuation and separators of thousands."""
    return wording.normal_words(said) == wording.normal_words(wanted)


def words_f1(said: str, wanted: str) -> float:
    """F1 of their normalised words."""
    return wording.f1(wording.normal_words(said), wording.normal_words(wanted))


def bleu(completions: Sequence[Any], answer: Sequence[Any], **_: Any) -> Values:
    """BLEU-1 of what follows the first <answer>, against the row's `answer`; 0 without the tag. None without an answer."""
    out: Values = []
    for completion, gold in zip(completions, answer, strict=True):
        said, wanted = text_of(completion).partition("<answer>")[2], golds(gold)
        out.append(max(wording.bleu1(said, one) for one in wanted) if wanted else None)
    return out


def tags(argument: str) -> Function | None:
    """`tags:answer`: 1 if <answer> is there once, 0.5 if more often. `tags:a,b`: the share of <a> </a> <b> </b> in order."""
    names = [name.strip() for name in argument.split(",")]
    if not all(name.replace("_", "").replace("-", "").isalnum() for name in names):
        raise UsageError(f"reward 'tags:{argument}': write tags:NAME, or tags:NAME,NAME, as in tags:think,answer")

    def score(completions: Sequence[Any], **_: Any) -> Values:
        if len(names) == 1:
            return [wording.answer_tag(text_of(c), f"<{names[0]}>") for c in completions]
        return [wording.tags_in_order(text_of(c), names) for c in completions]

    return score


def variety(argument: str) -> Function:
    """1 less the shares of places at which N words, and N tokens, are followed by the same ones: from -1 to 1.

    Where no token ids are known, words count for them.
    """
    length = _count("variety", argument) or 8

    def score(completions: Sequence[Any], completion_ids: Sequence[Sequence[int]] | None, **_: Any) -> Values:
        words = [text_of(c).split() for c in completions]
        ids: Sequence[Sequence[Any]] = words if completion_ids is None else completion_ids
        return [wording.unrepeated(said, tokens, length) for said, tokens in zip(words, ids, strict=True)]

    return score


def within(tokens: int, limit: float) -> float:
    """1 up to `limit` tokens, then falling linearly to 0 at twice as many."""
    return min(1.0, max(0.0, 2.0 - tokens / limit))


def length_limit(argument: str) -> Function:
    """1 up to N tokens (half of the generation budget by default), falling linearly to 0 at twice as many.

    Where no token ids are known, white-space separated words are counted.
    """
    limit = _count("length-limit", argument)

    def score(
        completions: Sequence[Any], completion_ids: Sequence[Sequence[int]] | None, max_new_tokens: Any = None, **_: Any
    ) -> Values:
        most = limit or (max_new_tokens[0] / 2 if max_new_tokens else None)
        if not most:
            raise ValueError("the reward length-limit needs a limit here: write it as length-limit:N")
        said = [text_of(c).split() for c in completions] if completion_ids is None else completion_ids
        return [within(len(each), most) for each in said]

    return score


def _count(name: str, argument: str) -> int | None:
    if argument and not (argument.isdecimal() and int(argument)):
        raise UsageError(f"reward '{name}:{argument}': write {name} or {name}:N, with N a whole number above 0")
    return int(argument) if argument else None


KINDS = (
    plain(
        "text",
        {"": _best(same_words), "partial": _best(words_f1)},
        verifies=True,
        columns=("answer",),
        check=no_object("text"),
        inapplicable=unanswered,
    ),
    plain("bleu", {"": bleu}, columns=("answer",), check=no_object("bleu"), inapplicable=unanswered),
    Kind("tags", ("tags:NAME", "tags:NAME,NAME"), lambda argument: tags(argument) if argument else None),
    Kind("variety", ("variety", "variety:N"), variety),
    Kind("length-limit", ("length-limit", "length-limit:N"), length_limit),
)
