"""A predictor of success that reads what is known of other prompts."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.signals.predictor import learned, losses, paired, predict, untrained

SEEDS = st.integers(0, 10_000)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.floats(-5, 5))
def test_what_shifts_all_scores_alike_does_not_change_the_ranking(seed: int, shift: float) -> None:
    logits = torch.randn(8, 2, generator=rng(seed), dtype=torch.float64)
    labels = torch.rand(8, generator=rng(seed), dtype=torch.float64)
    moved = logits + torch.tensor([0.0, shift], dtype=torch.float64)
    before, after = losses(logits, labels, alpha=1.0)[1], losses(moved, labels, alpha=1.0)[1]
    assert torch.isclose(before, after)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), SEEDS)
def test_pairs_are_a_success_and_a_failure(rates: list[float], seed: int) -> None:
    labels = torch.tensor(rates)
    places = paired(labels, rng(seed))
    assert {*places.tolist()} == {*range(len(rates))}
    if 0 < int((labels >= 0.5).sum()) < len(rates):
        assert bool((labels[places[::2]] >= 0.5).all())
        assert bool((labels[places[1::2]] < 0.5).all())
    else:
        assert places.tolist() == list(range(len(rates)))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_order_of_what_is_known_does_not_matter(seed: int) -> None:
    g = rng(seed)
    known, success, queries = torch.randn(7, 5, generator=g), torch.rand(7, generator=g), torch.randn(3, 5, generator=g)
    order = torch.randperm(7, generator=g)
    model = untrained(5)
    first, second = predict(model, queries, known, success), predict(model, queries, known[order], success[order])
    assert torch.allclose(first, second, atol=1e-5)


def test_it_learns_which_features_matter() -> None:
    """Success depends on one of twelve features; what it has learnt holds in a context that it has not seen."""
    g, model = rng(0), untrained(12)

    def drawn(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randn(count, 12, generator=g)
        return x, (x[:, 3] > 0).float()

    def right(model: dict[str, torch.Tensor]) -> float:
        (known, success), (queries, labels) = drawn(60), drawn(400)
        said = predict(model, queries, known, success)
        return float(((said[:, 1] > said[:, 0]).float() == labels).float().mean())

    before = right(model)
    for _ in range(30):
        (known, success), (queries, labels) = drawn(60), drawn(30)
        how = {"alpha": 0.25, "lr": 0.02}
        model = learned(model, queries, labels, known, success, updates=4, rng=g, **how)
    assert before < 0.8
    assert right(model) > 0.9
    assert model["updates"] == 120


def test_of_one_kind_alone_it_learns_the_rates() -> None:
    g = rng(1)
    known, success = torch.randn(6, 4, generator=g), torch.rand(6, generator=g)
    model = learned(untrained(4), known, torch.ones(6), known, success, alpha=0.25, lr=0.05, updates=20, rng=rng(2))
    assert float(predict(model, known, known, success).softmax(1)[:, 1].mean()) > float(
        predict(untrained(4), known, known, success).softmax(1)[:, 1].mean()
    )
