"""Finding the final answer in a completion, by one rule for all that read one.

1. Reasoning that is marked (<think>...</think>, also <thinking>, <thought>, <reasoning>, [THINK]) holds no answer: what is
   read stands behind the last closing mark, whether or not the opening one is in the completion, since templates write it.
   Reasoning that is never closed leaves what stands before it, mostly nothing.
2. There, the last <answer>...</answer> marks the answer, its opening tag being the one nearest before the closing one; else
   the last \\boxed{...} or \\fbox{...} that is closed, the outer one where they are nested; else what follows the last ####:
   its line if that is a number, else all of it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from cohort.signals.numbers import last_number, number, plain

_TAG = re.compile(r"<\s*answer\s*>\s*((?:(?!<\s*answer\s*>).)*?)\s*<\s*/\s*answer\s*>", re.DOTALL | re.IGNORECASE)
_THOUGHT = r"(?:think|thinking|thought|reasoning)"
_CLOSED = re.compile(rf"</\s*{_THOUGHT}\s*>|\[/THINK\]", re.IGNORECASE)
_OPENED = re.compile(rf"<{_THOUGHT}>|\[THINK\]", re.IGNORECASE)
# Escaped braces group nothing.
_BRACE = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
# What models end their turn with.
STOPS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<end_of_turn>", "</s>")
# What stands for no answer at all, where a column of answers is text.
_NOTHING = ("", "None")


def outside_thought(text: str) -> str:
    """The text without its reasoning, where that is marked."""
    closed = 0
    for match in _CLOSED.finditer(text):
        closed = match.end()
    text = text[closed:]
    opened = _OPENED.search(text)
    return text if opened is None else text[: opened.start()]


def inside_thought(text: str) -> str:
    """The reasoning of a text, where that is marked, without its marks; empty where none is."""
    ends = [match.start() for match in _CLOSED.finditer(text)]
    opened = _OPENED.search(text)
    if not ends and opened is None:
        return ""
    # A template may have written the opening mark into the prompt.
    begin = opened.end() if opened is not None and (not ends or opened.start() < ends[-1]) else 0
    return text[begin : ends[-1] if ends else None].strip()


def boxed(text: str) -> str | None:
    """Content of the last \\boxed{...} or \\fbox{...} that is closed, the outer one of nested ones; None without any."""
    open_: list[int | None] = []
    found: tuple[int, int] | None = None
    for match in _BRACE.finditer(text):
        if match[0] == "}":
            # Later ends are of outer boxes.
            if open_ and (start := open_.pop()) is not None:
                found = (start, match.start())
        elif match[0].endswith("{") and match[0] != "\\{":
            open_.append(match.end() if len(match[0]) > 1 else None)
    if found is None:
        return None
    inside = text[slice(*found)].strip()
    inner = re.fullmatch(r"\\(?:boxed|fbox)\s*\{([^{}]*)\}", inside)
    return inside if inner is None else inner[1].strip()


def last_box(text: str, stops: Sequence[str] = STOPS) -> str | None:
    """Content of the last \\boxed{...} in front of the first of the stop strings, outside the reasoning.

    None if that box is not closed, or there is none: nothing else stands in for it.
    """
    text = outside_thought(cut(text, stops))
    starts = list(re.finditer(r"\\boxed\s*\{", text))
    if not starts:
        return None
    depth, start = 1, starts[-1].end()
    for match in re.finditer(r"\\.|[{}]", text[start:], re.DOTALL):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return text[start : start + match.start()].strip()
    return None


def cut(text: str, stops: Sequence[str] = STOPS) -> str:
    """The text in front of the first of the stop strings."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def marked(text: str) -> str | None:
    """The answer that the text marks as such outside its reasoning; None if it marks none."""
    return _marked(outside_thought(text))


def _marked(text: str) -> str | None:
    tags = _TAG.findall(text)
    if tags:
        return str(tags[-1])
    in_box = boxed(text)
    if in_box is not None:
        return in_box
    if "####" in text:
        rest = text.rsplit("####", 1)[1].strip()
        line = rest.split("\n", 1)[0].strip()
        return rest if number(line) is None else line
    return None


def final_answer(text: str) -> str:
    """The marked answer, or the whole text outside its reasoning where nothing is marked."""
    text = outside_thought(text)
    found = _marked(text)
    return text.strip() if found is None else found


def final_number(text: str) -> Fraction | None:
    """The number that the marked answer is; where nothing is marked, the last one of the text outside its reasoning."""
    text = outside_thought(text)
    found = _marked(text)
    return last_number(text) if found is None else number(found)


def answer_key(text: str) -> str | None:
    """A string by which equal final answers are equal: the number of a numeric answer, else the marked text.

    None where the text marks no answer and its last number is none, or a formula.
    """
    value = final_number(text)
    if value is not None:
        return plain(value)
    found = marked(text)
    return " ".join(found.split()) if found else None


# the row's answer ----------------------------------------------------------------------------------------------------


def is_missing(gold: Any) -> bool:
    """True if a row's `answer` is none: null, NaN, empty, or the word None."""
    return gold is None or (isinstance(gold, float) and math.isnan(gold)) or str(gold).strip() in _NOTHING


def gold_written(gold: Any) -> str:
    """A row's `answer` as a completion may write it: an object or a list as JSON, another value as it stands."""
    if isinstance(gold, (Mapping, list, tuple)):
        return json.dumps(gold, ensure_ascii=False, default=str)
    return str(gold)


def gold_text(gold: Any) -> str:
    """A row's `answer` as text: what it marks as the answer, as worked solutions do, else all of it."""
    text = str(gold).strip()
    return marked(text) or text


def gold_number(gold: Any) -> Fraction | None:
    """The number that a row's `answer` is; None if it is none."""
    return number(gold_text(gold))


def gold_key(gold: Any) -> str:
    """A text by which equal answers of rows are equal: the number of a numeric one, else its words without case."""
    value = gold_number(gold)
    return " ".join(gold_text(gold).casefold().split()) if value is None else plain(value)


def gold_spellings(gold: Any) -> set[str]:
    """How a row's `answer` may be spelled: as it stands or what it marks; a number or a truth value, as JSON or plainly."""
    texts = {str(gold), gold_text(gold)}
    if isinstance(gold, bool):
        texts.add(str(gold).lower())
    elif isinstance(gold, float) and (value := number(str(gold))) is not None:
        texts.add(plain(value))
    return {" ".join(text.split()) for text in texts}


def repeats(answer: str, question: str, share: float = 0.8) -> bool:
    """The answer stands in the question, or more than a share of its words do in the same order (ROUGE-L precision)."""
    mine, theirs = (re.findall(r"\w+", text.lower()) for text in (answer, question))
    # Longest common subsequence of the words so far and the first k words of the question.
    longest = [0] * (len(theirs) + 1)
    for word in mine:
        before, longest = longest, [0]
        for k, other in enumerate(theirs):
            longest.append(before[k] + 1 if word == other else max(before[k + 1], longest[k]))
    return bool(answer) and (answer in question or longest[-1] > share * len(mine))
