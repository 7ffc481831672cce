"""The length-aware BLEU, against a plain count and its identities."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.signals.overlap import best_bleu, length_aware_bleu

TEXTS = st.lists(st.sampled_from(["a", "b", "C", "d."]), max_size=6).map(" ".join)


@given(TEXTS, TEXTS)
def test_it_lies_between_0_and_1_and_is_1_for_the_same_words(a: str, b: str) -> None:
    assert 0 <= length_aware_bleu(a, b) <= 1 + 1e-12
    assert length_aware_bleu(a, a.upper()) == pytest.approx(float(bool(a)))
    assert best_bleu(a, [b, a]) == pytest.approx(float(bool(a)))
    assert best_bleu(a, []) == 0


@given(TEXTS, TEXTS, st.integers(1, 5))
def test_it_is_the_geometric_mean_of_precisions(a: str, b: str, most: int) -> None:
    said, wanted = a.lower().split(), b.lower().split()
    order, logs = min(most, len(said), len(wanted)), []
    for n in range(1, order + 1):
        runs, left, hits = [said[i : i + n] for i in range(len(said) - n + 1)], [], 0
        left = [wanted[i : i + n] for i in range(len(wanted) - n + 1)]
        for run in runs:
            if run in left:
                left.remove(run)
                hits += 1
        logs.append(math.log(hits / len(runs)) if hits else -math.inf)
    brevity = min(0.0, 1 - len(wanted) / len(said)) if said else 0.0
    want = math.exp(brevity + sum(logs) / order) if order else 0.0
    assert length_aware_bleu(a, b, max_order=most) == pytest.approx(want)
