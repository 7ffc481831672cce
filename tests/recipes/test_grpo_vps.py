"""GRPO-VPS: segments are paid for raising the policy's belief in the gold answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.recipes.grpo_vps import belief, segments
from cohort.reductions.groups import top_tokens
from cohort.types import Batch
from tests.helpers import access_of, random_batch
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)
SEGMENTS = st.integers(1, 6)


def assigned(batch: Batch, **hyper: Any) -> torch.Tensor:
    return registry.method("grpo-vps", **hyper).bind().assign(batch).advantages


@settings(max_examples=15, deadline=None)
@given(SEEDS, SEGMENTS, st.floats(0.05, 1))
def test_segments_start_at_uncertain_tokens_and_share_them_evenly(seed: int, count: int, share: float) -> None:
    batch = random_batch(seed, width=12)
    entropy, mask = batch["old_entropy"], batch.mask
    segment = segments(batch, num_segments=count, entropy_fraction=share)
    candidates = top_tokens(entropy, mask, share)
    for row, valid, hot in zip(segment, mask, candidates, strict=True):
        own = row[valid]
        if not own.numel():
            continue
        assert own[0] == 0
        assert int(own[-1]) < count
        assert bool(((own.diff() == 0) | (own.diff() == 1)).all())
        starts = torch.cat([torch.tensor([False]), own.diff() == 1])
        assert bool(hot[valid][starts].all())
        held = torch.bincount(own[hot[valid]], minlength=int(own[-1]) + 1)
        # Each holds a count-th part, rounded up or down; with fewer candidates than segments, at most one.
        most = -(-int(hot.sum()) // count)
        assert int(held.max()) <= most
        assert bool((held >= int(hot.sum()) // count).all())


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0, 2))
def test_the_bonus_telescopes_and_stays_within_alpha(seed: int, alpha: float) -> None:
    batch = batch_for("grpo-vps", seed=seed, width=12)
    plain = registry.method("grpo").bind().assign(batch).advantages
    bonus = (assigned(batch, alpha=alpha) - plain) * batch.mask
    assert float(bonus.abs().max()) <= alpha + 1e-9
    segment = segments(batch, num_segments=4, entropy_fraction=0.5)
    beliefs = batch["confidences"]
    for i in range(batch.size):
        own, at = segment[i][batch.mask[i]], bonus[i][batch.mask[i]]
        if not own.numel():
            continue
        each = torch.stack([at[own == k].unique(sorted=False)[0] for k in range(int(own[-1]) + 1)])
        assert torch.allclose(each.sum(), alpha * (beliefs[i, len(each)] - beliefs[i, 0]))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_without_the_bonus_it_is_grpo(seed: int) -> None:
    batch = batch_for("grpo-vps", seed=seed)
    assert torch.equal(assigned(batch, alpha=0.0), registry.method("grpo").bind().assign(batch).advantages)


def test_a_group_of_one_outcome_is_still_taught_by_its_progress() -> None:
    batch = batch_for("grpo-vps", seed=2)
    batch = batch.replace(rewards=torch.zeros_like(batch.rewards))
    assert assigned(batch).any()


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_a_joint_belief_is_at_most_that_per_token(seed: int) -> None:
    logp = -torch.rand(5, 3, generator=torch.Generator().manual_seed(seed))
    mask = torch.arange(3) < torch.tensor([1, 2, 3, 1, 2])[:, None]
    joint, each = (belief(logp, mask, confidence=kind) for kind in ("joint", "per_token"))
    assert bool((joint <= each + 1e-6).all())
    assert torch.allclose(joint[[0, 3]], each[[0, 3]])


class Scorer:
    """Passes whose log-probability of any token is minus a tenth of the context's length."""

    def __init__(self) -> None:
        self.contexts: list[Sequence[int]] = []
        self.completions: list[Sequence[int]] = []

    def __call__(self, contexts: Any, completions: Any, **_: Any) -> dict[str, torch.Tensor]:
        self.contexts, self.completions = list(contexts), list(completions)
        rows = torch.tensor([-len(context) / 10 for context in contexts])
        return {"logp": rows[:, None].expand(-1, max(len(c) for c in completions))}


def attached(texts: list[str], **hyper: Any) -> tuple[Batch, Scorer, Any]:
    score = Scorer()
    access = access_of(texts, columns=[{"gold": 7 + 35 * i} for i in range(len(texts))], log_probs=score)
    width = max(len(r.tokens) for r in access.rollouts)
    mask = torch.arange(width) < torch.tensor([len(r.tokens) for r in access.rollouts])[:, None]
    batch = Batch(
        mask=mask,
        tokens={"old_entropy": torch.arange(width).float().expand(len(texts), -1)},
        rollouts={"group": torch.zeros(len(texts), dtype=torch.int64)},
    )
    made = registry.method("grpo-vps", answer="gold", closing=" so ", num_segments=2, **hyper)
    return made.bind().on_scored(batch, access), score, access


def test_beliefs_are_of_the_gold_answer_after_each_closed_prefix() -> None:
    batch, score, access = attached(["abcde", "abxyz"])
    # Entropy rises with the place: of six tokens the last three are candidates, and the second of these starts a segment.
    said = [access.decode(context).removeprefix("question 0") for context in score.contexts]
    assert said == [" so ", "abcd so ", "abcde so ", " so ", "abxy so ", "abxyz so "]
    assert [access.decode(tokens) for tokens in score.completions] == ["7", "7", "7", "42", "42", "42"]
    lengths = torch.tensor([len(context) for context in score.contexts]).reshape(2, 3)
    want = (-lengths / 10 * torch.tensor([[1], [2]])).exp()
    assert torch.allclose(batch["confidences"], want)
    per_token, _, _ = attached(["abcde", "abxyz"], confidence="per_token")
    assert torch.allclose(per_token["confidences"], (-lengths / 10).exp())


def test_equal_prefixes_are_scored_once_and_short_rollouts_keep_their_last_belief() -> None:
    batch, score, _ = attached(["", "abcde"])
    same, again, _ = attached(["abcde"] * 2)
    assert len(score.contexts) == 4
    # The first has only its stop token, and one segment with nothing in it.
    assert batch["confidences"][0].unique().numel() == 1
    assert len(again.contexts) == 6
    assert same["confidences"].shape == (2, 3)


def test_the_gold_answer_is_a_column_that_every_row_must_have() -> None:
    assert registry.method("grpo-vps(answer='gold')").columns == {"gold": "progress_bonus"}
    assert registry.method("grpo-vps").provides == {"confidences"}


def test_rollouts_without_tokens_have_no_belief() -> None:
    batch = random_batch(0, groups=(2,))
    empty = batch.replace(mask=torch.zeros_like(batch.mask))
    made = registry.method("grpo-vps").bind().on_scored(empty, access_of(["", ""], columns=[{"answer": "1"}] * 2))
    assert not made["confidences"].any()
