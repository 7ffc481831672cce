"""Forms of a judge's answer: what asks for it, and what reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cohort.data.presets import FIRST_ERROR_ANSWER
from cohort.errors import UsageError
from cohort.signals.answers import boxed
from cohort.signals.first_errors import is_flawed, read_step
from cohort.signals.verification import verdict

_NUMBER = r"[-+]?\d+(?:\.\d+)?"
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL | re.IGNORECASE)
# What stands between a name and its value: "**Score:** 7", "Score = [[7]]", "score is \boxed{7}".
_GAP = r"[\"'*_\s]*(?:[:=]|\bis\b)[\"'*_\s]*(?:\\boxed\{|\[\[|\[|\()?[\"'*_\s]*"
_YES, _NO = ("yes", "true", "1", "satisfied", "met"), ("no", "false", "0", "not satisfied", "not met", "unmet")
FORMS = "score LOW-HIGH (as in score 1-10), verdict, decision, criteria, pair, steps or first-error"


class Unread(ValueError):
    """A reply that is no answer of its form; the message says why."""


@dataclass(frozen=True)
class Form:
    """What a judge answers.

    Attributes:
        name: "score", "verdict", "decision", "criteria", "pair", "steps" or "first-error".
        ask: what stands at the end of every question.
        read: (reply, how many criteria there are) -> the answer: of "score" the number within [0, 1], of "verdict" True or
            False, of "decision" as well, where what is not said is False, of "criteria" a list of True or False, of "pair"
            0 or 1 (which is better) or None for a tie, of "steps" the numbers of wrong steps, of "first-error" whether a
            step is wrong. It raises Unread.
    """

    name: str
    ask: str
    read: Callable[[str, int], Any]


def form_of(text: str) -> Form:
    """The form that a prompt names.

    Raises:
        UsageError: it is none.
    """
    words = text.strip().lower()
    if words in _PLAIN:
        return _PLAIN[words]
    match = re.fullmatch(rf"score\s+({_NUMBER})\s*(?:-|to|\.\.)\s*({_NUMBER})", words)
    if match is None or float(match[1]) >= float(match[2]):
        raise UsageError(f"there is no answer '{text.strip()}': a judge answers with {FORMS}")
    return score(match[1], match[2])


def score(low: str, high: str) -> Form:
    """A number from low to high, which is brought to [0, 1]."""
    least, most = float(low), float(high)

    def read(reply: str, _: int) -> float:
        said = _said(reply)
        found = re.findall(rf"\b(?:score|rating)\b{_GAP}({_NUMBER})(?:\s*/\s*({_NUMBER}))?", said, re.IGNORECASE)
        alone = re.fullmatch(rf"[*\s]*({_NUMBER})(?:\s*/\s*({_NUMBER}))?[*.\s]*", said)
        if not found and alone is None:
            raise Unread(f"no line 'Score: N' in it, N from {low} to {high}")
        number, of = found[-1] if found else (alone[1], alone[2])  # type: ignore[index]
        if of and float(of) != most:
            raise Unread(f"a score out of {of}, not out of {high}")
        if not least <= float(number) <= most:
            raise Unread(f"the score {number} is not from {low} to {high}")
        return (float(number) - least) / (most - least)

    ask = f"End your reply with a line 'Score: N', where N is a number from {low} (worst) to {high} (best)."
    return Form("score", ask, read)


def _verdict(reply: str, _: int) -> bool:
    said = _said(reply)
    found = re.findall(rf"\bverdict\b{_GAP}(yes|no|true|false)\b", said, re.IGNORECASE)
    if not found:
        alone = re.fullmatch(r"[*\s\"']*(yes|no)[*.\s\"']*", said, re.IGNORECASE)
        if alone is None:
            raise Unread("no line 'Verdict: yes' or 'Verdict: no' in it")
        return alone[1].lower() == "yes"
    return found[-1].lower() in _YES


def _decision(reply: str, _: int) -> bool:
    """As model-based verifiers are trained to say it; whatever they say else is no."""
    return bool(verdict(reply))


def _criteria(reply: str, count: int) -> list[bool]:
    said = _said(reply)
    marks: dict[int, bool] = {}
    for entry in _json(said, (list, dict)):
        listed = entry.items() if isinstance(entry, Mapping) else enumerate(entry, 1)
        read = {int(k): _mark(v) for k, v in listed if str(k).isdecimal() and _mark(v) is not None}
        if set(read) == set(range(1, count + 1)):
            marks = {k: bool(v) for k, v in read.items()}
    line = re.compile(
        r"^[-*#\s]*(?:criterion\s*)?[*_#\s]*(\d+)[*_]*\s*[.:)=-]+[*_\s]*(yes|no|true|false)\b", re.I | re.M
    )
    for number, word in line.findall(said) if not marks else ():
        marks[int(number)] = word.lower() in _YES
    missing = [str(k) for k in range(1, count + 1) if k not in marks]
    if missing:
        raise Unread(f"no line 'N: yes' or 'N: no' in it for criterion {', '.join(missing)}")
    return [marks[k] for k in range(1, count + 1)]


def _mark(value: Any) -> bool | None:
    text = str(value).strip().lower()
    return True if text in _YES else False if text in _NO else None


def _pair(reply: str, _: int) -> int | None:
    said = _said(reply)
    found = re.findall(rf"\b(?:better|winner)\b{_GAP}(?:answer\s+)?(A|B|tie|neither|both)\b", said, re.IGNORECASE)
    if not found:
        found = [
            m[0] or m[1] for m in re.findall(r"\[\[\s*(A|B|tie)\s*\]\]|^[*\s]*(A|B|tie)[*.\s]*$", said, re.I | re.M)
        ]
    if not found:
        raise Unread("no line 'Better: A', 'Better: B' or 'Better: tie' in it")
    return {"a": 0, "b": 1}.get(found[-1].lower())


def _steps(reply: str, _: int) -> list[int]:
    said = _said(reply)
    found = re.findall(r"\bwrong\s+steps?\b[\"'*_\s]*[:=][ \t\"'*_\[(]*([^\n]*)", said, re.IGNORECASE)
    if not found:
        raise Unread("no line 'Wrong steps: ...' in it")
    last = found[-1].strip()
    if re.match(r"(none|no\b|nothing|[\])}.-]|$)", last, re.IGNORECASE):
        return []
    numbers = [int(each) for each in re.findall(r"\d+", last)]
    if not numbers:
        raise Unread(f"the line 'Wrong steps: {last[:60]}' names no numbers, nor 'none'")
    return sorted(set(numbers))


def _first_error(reply: str, _: int) -> bool:
    answer = boxed(_said(reply))
    if read_step(answer) is None:
        raise Unread("no number of a step, or -1, in a \\boxed{}")
    return is_flawed(answer)


_PLAIN = {
    form.name: form
    for form in (
        Form("verdict", "End your reply with a line 'Verdict: yes' or 'Verdict: no'.", _verdict),
        Form("decision", "End your reply with a line 'Final Decision: Yes' or 'Final Decision: No'.", _decision),
        Form(
            "criteria",
            "End your reply with one line for each criterion, in their order: 'N: yes' where criterion N is met, 'N: no' where "
            "it is not.",
            _criteria,
        ),
        Form("pair", "End your reply with a line 'Better: A', 'Better: B' or 'Better: tie'.", _pair),
        Form(
            "steps",
            "End your reply with a line 'Wrong steps: ' and the numbers of the wrong steps, or 'Wrong steps: none'.",
            _steps,
        ),
        Form("first-error", FIRST_ERROR_ANSWER, _first_error),
    )
}


def _said(reply: str) -> str:
    """A reply without what was thought before it."""
    said = _THOUGHT.sub("", reply)
    if "</think>" in said.lower():  # some chat templates begin the thought themselves
        said = re.split("</think>", said, flags=re.IGNORECASE)[-1]
    if "<think>" in said.lower():
        raise Unread("it was cut off while it was thinking")
    if not said.strip():
        raise Unread("it is empty")
    return said.strip()


def _json(text: str, kinds: tuple[type, ...]) -> list[Any]:
    """Values of these types that stand in a text as JSON."""
    decoder, out, at = json.JSONDecoder(), [], 0
    while (match := re.compile(r"[\[{]").search(text, at)) is not None:
        try:
            value, at = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            at = match.end()
            continue
        if isinstance(value, kinds):
            out.append(value)
    return out
