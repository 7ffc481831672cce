"""Losses and measures of reward models against counting by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cohort.reductions.scores import (
    auc,
    calibration_error,
    disagreement,
    graded_loss,
    label_loss,
    lower_bound,
    mean_gap,
    ordered_share,
    pair_loss,
    probability,
)

VALUES = st.lists(st.integers(-3, 3), min_size=2, max_size=12)


@given(VALUES, st.randoms(use_true_random=False))
def test_auc_and_order_are_shares_of_pairs(values: list[int], random) -> None:
    labels = [random.randint(0, 1) for _ in values]
    pairs = [(v, w) for (v, a), (w, b) in itertools.product(zip(values, labels, strict=True), repeat=2) if a and not b]
    want = sum((v > w) + 0.5 * (v == w) for v, w in pairs) / len(pairs) if pairs else math.nan
    found = auc(torch.tensor(values, dtype=torch.float32), torch.tensor(labels))
    assert found == pytest.approx(want, nan_ok=True)
    # Of two outcomes, the pairs in order are those of the AUC.
    assert ordered_share(torch.tensor(values), torch.tensor(labels)) == pytest.approx(want, nan_ok=True)


def test_a_calibrated_model_has_no_error_and_a_bold_one_has_its_gap() -> None:
    observed = torch.tensor([1.0] * 8 + [0.0] * 2 + [1.0] * 2 + [0.0] * 8)
    sound = torch.tensor([0.8] * 10 + [0.2] * 10)
    assert calibration_error(sound, observed) == pytest.approx(0, abs=1e-7)
    assert mean_gap(sound, observed) == pytest.approx(0, abs=1e-7)
    bold = torch.tensor([0.95] * 10 + [0.05] * 10)
    # Too sure on both sides: the gaps cancel in the mean, not in the bins.
    assert calibration_error(bold, observed) == pytest.approx(0.15)
    assert mean_gap(bold, observed) == pytest.approx(0, abs=1e-7)
    assert math.isnan(calibration_error(torch.zeros(0), torch.zeros(0)))


@given(VALUES)
def test_equal_predictions_are_never_parted(values: list[int]) -> None:
    """Their order would decide the error otherwise."""
    predicted = torch.full((len(values),), 0.5)
    observed = (torch.tensor(values) > 0).double()
    assert calibration_error(predicted, observed) == pytest.approx(abs(0.5 - float(observed.mean())))


def test_the_pair_loss_pushes_both_scores_alike_and_does_not_mind_what_is_added_to_all() -> None:
    better, worse = torch.randn(2, 6, dtype=torch.float64).requires_grad_().unbind(0)
    (up,), (down,) = (
        torch.autograd.grad(pair_loss(better, worse), (each,), retain_graph=True) for each in (better, worse)
    )
    assert torch.allclose(up, -down)
    assert bool((up < 0).all())
    assert torch.allclose(pair_loss(better + 3, worse + 3), pair_loss(better, worse))


def test_what_is_not_known_has_no_share_in_the_loss() -> None:
    scores = torch.randn(3, 2, dtype=torch.float64).requires_grad_()
    known = torch.tensor([[1, 0], [1, 1], [0, 0]])
    targets = torch.tensor([[1.0, math.inf], [2.0, 3.0], [math.nan, 7.0]], dtype=torch.float64)
    loss = graded_loss(scores, targets, known)
    loss.backward()
    want = ((scores[0, 0] - 1) ** 2 + (scores[1, 0] - 2) ** 2 + (scores[1, 1] - 3) ** 2) / 3
    assert torch.allclose(loss, want)
    assert scores.grad is not None
    assert scores.grad[0, 1] == scores.grad[2, 0] == scores.grad[2, 1] == 0
    assert float(graded_loss(scores, targets, torch.zeros(3, 2)).detach()) == 0


def test_leaving_negatives_out_is_made_up_for() -> None:
    """Of 10 ones and 90 zeros a constant model says 0.1; of a ninth of the zeros 0.5, which the correction takes back."""
    assert float(probability(torch.tensor(0.0), 1 / 9)) == pytest.approx(0.1)
    scores = torch.zeros(20, dtype=torch.float64).requires_grad_()
    label_loss(scores, torch.tensor([1] * 10 + [0] * 10)).backward()
    assert scores.grad is not None
    assert scores.grad.sum() == pytest.approx(0)


def test_a_lower_bound_trusts_what_members_agree_on() -> None:
    scores = torch.tensor([[2.0, 2.0], [2.0, 6.0], [2.0, 4.0]])
    assert disagreement(scores).tolist() == pytest.approx([0, math.sqrt(8 / 3)])
    assert lower_bound(scores, 0.0).tolist() == [2, 4]
    assert lower_bound(scores, 2.0).tolist() == pytest.approx([2, 4 - 2 * math.sqrt(8 / 3)])
    assert disagreement(scores[:1]).tolist() == [0, 0]
