"""How different completions of one prompt are, from their token ids."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import torch

Tokens = Sequence[int]


def ngrams(tokens: Tokens, n: int) -> Counter[tuple[int, ...]]:
    """n-gram -> how often it occurs; none in fewer than n tokens."""
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def bleu(candidate: Tokens, references: Sequence[Tokens], *, most: int = 3, smooth: float = 0.1) -> float:
    """BLEU of equal weights for 1- to `most`-grams, in [0, 1]. Source: Papineni et al. 2002.

    Args:
        smooth: takes the place of a count of matches that is 0; without a matching unigram the score is 0 all the same.
    """
    total = 0.0
    for n in range(1, most + 1):
        own, others = ngrams(candidate, n), [ngrams(reference, n) for reference in references]
        matches: float = sum(min(count, max(other[gram] for other in others)) for gram, count in own.items())
        if n == 1 and not matches:
            return 0.0
        total += math.log((matches or smooth) / max(1, own.total())) / most
    size = len(candidate)
    closest = min((abs(len(reference) - size), len(reference)) for reference in references)[1]
    return math.exp(total + min(0.0, 1 - closest / size))


def self_bleu(completions: Sequence[Tokens], *, most: int = 3) -> float:
    """Mean BLEU of each completion against the others; 0 for one alone. Source: Zhu et al. 2018, arXiv:1802.01886."""
    if len(completions) < 2:
        return 0.0
    every = list(completions)
    return sum(bleu(each, every[:i] + every[i + 1 :], most=most) for i, each in enumerate(every)) / len(every)


def distinct(completions: Sequence[Tokens], *, n: int = 3) -> float:
    """Share of n-grams of all completions that are different; 0 without any. Source: Li et al. 2016, arXiv:1510.03055."""
    counts: Counter[tuple[int, ...]] = Counter()
    for completion in completions:
        counts.update(ngrams(completion, n))
    return len(counts) / counts.total() if counts else 0.0


def edit_distance(first: Tokens, second: Tokens) -> int:
    """Insertions, deletions and replacements of tokens that make one of the other."""
    other, place = torch.tensor(list(second), dtype=torch.int64), torch.arange(len(second) + 1)
    row = place.clone()
    for i, token in enumerate(first, 1):
        best = torch.minimum(row[1:] + 1, row[:-1] + (other != token).long())
        best = torch.cat([torch.tensor([i]), best])
        # Insertions run on from the left: new[j] = min over k <= j of best[k] + j - k.
        row = (best - place).cummin(0).values + place
    return int(row[-1])


def mean_edit_distance(completions: Sequence[Tokens]) -> float:
    """Mean edit distance of pairs of completions, in tokens; 0 for one alone."""
    pairs = list(combinations(completions, 2))
    return sum(edit_distance(a, b) for a, b in pairs) / len(pairs) if pairs else 0.0
