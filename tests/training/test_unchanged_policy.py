"""The ratio of an unchanged policy is 1, whatever restricts sampling: the trainer scores over what was drawn over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from cohort.policies.passes import log_probs
from cohort.training.build import Setup, optimizer_of, prepare
from cohort.training.config import make_config
from cohort.training.loop import one_step
from cohort.training.merging import replay_actions
from cohort.training.outcome import mismatch
from cohort.training.precision import MasterWeights
from cohort.training.progress import Progress
from cohort.training.update import gradient
from cohort.types import Rollout
from tests.helpers import in_float64
from tests.stepping import run_of, sample

# Every option that restricts or shapes the distribution, at once and one by one; and by how much the mean ratio would be
# off if the renormalised distribution were compared with the full one at the same temperature, as other trainers do.
ALL = {
    "temperature": 0.7,
    "top_p": 0.8,
    "top_k": 5,
    "min_p": 0.1,
    "min_new_tokens": 3,
    "logit_bias": {7: 2.0, "a": -1.0},
    "stop": ["3"],
}
OPTIONS = [
    ({"top_p": 0.8}, 0.15),
    ({"top_k": 5}, 0.8),
    ({"min_p": 0.5}, 0.6),
    ({"temperature": 0.7}, 0.0),
    ({"min_new_tokens": 6}, 0.005),
    ({"logit_bias": {7: 5.0}}, 0.8),
    (ALL, 0.8),
]


@contextmanager
def ready(base: dict[str, Any], **changes: Any) -> Iterator[tuple[Setup, MasterWeights, Progress]]:
    setup = prepare(make_config({**base, **changes}), log=lambda _: None)
    try:
        optimizer = optimizer_of(setup)
        yield setup, optimizer, Progress(states=setup.method.init(size=len(setup.prompts)))
    finally:
        setup.close()


def without_support(rollout: Rollout) -> Rollout:
    """The rollout as if nothing had been left out of what its tokens were drawn over."""
    return rollout.replace(segments=tuple(replace(segment, support=None) for segment in rollout.segments))


def ended_early(rollout: Rollout, stop: int) -> Rollout:
    """The rollout with a stop token, of which nothing is known, in place of its third."""
    segment = rollout.segments[0]
    support = segment.support
    cut = replace(
        segment, actions=(*segment.actions[:2], stop), logp=None, entropy=None, support=support and support.cut(3)
    )
    return rollout.replace(segments=(cut,))


def scored(setup: Setup, rollouts: list[Rollout]) -> torch.Tensor:
    """Log-probabilities [N, T] as the trainer takes them."""
    config = setup.config
    width = max(len(r.tokens) for r in rollouts)
    how = {"width": width, "temperature": config.sampling.temperature, "micro_tokens": setup.micro_tokens}
    return log_probs(setup.policy, setup.policy.actions(rollouts), **how)["logp"]


@pytest.mark.parametrize(("options", "off"), OPTIONS, ids=lambda x: "+".join(x) if isinstance(x, dict) else "")
def test_the_ratio_of_an_unchanged_policy_is_1(base: dict[str, Any], options: dict[str, Any], off: float) -> None:
    with ready(base, method="grpo", reward=["format:[0-4]"], **options) as (setup, optimizer, progress):
        # With old log-probabilities of the sampler, to rounding; with those of the full distribution, it would not be.
        run = run_of(setup, None, progress)
        rollouts, _, method = sample(run)
        batch = run.batches.of(method, rollouts)
        ours, full = scored(setup, rollouts), scored(setup, [without_support(r) for r in rollouts])
        ratio, wrong = ((logp - batch["sampler_logp"]).exp()[batch.mask] for logp in (ours, full))
        assert (ratio - 1).abs().max() < 2e-5
        assert (wrong - 1).abs().mean() >= off
        in_float64(setup.policy)
        run = run_of(setup, None, progress)
        rollouts, _, method = sample(run)
        batch = run.batches.of(method, rollouts)
        batch = method.assign(method.shape(batch))
        batch = batch.replace(old_logp=batch["sampler_logp"], ref_logp=scored(setup, rollouts))
        done = gradient(
            setup.policy,
            method,
            batch,
            setup.policy.actions(rollouts),
            temperature=setup.config.sampling.temperature,
            micro_tokens=10**6,
            on_policy=False,
        )
        assert (done.fields["ratio"][batch.mask] - 1).abs().max() < 1e-6
        assert max(mismatch(batch.replace(logp=done.fields["logp"]))) < 1e-6
        optimizer.zero_grad()

        # In the step that draws, exactly; and the reference is the policy that drew: the KL begins at 0.
        result = one_step(run_of(setup, optimizer, progress))
        assert result.batch is not None
        assert result.batch.mask.any()
        assert (result.batch["ratio"][result.batch.mask] == 1.0).all()
        assert result.metrics["kl"] == pytest.approx(0.0, abs=1e-12)


def test_a_completion_that_is_too_short_for_the_minimum_has_a_finite_log_probability(base: dict[str, Any]) -> None:
    """A stop token that nobody drew under the rule, as in a rollout that a method put together."""
    with ready(base, min_new_tokens=8) as (setup, _, progress):
        rollouts, _, _ = sample(run_of(setup, None, progress))
        assert all(len(r.tokens) == 8 for r in rollouts)
        stop = next(iter(setup.policy.renderer.stop_ids))
        logp = scored(setup, [ended_early(r, stop) for r in rollouts])
    assert logp.isfinite().all()


def test_what_is_trained_on_again_keeps_what_it_was_drawn_over(base: dict[str, Any]) -> None:
    # With a learning rate that moves nothing, the policy of a later step is the one that drew.
    with ready(base, method="r2vpo(replay=2)", lr=1e-12, **ALL) as (setup, optimizer, progress):
        for _ in range(2):
            one_step(run_of(setup, optimizer, progress))
        (replayed,) = setup.method.bind(progress.states).replay()
        again = replay_actions(setup.policy, replayed)
        how = {"width": replayed.batch.mask.shape[1], "temperature": 0.7, "micro_tokens": 10**6}
        ratio, wrong = (
            (log_probs(setup.policy, sequences, **how)["logp"] - replayed.batch.old_logp).exp()[replayed.batch.mask]
            for sequences in (again, replace(again, support=()))
        )
    assert (ratio - 1).abs().max() < 2e-5
    assert (wrong - 1).abs().mean() > 0.5


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        # Logits and entropies over the vocabulary, of which tokens are excluded.
        ("mdpo(kl='full')", {"updates": 2}),
        ("sdpo(mode='topk_logits')", {}),
        ("srpo", {}),
        ("dcpo", {}),
        # Rollouts put together from others, cut, and trained on again later.
        ("s-grpo(exit_text='!',end_of_thinking='@')", {}),
        ("r2vpo(replay=2)", {}),
        ("hapo", {}),
    ],
)
def test_methods_that_look_closer_stay_finite_and_unmismatched(
    base: dict[str, Any], method: str, changes: dict[str, Any]
) -> None:
    with ready(base, method=method, **{**ALL, "stop": [], **changes}) as (setup, optimizer, progress):
        for _ in range(4):
            metrics = one_step(run_of(setup, optimizer, progress)).metrics
            assert metrics["mismatch_max"] < 1e-4
        assert progress.skipped == 0
        assert progress.updates >= 4
        assert all(p.isfinite().all() for p in setup.policy.trainable())
