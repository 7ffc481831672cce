"""Runs on an engine whose numbers are not the trainer's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from cohort.engine.base import Completion, Sampling
from cohort.engine.native.engine import NativeEngine, NativeSession
from cohort.training import build as setting_up
from cohort.training.build import prepare
from cohort.training.config import make_config
from cohort.training.display import Display
from cohort.training.run import Result, train
from tests.stepping import run_of, sample


class Rough(NativeEngine):
    """Reports log-probabilities that are off by up to 1 nat, always alike for the same token at the same place."""

    exact = False

    def session(self, sampling: Sampling) -> NativeSession:
        session = super().session(sampling)
        exact = session.next

        def rough() -> tuple[int, Completion]:
            number, done = exact()
            off = [((7 * token + 3 * t) % 11 - 5) / 5 for t, token in enumerate(done.tokens)]
            return number, replace(done, sampled_logp=[a + b for a, b in zip(done.sampled_logp, off, strict=True)])

        session.next = rough  # type: ignore[method-assign]
        return session


@pytest.fixture
def rough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        setting_up, "make_engine", lambda config, policy, sampling, log: Rough(policy, slots=config.inference.slots)
    )


def run(base: dict[str, Any], **changes: Any) -> Result:
    return train(make_config(base, changes), display=Display(quiet=True))


def test_a_step_of_one_update_is_corrected_where_the_engine_is_not_exact(base: dict[str, Any], rough: None) -> None:
    config = make_config(base, {"method": "grpo(kl_beta=0.0)"})
    said: list[str] = []
    setup = prepare(config, log=said.append)
    setup.close()
    assert [stage.name for stage in setup.method.correction] == ["importance_weight"]
    assert any("correction=off" in text for text in said)
    metrics = run(base, method="grpo(kl_beta=0.0)", steps=2).metrics[0]
    # d is -off, whose mean is near 0: weights lie on both sides of 1, and are cut at 2.
    assert 0.5 < metrics["correction/weight_mean"] < 2.0
    assert 0.3 < metrics["correction/effective_share"] < 0.999
    assert metrics["mismatch"] == pytest.approx(6 / 11, abs=0.2)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "grpo(kl_beta=0.0)", "correction": "off"},
        {"method": "grpo(kl_beta=0.0)", "old_logp": "sampler", "updates": 2},
        {"method": "disco(threshold=1.0)"},
        {"method": "rollout-correction(proximal='sampler')"},
    ],
)
def test_it_is_left_out_where_it_is_told_or_counts_elsewhere(
    base: dict[str, Any], rough: None, changes: dict[str, Any]
) -> None:
    setup = prepare(make_config(base, changes), log=lambda _: None)
    setup.close()
    assert setup.method.correction == ()


def test_a_method_with_a_correction_keeps_its_own(base: dict[str, Any], rough: None) -> None:
    own = "grpo+rollout-correction(level='sequence', mode='mask', high=3.0)"
    setup = prepare(make_config(base, {"method": own}), log=lambda _: None)
    setup.close()
    assert [stage.hyper["level"] for stage in setup.method.correction] == ["sequence"]


def test_nothing_is_corrected_on_the_embedded_engine(base: dict[str, Any]) -> None:
    assert not any(name.startswith("correction/") for name in run(base, steps=1).metrics[0])


@pytest.mark.parametrize("micro_tokens", [None, 40])
def test_rejection_is_the_same_whatever_a_pass_holds(
    base: dict[str, Any], rough: None, micro_tokens: int | None
) -> None:
    """Rejected tokens leave the divisor of the whole minibatch, also where it is cut into micro-batches."""
    method = (
        "rollout-correction(batch_normalize=True, criteria=[{'statistic': 'token_k1', 'high': 1.5}])+dapo:aggregation"
    )
    found = run(base, method=method, steps=2, updates=2, micro_tokens=micro_tokens, out=base["out"] + str(micro_tokens))
    whole = run(base, method=method, steps=2, updates=2, out=base["out"] + "whole")
    for a, b in zip(found.metrics, whole.metrics, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4, abs=1e-6)
        assert a["correction/zero_fraction"] == pytest.approx(b["correction/zero_fraction"])
        assert a["correction/zero_fraction"] > 0.1


def test_the_version_of_the_weights_is_known_of_every_token(base: dict[str, Any]) -> None:

    setup = prepare(make_config(base, {"method": "rollout-correction(max_staleness=0)"}), log=lambda _: None)
    try:
        run = run_of(setup)
        run.progress.updates = 7
        rollouts, _, method = sample(run)
        batch = run.batches.of(method, rollouts)
    finally:
        setup.close()
    assert torch.equal(batch["version"][batch.mask].unique(), torch.tensor([7]))
    assert method.info.version == 7
    assert bool(method.keep(batch).numel() == batch.size)


@pytest.mark.parametrize("keys", [{}, {"replay_groups": 2}])
def test_a_ratio_to_the_sampler_is_one_also_in_a_step_of_one_update(base: dict[str, Any], keys: dict[str, Any]) -> None:
    """With old_logp = sampler the ratio makes up for what the sampler said, and no weights do."""
    from cohort.training.loop import one_step

    config = make_config({**base, "old_logp": "sampler", "method": "grpo(kl_beta=0.0)", "lr": 1e-2, **keys})
    setup = prepare(config, log=lambda _: None)
    try:
        run = run_of(setup)
        results = [one_step(run) for _ in range(2)]
        batch = run.source.next(run.info(2), run.progress.states)
        assert not setup.method.correction
        for result in results:
            assert result.batch is not None
            # What the step itself drew.
            assert (result.batch["ratio"][result.batch.mask] - 1).abs().max() < 1e-3
        largest = results[1].metrics["ratio/max"]
        assert (abs(largest - 1) > 1e-3) == bool(keys)
        assert len(batch.replayed) == 4 * keys.get("replay_groups", 0)
        assert all(result.metrics["mismatch_max"] < 1e-3 for result in results)
    finally:
        setup.close()


def test_engine_and_trainer_are_compared_before_the_weights_move(base: dict[str, Any]) -> None:
    from cohort.training.loop import one_step

    keys = {"replay_groups": 3, "prompts_per_step": 1, "updates": 4, "lr": 1e-1, "method": "grpo(kl_beta=0.0)"}
    setup = prepare(make_config({**base, **keys}), log=lambda _: None)
    try:
        run = run_of(setup)
        results = [one_step(run) for _ in range(4)]
        assert max(result.metrics["mismatch_max"] for result in results) < 1e-3
    finally:
        setup.close()
