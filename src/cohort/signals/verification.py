"""Asking a model where rules find no equality, and how good verifiers are. Source: arXiv:2505.22203.

A model that is asked whether two answers are equal says yes to much that is no answer at all, and a policy finds it. So it is
asked only where the rules said no, of what may be an answer (`never_right`), and never of two plain numbers (`asks_model`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cohort.signals.equality import equivalent
from cohort.signals.latex import GROUP, UPRIGHT, spelled
from cohort.signals.notation import (
    Choice,
    Combined,
    Equation,
    Inequality,
    Many,
    Named,
    Ordered,
    Shape,
    Value,
    Words,
    read,
)
from cohort.signals.numbers import number

_DECISION = re.compile(r"final decision:\s*(yes|no|true|false)", re.IGNORECASE)
_NO_NUMBER = re.compile(
    r"(?i)\bnan\b|\binf(?:inity)?\b|\\infty|\bundefined\b|\bindeterminate\b|\\frac\{0\}\{0\}|(?<![\d.])0\s*/\s*0(?![\d.])"
)
# Of the answer rather than an answer.
_ABOUT = re.compile(
    r"(?i)\b(?:(?:in)?correct|right|wrong|equal|equivalent|same|match(?:es|ed)?|identical|reference|ground\s*truth|gold|answers?"
    r"|solution|grader?|verifier|evaluat\w*|expected|verif\w*|confirm\w*|decision|instructions?|score|reward|above|prompt"
    r"|system|output|ignore)\b"
)
_DENIED = re.compile(r"(?i)\b(?:not|never|neither|nor|except|without|anything but)\b|n['’]t\b")
_CODE = re.compile(
    r"""__|\b(?:import|exec|eval|lambda|def|return|print|if|else|for|while|True|False|None)\b|[{\[]\s*"|</?[a-z]+\d?\s*/?>|`"""
)
_COMMAND = re.compile(r"\\[A-Za-z]+")
_UPRIGHT_PART = re.compile(UPRIGHT + GROUP)
# A numeral by itself.
_NUMERAL = re.compile(r"(?<![\w.,])-?\d[\d,]*(?:\.\d+)?(?![\w]|[.,]\d)")


def is_plain_number(text: str) -> bool:
    """True if Python's float reads the text."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def asks_model(rule: bool, answer: str, gold: str) -> bool:
    """True if a model is asked: the rules found no equality, there is an answer, and not both are plain numbers."""
    return not rule and bool(answer.strip()) and not (is_plain_number(answer) and is_plain_number(gold))


def verdict(reply: str) -> int:
    """1 if the first "Final Decision: ..." of a model's reply is yes or true, any case; else 0, also where there is none."""
    found = _DECISION.search(reply)
    return int(found is not None and found[1].lower() in ("yes", "true"))


def never_right(answer: str, gold: str) -> str:
    """Why what the rules did not find equal to the gold answer is not worth a model's opinion; "" if it may be.

    Nothing here says that an answer is right. What the gold answer is itself (a list, a range, words) is not held against
    the answer.
    """
    text = spelled(answer)
    said, wanted = _COMMAND.sub(" ", text), _COMMAND.sub(" ", spelled(gold))
    if not re.search(
        r"[^\W_]", re.sub(r"\{[^{}]*array[^{}]*\}\s*\{[lcr| ]*\}|\{array\}", "", said)
    ) and "\\" not in _SHELL.sub("", text):
        return "no answer"
    for pattern, why in ((_CODE, "code"), (_ABOUT, "about the answer"), (_DENIED, "a negation")):
        if pattern.search(said) and not pattern.search(wanted):
            return why
    if _NO_NUMBER.search(text) and not _NO_NUMBER.search(spelled(gold)):
        return "no number"
    shapes, golden = [[_told(shape) for shape in read(each)] for each in (answer, gold)]
    if any(isinstance(shape, (Value, Words, Choice)) for shape in golden):
        if (shapes and all(isinstance(shape, Many) for shape in shapes)) or re.search(r"\b(?:or|and)\b", said):
            return "several answers"
        if any(isinstance(s, (Inequality, Combined)) or (isinstance(s, Ordered) and len(s.items) == 2) for s in shapes):
            return "a range"
    if any(map(_is_hollow, shapes)) and not any(isinstance(shape, Equation) for shape in golden):
        return "an equation that says nothing or is false"
    values = next(((a, b) for a in shapes for b in golden if isinstance(a, Value) and isinstance(b, Value)), None)
    if values is not None and _letters(values[0].text) > _letters(values[1].text):
        return "free variables"
    numeral = number(gold)
    if numeral is not None and not shapes and numeral not in {number(each) for each in _NUMERAL.findall(said)}:
        return "no answer" if not _NUMERAL.search(said) else "another number"
    return ""


# Commands that hold no answer by themselves.
_SHELL = re.compile(UPRIGHT + r"\s*\{\W*\}|\\(?:begin|end|left|right|boxed)(?![A-Za-z])|\\[^A-Za-z]")


def _told(shape: Shape) -> Shape:
    """What stands behind a name; the name where that says nothing of it."""
    if isinstance(shape, Named):
        hollow = isinstance(shape.value, Value) and shape.value.text == shape.name
        return Equation((shape.name, shape.name)) if hollow else shape.value
    return shape


def _is_hollow(shape: Shape) -> bool:
    """An equation of numbers, which is false since the rules did not find its last side equal, or of a thing with itself."""
    return isinstance(shape, Equation) and (len(set(shape.sides)) == 1 or not any(map(_letters, shape.sides)))


def _letters(text: str) -> set[str]:
    """Variables, but for e and i; those with names of their own, as Greek ones, are not counted."""
    return set(re.findall(r"[A-Za-z]", _COMMAND.sub("", _UPRIGHT_PART.sub("", text)))) - {"e", "i"}


def by_rules(answer: str | None, gold: str) -> bool:
    """True if an extracted answer is equivalent to the gold one; an empty one is not."""
    return bool(answer and answer.strip()) and equivalent(gold, answer or "")


# How good a verifier is ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rates:
    """What a verifier's verdicts are worth, by true labels. None where a rate is not defined.

    Attributes:
        precision: share of the accepted that are right; none is accepted: None.
        recall: share of the right that are accepted; none is right: None.
        f1: 2 precision recall / (precision + recall), 0 where both are 0; None where one is.
        false_negative_rate: 1 - recall.
        false_positive_rate: share of the wrong that are accepted; none is wrong: None.
        count: of the completions that have both verdict and label.
    """

    precision: float | None
    recall: float | None
    f1: float | None
    false_negative_rate: float | None
    false_positive_rate: float | None
    count: int


def rates(truth: Sequence[bool], verdicts: Sequence[bool]) -> Rates:
    """The rates of verdicts [n] by true labels [n]."""
    pairs = [(bool(t), bool(v)) for t, v in zip(truth, verdicts, strict=True)]
    hits, alarms = pairs.count((True, True)), pairs.count((False, True))
    right = sum(t for t, _ in pairs)
    precision = hits / (hits + alarms) if hits + alarms else None
    recall = hits / right if right else None
    f1 = None
    if precision is not None and recall is not None:
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    missed = None if recall is None else 1 - recall
    return Rates(
        precision, recall, f1, missed, alarms / (len(pairs) - right) if right < len(pairs) else None, len(pairs)
    )


def oracle_gap(training: Sequence[float], oracle: Sequence[float], max_gap: float) -> tuple[list[float], int | None]:
    """(training reward less the oracle's at every step, the first step, from 0, where it exceeds `max_gap`; None if none)."""
    gap = [a - b for a, b in zip(training, oracle, strict=True)]
    return gap, next((step for step, value in enumerate(gap) if value > max_gap), None)
