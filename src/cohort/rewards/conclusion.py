"""What a completion concludes, judged by its last part alone. Source: arXiv:2505.13886 (its reward plugin).

The last part begins at the last "###"; else at the last blank line that does not directly follow a colon; else at the last
"therefore" or "conclusion"; else it is all. What stands before it neither earns nor costs anything.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from cohort.rewards.kinds import Values, plain
from cohort.rewards.verifiers import text_of, unanswered
from cohort.signals.answers import gold_number, is_missing, marked, outside_thought
from cohort.signals.numbers import last_number, number

_TURNS = re.compile(r"therefore|conclusion", re.IGNORECASE)
_AGREED = re.compile(r"correctness:\s*yes", re.IGNORECASE)
# A letter by itself, and one that is said to be the answer.
_LETTER = re.compile(r"(?<![\w'’])([A-Z])(?![\w'’])")
_SAID = re.compile(r"(?i:answer|option|choice)\W*(?i:is|:)?\W*([A-Z])(?![\w'’])")
_PIECES = re.compile(r"\d+|[^\W\d_]+|[^\w\s]|_")


def last_part(text: str) -> str:
    """The part of a text that holds its conclusion."""
    text = text.strip()
    found = text.rfind("###")
    if found >= 0:
        return text[found:]
    found = text.rfind("\n\n")
    while found > 0 and text[found - 1] == ":":
        found = text.rfind("\n\n", 0, found)
    if found >= 0:
        return text[found:]
    turns = [match.start() for match in _TURNS.finditer(text)]
    return text[turns[-1] :] if turns else text


def told(solution: str, options: Sequence[Any] | None) -> tuple[str, str | None]:
    """What a judge is told of the right answer: ("option", its text, None where its number gives none) or ("answer", None)."""
    if not options:
        return "answer", None
    place = int(solution) if solution.strip().isdecimal() else 0
    if not 1 <= place <= len(options):
        return "option", None
    shown = options[place - 1]
    return "option", str(shown[0] if isinstance(shown, (list, tuple)) else shown)


def judged(completion: str, solution: str, verdict: str | None) -> float:
    """1 where a judge's reply finds the last part correct; where there is none, where the solution stands in that part."""
    if verdict is None:
        return float(solution.strip().lower() in last_part(completion).lower())
    return float(_AGREED.search(verdict) is not None)


def concludes(completion: str, gold: str, options: Sequence[str] = ()) -> bool:
    """Whether the conclusion is the gold answer: a letter of the options, a number, or a text such as "(2, 3) up".

    What the completion marks as its answer is the conclusion; where it marks none, its last part is read for the last
    thing of the gold answer's form.
    """
    text = outside_thought(completion)
    found = marked(text)
    said = last_part(text) if found is None else found
    if options and re.fullmatch(r"[A-Z]", gold.strip()):
        return _option(said, options) == gold.strip()
    if (want := gold_number(gold)) is not None:
        return (last_number(said) if found is None else number(said)) == want
    pieces = _PIECES.findall(gold)
    if found is not None:
        return _spelled(_PIECES.findall(found)) == _spelled(pieces)
    form = r"\s*".join(r"\d+" if p.isdecimal() else r"[^\W\d_]+" if p.isalpha() else re.escape(p) for p in pieces)
    shown = re.findall(rf"(?<!\w){form}(?!\w)", said)
    return bool(shown) and _spelled(_PIECES.findall(shown[-1])) == _spelled(pieces)


def _spelled(pieces: Sequence[str]) -> list[str]:
    return [piece.casefold() for piece in pieces]


def _option(said: str, options: Sequence[str]) -> str | None:
    """The letter that is chosen, or whose option is said word by word."""
    letters = _SAID.findall(said) or _LETTER.findall(said)
    known = [letter for letter in letters if ord(letter) - ord("A") < len(options)]
    if known:
        return str(known[-1])
    for i, option in enumerate(options):
        if " ".join(said.split()).casefold() == " ".join(str(option).split()).casefold():
            return chr(ord("A") + i)
    return None


def conclusion(completions: Sequence[Any], answer: Sequence[Any], options: Any = None, **_: Any) -> Values:
    """1 if the completion's conclusion is the row's `answer`; else 0. None if the row has none.

    Args:
        options: the texts of the row's lettered options, where it has some.
    """
    shown = options if options is not None else [None] * len(completions)
    return [
        None if is_missing(gold) else float(concludes(text_of(said), str(gold), each or ()))
        for said, gold, each in zip(completions, answer, shown, strict=True)
    ]


KINDS = (plain("conclusion", {"": conclusion}, verifies=True, columns=("answer",), inapplicable=unanswered),)
