"""Which tokens top-k, top-p and min-p leave, and drawing from them."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.engine.base import Sampling
from cohort.engine.truncation import BLOCK, allowed, draw


def log_probs(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64).log()


def test_top_p_keeps_the_smallest_set_with_that_mass() -> None:
    given_ = log_probs(0.5, 0.3, 0.15, 0.05)
    assert allowed(given_, Sampling(top_p=0.5))[0].tolist() == [True, False, False, False]
    assert allowed(given_, Sampling(top_p=0.51))[0].tolist() == [True, True, False, False]
    assert allowed(given_, Sampling(top_p=0.01))[0].tolist() == [True, False, False, False]


def test_top_k_and_min_p() -> None:
    given_ = log_probs(0.1, 0.6, 0.25, 0.05)
    assert allowed(given_, Sampling(top_k=2))[0].tolist() == [False, True, True, False]
    assert allowed(given_, Sampling(min_p=0.2))[0].tolist() == [False, True, True, False]
    assert allowed(given_, Sampling(top_k=3, top_p=0.6))[0].tolist() == [False, True, False, False]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), top_p=st.floats(0.05, 1.0), top_k=st.integers(0, 12), min_p=st.floats(0.0, 0.9))
def test_the_most_likely_token_stays_and_only_less_likely_ones_go(
    seed: int, top_p: float, top_k: int, min_p: float
) -> None:
    logits = torch.randn(3, 10, generator=torch.Generator().manual_seed(seed)) * 2
    scores = logits.log_softmax(-1)
    keep = allowed(scores, Sampling(top_p=top_p, top_k=top_k, min_p=min_p))
    assert keep.gather(1, scores.argmax(-1, keepdim=True)).all()
    for row, kept in zip(scores, keep, strict=True):
        if not kept.all():
            assert row[kept].min() >= row[~kept].max()


def test_drawing_inverts_the_distribution_function() -> None:
    scores = log_probs(0.2, 0.0, 0.5, 0.3).expand(6, 4)
    uniforms = torch.tensor([0.0, 0.19, 0.21, 0.69, 0.71, 1 - 1e-16], dtype=torch.float64)
    assert draw(scores.exp(), uniforms).tolist() == [0, 0, 2, 2, 3, 3]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), u=st.floats(0, 1, exclude_max=True))
def test_a_token_without_mass_is_never_drawn(seed: int, u: float) -> None:
    g = torch.Generator().manual_seed(seed)
    scores = (
        torch.randn(1, 12, generator=g).log_softmax(-1).masked_fill(torch.rand(1, 12, generator=g) < 0.6, -torch.inf)
    )
    scores[0, 3] = -1.0
    token = int(draw(scores.exp(), torch.tensor([u], dtype=torch.float64)))
    assert scores[0, token] > -torch.inf


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.sampled_from([1, 5, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 7]),
    u=st.floats(0, 1, exclude_max=True),
)
def test_blocks_of_the_vocabulary_change_nothing(seed: int, size: int, u: float) -> None:
    weight = torch.rand(2, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    weight[0, : size // 2] = 0.0
    uniforms = torch.tensor([u, u], dtype=torch.float64)
    for row, token in zip(weight, draw(weight, uniforms).tolist(), strict=True):
        below, here, total = row[:token].sum(), row[token], row.sum()
        assert below <= u * total + 1e-9
        assert u * total <= below + here + 1e-9
        assert here > 0
