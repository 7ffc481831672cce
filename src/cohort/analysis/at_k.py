"""pass@k and maj@k: what k of a problem's completions are worth."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence


def pass_at_k(correct: int, samples: int, k: int) -> float:
    """Chance that at least one of k completions, drawn without replacement from these, is correct.

    Source: the unbiased estimator of arXiv:2107.03374.
    """
    if samples - correct < k:
        return 1.0
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def majority_at_k(answers: Sequence[str | None], correct: Sequence[bool], k: int) -> float:
    """Share of disjoint runs of k completions whose most frequent answer is correct; the earliest wins a tie.

    Completions without an answer do not vote; a run without any answer is wrong.
    """
    runs = [range(start, start + k) for start in range(0, len(answers) - k + 1, k)]
    right = 0
    for run in runs:
        votes = Counter(answer for i in run if (answer := answers[i]) is not None)
        if votes:
            winner = votes.most_common(1)[0][0]
            right += next(correct[i] for i in run if answers[i] == winner)
    return right / len(runs)


def powers(samples: int) -> list[int]:
    """1, 2, 4, ... and `samples` itself."""
    out = [2**i for i in range(samples.bit_length()) if 2**i <= samples]
    return out if out[-1] == samples else [*out, samples]
