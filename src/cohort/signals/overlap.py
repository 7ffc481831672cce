"""How far the words of a text are those of another."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence


def ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """How often each run of n words occurs."""
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def length_aware_bleu(candidate: str, reference: str, *, max_order: int = 4) -> float:
    """BP exp((1/N) sum_{n <= N} log p_n), N = min(max_order, words of either text): from 0 to 1.

    Words are parted by white space, without case. p_n is the clipped precision of runs of n words, without smoothing, and BP =
    min(1, exp(1 - |reference| / |candidate|)). A text shorter than max_order words is compared by the runs that it has, so
    that a right answer of one word is worth 1. 0 where a precision is 0, or a text is empty.

    Source: arXiv:2512.07478.
    """
    said, wanted = candidate.lower().split(), reference.lower().split()
    order = min(max_order, len(said), len(wanted))
    if not order:
        return 0.0
    total = 0.0
    for n in range(1, order + 1):
        found, known = ngrams(said, n), ngrams(wanted, n)
        matches = sum(min(count, known[run]) for run, count in found.items())
        if not matches:
            return 0.0
        total += math.log(matches / found.total())
    return min(1.0, math.exp(1 - len(wanted) / len(said))) * math.exp(total / order)


def best_bleu(candidate: str, references: Sequence[str], *, max_order: int = 4) -> float:
    """The largest `length_aware_bleu` with one of some references; 0 without any."""
    return max((length_aware_bleu(candidate, each, max_order=max_order) for each in references), default=0.0)
