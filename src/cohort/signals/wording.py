"""How texts are compared by their words."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Sequence

# A sign is part of a number; what stands inside one parts no words.
_PIECES = re.compile(r"(?<![\w.])-?\d+(?:[.,]\d+)*|\w+(?:['’]\w+)*|[^\w\s]")
_SOFT = frozenset(".,;:!?'\"`“”‘’«»()[]{}<>…·*-–—/\\|")
_ARTICLES = frozenset({"a", "an", "the"})
_NO_WORD = re.compile(r"[^a-z0-9\s]")
_BOX = re.compile(r"\b\d+,\s*\d+,\s*\d+,\s*\d+\b")


def normal_words(text: str) -> tuple[str, ...]:
    """Words and numbers of a text, without case, articles, punctuation and separators of thousands.

    Signs that tell words apart stay, as in C++, C# and 45%; so do a number's sign and decimals. Where nothing is left, it
    is the text itself without case.
    """
    plain = unicodedata.normalize("NFKC", text).casefold().replace("’", "'").replace("−", "-")
    pieces = [each for each in _PIECES.findall(plain) if each not in _SOFT]
    out = tuple(_number(each) for each in pieces if each not in _ARTICLES)
    return out or tuple(plain.split())


def _number(piece: str) -> str:
    """1,234.50 as 1234.5; what is no number as it is."""
    if re.fullmatch(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?", piece):
        piece = piece.replace(",", "")
    if re.fullmatch(r"-?\d+\.\d+", piece):
        piece = piece.rstrip("0").rstrip(".")
    return piece


def f1(said: Sequence[Hashable], wanted: Sequence[Hashable]) -> float:
    """2 common / (said + wanted), each as often as it is there; 1 if both are empty."""
    mine, theirs = Counter(said), Counter(wanted)
    count = mine.total() + theirs.total()
    return 2 * (mine & theirs).total() / count if count else 1.0


def bleu1(said: str, wanted: str) -> float:
    """Share of the words said that are wanted, times exp(1 - wanted / said) where fewer are said; 0 without any.

    Words are of letters and digits (a-z, 0-9) without case. Source: arXiv:2505.15879, code eric-ai-lab/GRIT.
    """
    mine, theirs = (_NO_WORD.sub(" ", text.lower()).split() for text in (said, wanted))
    common = (Counter(mine) & Counter(theirs)).total()
    if not common:
        return 0.0
    brevity = 1.0 if len(mine) > len(theirs) else math.exp(1 - len(theirs) / len(mine))
    return brevity * common / len(mine)


def repeated(items: Sequence[Hashable], length: int, places: int) -> float:
    """Share of the first `places` places at which a run of `length` items is followed by the same run at once.

    A run that the end cuts off is equal to none; 0 where there is no place.
    """
    if places <= 0:
        return 0.0
    runs = [tuple(items[i : i + length]) for i in range(places + length)]
    return sum(len(runs[i]) == length and runs[i] == runs[i + length] for i in range(places)) / places


def unrepeated(words: Sequence[Hashable], tokens: Sequence[Hashable], length: int = 8) -> float:
    """1 less the shares of words' and of tokens' places that repeat what follows: from -1 to 1. Source: arXiv:2505.15879.

    It is 1 where fewer than `length` words or 2 `length` tokens are said.
    """
    if len(words) < length or len(tokens) < 2 * length:
        return 1.0
    by_words = repeated(words, length, len(words) - length)
    return 1.0 - repeated(tokens, length, len(tokens) - 2 * length + 1) - by_words


# tags ------------------------------------------------------------------------------------------------------------------


def answer_tag(text: str, tag: str = "<answer>") -> float:
    """1 if the tag is there once, 0.5 if more often, 0 if not. Source: arXiv:2505.15879."""
    count = text.count(tag)
    return 1.0 if count == 1 else 0.5 * (count > 0)


def tags_in_order(text: str, names: Sequence[str] = ("think", "rethink")) -> float:
    """Share of the marks <a> </a> <b> </b> ... that follow each other, plus one for what the first encloses.

    Each mark is looked for behind the last place of the one found before it. What the first encloses counts where all
    marks are found: two words at least, as parts of it between single spaces after its punctuation became spaces.
    Source: arXiv:2505.15879.
    """
    rest, found = text, 0
    marks = [mark for name in names for mark in (f"<{name}>", f"</{name}>")]
    for mark in marks:
        if mark in rest:
            found, rest = found + 1, rest[rest.rindex(mark) + len(mark) :]
    if found == len(marks):
        inside = text[text.rindex(marks[0]) + len(marks[0]) :]
        inside = inside[: inside.index(marks[1])].strip()
        spread = re.sub(r"[^a-zA-Z0-9\s]", " ", inside)
        found += len(inside) > 1 and len(spread.split(" ")) >= 2
    return found / (len(marks) + 1)


def boxes_in_thought(text: str, tag: str = "<rethink>") -> int:
    """How many boxes "x1, y1, x2, y2" of whole numbers stand before the tag; 0 without it. Source: arXiv:2505.15879."""
    return len(_BOX.findall(text.partition(tag)[0])) if tag in text else 0


def region(text: str, count: int | None) -> float:
    """0.5 for any box in the thought, plus 1 where there are `count`; 0 without <rethink>. Source: arXiv:2505.15879."""
    if "<rethink>" not in text:
        return 0.0
    boxes = boxes_in_thought(text)
    return 0.5 * (boxes > 0) + (boxes == count)
