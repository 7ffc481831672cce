"""Answers that do not follow from their reasoning."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np

from cohort.doctor.finding import Evidence, Missing, Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.doctor.record import Record, Rollouts, Series

_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
_TAIL = re.compile(rf"(?<![\w.,)\]}}^+*/×÷-])(?<![)\]}}^+*/×÷-] )-?{_NUMBER}(?:\s*[-+*/×÷]\s*{_NUMBER})+\s*$")
_HEAD = re.compile(rf"\s*(-?{_NUMBER})(?![\w%])")


@diagnosis(
    Try("reward answers that follow from their reasoning, among the right ones", methods=("grpo-care",)),
    Try("judge the steps, and count them only where the answer is right", methods=("posterior-grpo", "capo-genprm")),
    Try("punish right answers with flawed reasoning", methods=("fapo",)),
    columns=("accuracy", "completion", "reward/*"),
)
def inconsistent_answer(record: Record) -> Seen | None:
    """Right answers stand behind reasoning that does not lead to them, more and more often.

    Threshold: where a reward component judges consistency (its name holds "consist"), its mean over right rollouts, smoothed
    by 0.3, lies 5 points below its best at three sampled steps in a row. Elsewhere the doctor checks what it can:
    equations of plain arithmetic in right rollouts ("4-1=3+8=11"); 10 % or more of the rollouts that have any state a
    false one at the end, 5 points more than at the beginning, over at least 50 rollouts each.
    Meaning: the final answer comes from somewhere else than the text before it, so that the text can no longer be
    trusted or built on; accuracy elsewhere follows later.
    Source: reasoning-answer consistency, arXiv:2512.14944 (smoothing, patience and drop as in its monitor)
    """
    judged = [name for name in record.weights if "consist" in name.lower()]
    return _judged(record, judged[0]) if judged else _arithmetic(record)


def _judged(record: Record, name: str) -> Seen | None:
    steps, values = [], []
    for each in record.samples("accuracy", f"reward/{name}", at_least=5):
        verdict = each.numbers(f"reward/{name}")[each.numbers("accuracy") > 0.5]
        verdict = verdict[~np.isnan(verdict)]
        if len(verdict):
            steps.append(each.step)
            values.append(float(verdict.mean()))
    if len(values) < 5:
        raise Missing("needs right rollouts in five sampled steps")
    smooth = best = values[0]
    best_step, in_a_row = steps[0], 0
    for step, value in zip(steps[1:], values[1:], strict=True):
        smooth = 0.7 * smooth + 0.3 * value
        if smooth > best:
            best, best_step = smooth, step
        in_a_row = in_a_row + 1 if smooth < best - 0.05 else 0
    noise = Series(name, np.array(steps), np.array(values)).noise
    if in_a_row < 3 or best - smooth < noise:
        return None
    text = (
        f"`reward/{name}` of right rollouts, smoothed: {best:.2f} at step {best_step}, {smooth:.2f} at step {steps[-1]}"
    )
    numbers = {"best": best, "last": smooth}
    where = record.metric(f"reward/{name}")
    return Seen(
        "warning",
        "right answers follow from their reasoning less and less often",
        (Evidence(text, (best_step, steps[-1]), numbers, where),),
    )


def _arithmetic(record: Record) -> Seen | None:
    samples = record.samples("accuracy", "completion", at_least=4)
    part = max(2, len(samples) // 3)
    (false_before, before), (false_after, after) = _false(samples[:part]), _false(samples[-part:])
    if min(before, after) < 50:
        raise Missing("needs a reward that judges consistency, or 50 right rollouts with equations")
    first, last = false_before / before, false_after / after
    if last < 0.1 or last - first < 0.05:
        return None
    steps = tuple(each.step for each in samples[-part:])
    text = (
        f"right rollouts with a false equation: {percent(first)} at the beginning, {percent(last)} of {after} at steps "
        f"{steps[0]}-{steps[-1]}"
    )
    numbers = {"before": first, "after": last}
    what = f"{percent(last)} of the right answers stand behind false arithmetic"
    return Seen("warning", what, (Evidence(text, steps, numbers, record.at(steps[-1])),))


def _false(samples: list[Rollouts]) -> tuple[int, int]:
    """(right rollouts with a false equation, right rollouts with equations)."""
    verdicts = [
        holds
        for each in samples
        for text, right in zip(each.texts("completion"), each.numbers("accuracy"), strict=True)
        if right > 0.5 and (holds := equations_hold(text)) is not None
    ]
    return verdicts.count(False), len(verdicts)


def equations_hold(text: str) -> bool | None:
    """True if all equations of plain arithmetic in a text hold (to 1 %, for rounding); None if it has none.

    In a chain, "4-1=3+8=11", each side is compared with the number that the next one begins with, or with its value.
    """
    verdicts = []
    for line in text.splitlines():
        sides = line.split("=")
        for left, right in pairwise(sides):
            found, head = _TAIL.search(left), _HEAD.match(right)
            if found is None or head is None:
                continue
            value = _value(found[0])
            chained = re.match(rf"\s*-?{_NUMBER}(?:\s*[-+*/×÷]\s*{_NUMBER})+(?=\s*$)", right)
            wanted = [_value(head[1])] + ([_value(chained[0])] if chained else [])
            if value is not None:
                verdicts.append(any(w is not None and abs(value - w) <= 0.01 * max(1.0, abs(value)) for w in wanted))
    return all(verdicts) if verdicts else None


def _value(text: str) -> float | None:
    """Of numbers joined by + - * /, products first."""
    parts = re.findall(rf"{_NUMBER}|[-+*/×÷]", text.strip())
    negative = parts[0] == "-"
    numbers = [float(part.replace(",", "")) for part in parts[negative::2]]
    terms = [-numbers[0] if negative else numbers[0]]
    for sign, number in zip(parts[negative + 1 :: 2], numbers[1:], strict=True):
        if sign in "*×":
            terms[-1] *= number
        elif sign in "/÷":
            if number == 0:
                return None
            terms[-1] /= number
        else:
            terms.append(number if sign == "+" else -number)
    return sum(terms)
