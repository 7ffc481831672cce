"""PolicyRollout's identities (arXiv:2510.09474): who saw the document, and where all are trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cohort import registry
from cohort.errors import UsageError
from cohort.reductions.groups import group_sum
from tests import micro
from tests.golden.guided import FakeSampler, guided, requests_of, text_of
from tests.helpers import random_batch
from tests.stepping import run_of, sample


@pytest.mark.parametrize(("aware", "count"), [(None, 3), (0, 0), (2, 2), (7, 7)])
def test_rollouts_that_saw_the_document_join_the_group_as_answers_to_the_plain_prompt(
    aware: int | None, count: int
) -> None:
    sampler, asked = FakeSampler(lambda r: 1.0), requests_of(2, 3, document=["rules", "laws"])
    groups = guided(registry.method("policy-rollout", aware=aware), asked, sampler)
    assert [len(groups[p]) for p in (0, 1)] == [3 + count] * 2
    assert all(r.request.context.tokens == r.prompt.tokens for members in groups.values() for r in members)
    assert [r.segments[0].logp is None for r in groups[0]] == [False] * 3 + [True] * count
    assert sampler.drawn[:6] == asked
    assert {text_of(r) for r in sampler.drawn[6:]} == ({"rules\n\n<0>", "laws\n\n<1>"} if count else set())
    # Noise of its own for every rollout.
    assert len({r.seed for r in sampler.drawn}) == len(sampler.drawn)


def test_the_joint_group_gives_failures_a_signal() -> None:
    batch = random_batch(0, groups=(8, 8), empty=False)
    aware = torch.arange(16) % 2 == 0
    batch = batch.replace(rewards=aware.double())
    advantages = registry.method("policy-rollout").bind().assign(batch)["outcome_advantage"]
    assert (advantages[~aware] < 0).all()
    assert torch.allclose(group_sum(advantages, batch.groups), torch.zeros(2, dtype=torch.float64), atol=1e-9)


def test_a_document_that_does_not_fit_is_refused() -> None:
    sampler = FakeSampler(lambda r: 1.0, context_length=40)
    with pytest.raises(UsageError, match="shorten the text"):
        guided(registry.method("policy-rollout"), requests_of(1, 2, document=["long " * 20]), sampler)
    assert not sampler.drawn


def test_all_ratios_are_one_at_the_first_update(micro_root: Path) -> None:
    """The engine's numbers of those that saw the document are not used; entropies are those behind the plain prompt."""
    how = "earl:credit+policy-rollout"
    with micro.ready(micro_root, how, group_size=3, steps=3, updates=2) as (setup, optimizer, progress):
        run = run_of(setup, optimizer, progress)
        rollouts, _, method = sample(run)
        assert len(rollouts) == 48
        batch = run.batches.with_old_logp(run.batches.of(method, rollouts), rollouts)
        scored = run.trainer.log_probs(
            setup.policy.actions(rollouts), frozenset({"logp", "entropy"}), width=batch.mask.shape[1]
        )
        assert torch.allclose(batch.old_logp, scored["logp"] * batch.mask, atol=1e-5)
        assert not batch["old_entropy"].isnan().any()
        aware = batch["sampler_logp"].isnan().any(1)
        assert int(aware.sum()) == 24
        assert torch.allclose(batch["old_entropy"][aware], (scored["entropy"] * batch.mask)[aware], atol=1e-5)
        results = micro.train(setup, optimizer, progress)
    assert max(step.metrics["mismatch_max"] for step in results) < 1e-4
    assert all(step.metrics["skipped_updates"] == 0 for step in results)


def test_pretraining_fits_texts_but_not_the_tokens_of_media(micro_root: Path) -> None:
    texts = [{"prompt": "", "completion": text, "label": True} for text in ("ab~~", "cd~", "~~")]
    how = "policy-rollout(stage='pretraining', media_tokens=('~',))"
    given = {"data": None, "pairs": texts, "reward": [], "prompts_per_step": 1, "steps": 12, "lr": 1e-2}
    with micro.ready(micro_root, how, **given) as (setup, optimizer, progress):
        results = micro.train(setup, optimizer, progress)
        run = run_of(setup, optimizer, progress)
        rollouts, _, method = sample(run)
        batch = run.batches.scored(method, rollouts)
        assert batch["visual"].sum() == sum(r.text.count("~") for r in rollouts)
    losses = [step.metrics["loss"] for step in results]
    assert losses[-1] < 0.6 * losses[0], losses
