"""The rewards that cohort brings.

All have the calling convention of a user's function, f(prompts, completions, completion_ids, **columns) -> values: a
completion is a text, or a list of messages for chat data; a value is a number, or None where the reward does not apply.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any

from cohort.errors import UsageError
from cohort.rewards.kinds import Kind, Placed, Values, plain
from cohort.signals import equality
from cohort.signals.answers import (
    final_answer,
    final_number,
    gold_number,
    gold_spellings,
    gold_text,
    is_missing,
    last_box,
    marked,
    outside_thought,
)
from cohort.signals.formulas import as_formula, readings
from cohort.signals.numbers import last_number, number, words
from cohort.signals.numbers import plain as spelled

_PERCENT = re.compile(r"%|percent|pct", re.IGNORECASE)


def text_of(completion: str | list[dict[str, Any]]) -> str:
    """The text of a completion; of a list of messages, what was said after the last one of others (a tool's, a user's)."""
    if isinstance(completion, str):
        return completion
    said = takewhile(lambda message: message.get("role", "assistant") == "assistant", reversed(completion))
    return "".join(str(message.get("content") or "") for message in reversed(list(said)))


def exact(completions: Sequence[Any], answer: Sequence[Any], **_: Any) -> Values:
    """1 if the final answer is the row's `answer`, up to white space; else 0. None if the row has none."""
    out: Values = []
    for completion, gold in zip(completions, answer, strict=True):
        said = " ".join(final_answer(text_of(completion)).split())
        out.append(None if is_missing(gold) else float(said in gold_spellings(gold)))
    return out


def numeric(completions: Sequence[Any], answer: Sequence[Any], **_: Any) -> Values:
    """1 if the number of the final answer equals the row's `answer`; else 0. None if `answer` is no number."""
    out: Values = []
    for completion, gold in zip(completions, answer, strict=True):
        want = None if is_missing(gold) else gold_number(gold)
        out.append(None if want is None else float(final_number(text_of(completion)) == want))
    return out


def math(completions: Sequence[Any], answer: Sequence[Any], **_: Any) -> Values:
    """1 if the completion's answer is mathematically equal to the row's `answer` (math-verify); else 0.

    None if the row has no answer, or one that cannot be read as mathematics.
    """
    out: Values = []
    for completion, gold in zip(completions, answer, strict=True):
        value = None if is_missing(gold) else mathematically_equal(text_of(completion), gold_text(gold))
        out.append(None if value is None else float(value))
    return out


def strict_math(completions: Sequence[Any], answer: Sequence[Any], **_: Any) -> Values:
    """1 if what the completion's last \\boxed{...} holds is equivalent to the row's `answer`, exactly and as a whole; else 0.

    Nothing stands in for a box, decimals are exact (0.33 is not 1/3), and what is more than the answer is not the answer.
    See `cohort.signals.equivalence`. None if the row has no answer.
    """
    out: Values = []
    for completion, gold in zip(completions, answer, strict=True):
        found = last_box(text_of(completion))
        right = bool(found) and not is_missing(gold) and equality.equivalent(gold_text(gold), found or "")
        out.append(None if is_missing(gold) else float(right))
    return out


def mathematically_equal(completion: str, gold: str) -> bool | None:
    """Whether the answer of a completion equals a gold answer; None if the latter cannot be read."""
    found, want = marked(completion), number(gold)
    if found is not None and "=" in found and want is not None:
        sides = [number(side) for side in found.split("=")]
        if None not in sides and len(set(sides)) > 1:
            # As in 41 = 42, which is no answer for 42.
            return False
    value = None if found is None else number(found)
    if found is not None and want is not None and value is not None and not ("=" in gold and "=" in found):
        if value == want:
            return True
        # A decimal may stand for a fraction whose decimals do not end, and a percentage for a share.
        rounded = "/" in spelled(want) + spelled(value) and "." in gold + found
        if not rounded and not _PERCENT.search(gold + found):
            return False
    if (said := words(gold)) is not None and said == words(final_answer(completion)):
        return True
    wanted = as_formula(gold if want is None or _PERCENT.search(gold) or "=" in gold else spelled(want))
    if want is None and not equality.holds_answer(wanted):
        return None
    return equality.equal(wanted, readings(completion))


def partial_task(
    completions: Sequence[Any], question: Sequence[str], answer: Sequence[Any], metadata: Sequence[Any], **_: Any
) -> Values:
    """What the verifier of the row's reasoning-gym task gives the final answer, from 0 to 1.

    The final answer is what is marked as such, else the last number where the gold answer is one, else the last line.
    Many of these verifiers give a wrong answer partial credit, for instance for containing the right one.
    """
    from reasoning_gym.factory import get_score_answer_fn

    out: Values = []
    for completion, asked, gold, data in zip(completions, question, answer, metadata, strict=True):
        text = outside_thought(text_of(completion))
        found = marked(text)
        if found is None and number(str(gold)) is not None:
            value = last_number(text)
            found = None if value is None else spelled(value)
        elif found is None:
            found = text.strip().split("\n")[-1]
        entry = {"question": asked, "answer": gold, "metadata": data}
        verifier = get_score_answer_fn(data["source_dataset"])
        try:
            out.append(float(verifier(found, entry)))
        except Exception:
            # Some of them raise on what they cannot read, which is a wrong answer and no fault of the verifier.
            out.append(0.0)
    return out


def task(
    completions: Sequence[Any], question: Sequence[str], answer: Sequence[Any], metadata: Sequence[Any], **_: Any
) -> Values:
    """1 if the verifier of the row's reasoning-gym task gives the final answer full marks; else 0."""
    values = partial_task(completions, question, answer, metadata)
    return [float(value is not None and value >= 1.0) for value in values]


def shortness(limit: int | None) -> Callable[..., Values]:
    """1 for an empty completion, falling linearly to 0 at `limit` tokens (the generation budget if None).

    Where no token ids are known, white-space separated words are counted.
    """

    def score(
        completions: Sequence[Any], completion_ids: Sequence[Sequence[int]] | None, max_new_tokens: Any = None, **_: Any
    ) -> Values:
        most = limit or (max_new_tokens[0] if max_new_tokens else None)
        if not most:
            raise ValueError("the length reward needs a limit here: write it as length:N")
        if completion_ids is None:
            lengths = [len(text_of(c).split()) for c in completions]
        else:
            lengths = [len(ids) for ids in completion_ids]
        return [max(0.0, 1.0 - n / most) for n in lengths]

    return score


def unanswered(_: str, rows: Sequence[Mapping[str, Any]]) -> list[tuple[list[int], str]]:
    """Which of some rows have no answer."""
    return [([i for i, row in enumerate(rows) if is_missing(row.get("answer"))], "have no answer")]


def unread(argument: str, rows: Sequence[Mapping[str, Any]]) -> list[tuple[list[int], str]]:
    """Which of some rows have no answer, and which one that is no number."""
    ((missing, why),) = unanswered(argument, rows)
    asked = set(range(len(rows))) - set(missing)
    other = [i for i in sorted(asked) if gold_number(rows[i].get("answer")) is None]
    return [(missing, why), (other, "have an answer that is no number")]


def of_a_task(_: str, rows: Sequence[Placed]) -> None:
    """The rows come from reasoning-gym."""
    if any("metadata" not in row for _, row in rows):
        raise UsageError("the reward 'task' is the verifier of reasoning_gym data; for other data use number or math")


def _length(argument: str) -> Callable[..., Values]:
    if argument and not (argument.isdecimal() and int(argument)):
        raise UsageError(f"reward 'length:{argument}': write length or length:N, with N a number of tokens")
    return shortness(int(argument) if argument else None)


KINDS = (
    plain("exact", {"": exact}, verifies=True, columns=("answer",), inapplicable=unanswered),
    plain("number", {"": numeric}, verifies=True, columns=("answer",), inapplicable=unread),
    plain("math", {"": math, "strict": strict_math}, verifies=True, columns=("answer",), inapplicable=unanswered),
    plain("task", {"": task, "partial": partial_task}, verifies=True, columns=("answer",), check=of_a_task),
    Kind("length", ("length", "length:N"), _length),
)
