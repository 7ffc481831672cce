"""Format-length: a readable answer of a good length is rewarded, no label is read."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.recipes.format_length import length_reward
from cohort.signals.formulas import reads_as_math
from cohort.types import Batch
from tests.helpers import access_of, info_of, random_batch
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)
PEAK = st.floats(0.05, 0.95)


def shaped(batch: Batch, **hyper: Any) -> torch.Tensor:
    return registry.method("format-length", **hyper).bind(info=info_of(batch)).shape(batch).rewards


@settings(max_examples=15, deadline=None)
@given(PEAK, st.integers(10, 5000))
def test_the_length_reward_rises_to_its_peak_and_falls_to_minus_one(p: float, most: int) -> None:
    x = torch.linspace(0, 1, 2001, dtype=torch.float64)
    f = length_reward(x * most, max_len=most, p=p)
    assert (f[0], f[-1]) == (0, pytest.approx(-1))
    assert bool((f.diff()[x[1:] < p - 1e-9] > 0).all())
    assert bool((f.diff()[x[:-1] > p + 1e-9] < 0).all())
    near = length_reward(torch.tensor([p - 1e-6, p, p + 1e-6], dtype=torch.float64) * most, max_len=most, p=p)
    assert near[1] == pytest.approx(1)
    # No slope at the peak, from either side.
    assert float((near - near[1]).abs().max()) < 1e-8
    zero = torch.tensor([(p + (1 - p) / 2**0.5) * most], dtype=torch.float64)
    assert float(length_reward(zero, max_len=most, p=p)) == pytest.approx(0, abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(SEEDS, PEAK, st.floats(0, 2))
def test_without_a_readable_answer_nothing_is_earned(seed: int, p: float, weight: float) -> None:
    batch = batch_for("format-length", seed=seed)
    rewards = shaped(batch, p=p, format_weight=weight)
    unread = batch["answer_format"] == 0
    assert bool((rewards[unread] <= 0).all())
    length = length_reward(batch.lengths, max_len=6, p=p)
    assert torch.allclose((rewards - length)[~unread], weight * (1 + batch["think_format"])[~unread])


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(["format_length", "format"]))
def test_labels_never_enter(seed: int, mode: str) -> None:
    batch = batch_for("format-length", seed=seed)
    other = batch.replace(accuracy=1 - batch["accuracy"], rewards=1e3 - batch.rewards)
    assert torch.equal(shaped(batch, mode=mode), shaped(other, mode=mode))
    assert not torch.equal(shaped(batch, mode="correctness"), shaped(other, mode="correctness"))


def test_an_empty_readable_answer_is_worth_the_format_and_a_full_one_less_than_nothing() -> None:
    batch = random_batch(0, groups=(2,))
    ones = torch.ones(2).double()
    batch = batch.with_rollouts(length=torch.tensor([0.0, 6.0]).double(), answer_format=ones, think_format=0 * ones)
    assert shaped(batch).tolist() == [0.5, -0.5]


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("so it is \\boxed{\\frac{1}{2}}.", True),
        ("<answer>x^2 + 1</answer>", True),
        ("#### 17", True),
        ("it is 12", True),
        ("\\boxed{}", False),
        ("\\boxed{x^2+}", False),
        ("\\boxed{((}", False),
        ("no idea", False),
        ("", False),
    ],
)
def test_an_answer_reads_as_mathematics(text: str, reads: bool) -> None:
    assert reads_as_math(text) == reads


def test_formats_are_read_in_the_texts_on_any_thread() -> None:
    texts = ["<think>1\n</think>\\boxed{2}", "\\boxed{2}", "<think>hm</think> it is 7", "</think><think> hm"]
    found: list[Batch] = []

    def attach() -> None:
        found.append(registry.method("format-length").bind().on_scored(random_batch(0, groups=(4,)), access_of(texts)))

    attach()
    thread = threading.Thread(target=attach)
    thread.start()
    thread.join()
    assert len(found) == 2
    for batch in found:
        assert batch["answer_format"].tolist() == [1, 1, 1, 0]
        assert batch["think_format"].tolist() == [1, 0, 1, 0]
