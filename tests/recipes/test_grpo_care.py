"""GRPO-CARE: a bonus for right answers that follow from their own reasoning, by a slow copy of the policy."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from cohort import registry
from cohort.recipes.grpo_care import answer_likelihood, consistency_bonus
from cohort.reductions.groups import group_mean
from cohort.rollouts.batching import make_batch
from cohort.signals.spans import answer_span
from cohort.training import checkpoint, state
from cohort.training.build import optimizer_of, prepare
from cohort.training.config import make_config
from cohort.training.display import Display
from cohort.training.loop import one_step
from cohort.training.progress import Progress
from cohort.training.run import train
from cohort.types import Batch
from tests.helpers import access_of
from tests.stepping import run_of
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)


def bonus(batch: Batch, **hyper: Any) -> Tensor:
    return registry.method("grpo-care", **hyper).bind().shape(batch).rewards - batch.rewards


def accurate(batch: Batch) -> Tensor:
    """S, by loops."""
    a, group = batch["accuracy"], batch.groups.index
    mean = group_mean(a, batch.groups)[group]
    return (a > 0.1) & (a >= mean - 1e-9)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.booleans())
def test_accurate_rollouts_alone_gain_and_the_most_confident_one_does(seed: int, graded: bool) -> None:
    batch = batch_for("grpo-care", seed=seed)
    if graded:
        batch = batch.replace(accuracy=torch.rand(batch.size, generator=torch.Generator().manual_seed(seed)).double())
    got, inside = bonus(batch, bonus_coefficient=0.3), accurate(batch)
    assert not got[~inside].any()
    assert bool((got <= 0.3 * batch["accuracy"] + 1e-12).all())
    confidence = answer_likelihood(batch["ema_ref_logp"], batch["answer_mask"].bool()).clamp(max=0.95)
    for group in range(3):
        members = (batch.groups.index == group) & inside
        if members.any():
            assert got[members][confidence[members].argmax()] > 0


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_without_a_bonus_it_is_grpo_and_with_a_wide_margin_all_accurate_ones_gain(seed: int) -> None:
    batch = batch_for("grpo-care", seed=seed)
    plain = registry.method("grpo(kl_beta=0.0)")
    assert torch.equal(
        registry.method("grpo-care(bonus_coefficient=0)").bind().prepare(batch).batch.advantages,
        plain.bind().prepare(batch).batch.advantages,
    )
    wide = bonus(batch, margin=0.95)
    assert torch.allclose(wide, 0.5 * batch["accuracy"] * accurate(batch).double())


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.2, 1.0))
def test_equal_confidences_change_no_advantage_of_an_all_right_group(seed: int, confidence: float) -> None:
    batch = batch_for("grpo-care", seed=seed)
    right = torch.full((batch.size,), 0.7).double()
    got = consistency_bonus(torch.full_like(right, confidence), right, batch.groups, bonus_coefficient=0.5, margin=0.0)
    assert torch.equal(got, 0.5 * right)


def test_where_the_answer_stands() -> None:
    def found(text: str) -> str | None:
        span = answer_span(text, "<answer>", "</answer>")
        return None if span is None else text[slice(*span)]

    assert found("<answer>1</answer> no, <answer>2</answer>.") == "2"
    assert found("I say <answer>3") == "3"
    assert found("3</answer>") is None
    assert found("<answer></answer>") == ""


def test_the_teacher_is_asked_about_the_tokens_of_the_answer() -> None:
    texts = ["a<answer>12</answer>", "no", "<answer>345"]
    asked: dict[str, Any] = {}

    def log_probs(contexts: list[Any], completions: list[Any], *, role: str) -> dict[str, Tensor]:
        asked.update(contexts=contexts, role=role)
        return {"logp": torch.arange(21.0).expand(3, 21).neg()}

    access = access_of(texts, log_probs=log_probs)
    batch = make_batch(access.rollouts, {})
    made = registry.method("grpo-care").bind().on_scored(batch, access)
    assert asked["role"] == "ema"
    assert asked["contexts"] == [rollout.request.context for rollout in access.rollouts]
    answers = [[i for i, x in enumerate(row) if x] for row in made["answer_mask"].tolist()]
    assert answers == [[9, 10], [], [8, 9, 10]]
    assert torch.equal(made["ema_ref_logp"][0], -torch.arange(21.0))


@pytest.mark.parametrize(("decay", "every"), [(0.0, 1), (1.0, 1), (0.5, 2)])
def test_the_teacher_follows_the_policy(base: dict[str, Any], decay: float, every: int) -> None:
    method = f"grpo-care(teacher_decay={decay},teacher_every={every})"
    setup = prepare(make_config({**base, "method": method, "updates": 3}), log=lambda _: None)
    try:
        optimizer = optimizer_of(setup)
        start = [p.clone() for p in setup.policy.model.parameters()]
        one_step(run_of(setup, optimizer, progress := Progress(states=setup.method.init(size=len(setup.prompts)))))
    finally:
        setup.close()
    assert progress.updates == 3
    teacher, policy = list(setup.policy.roles.models["ema"].parameters()), list(setup.policy.model.parameters())
    moved = any(not torch.equal(a, b) for a, b in zip(start, policy, strict=True))
    assert moved
    if decay == 0.0:
        assert all(torch.equal(a, b) for a, b in zip(teacher, policy, strict=True))
    elif decay == 1.0:
        assert all(torch.equal(a, b) for a, b in zip(teacher, start, strict=True))
    else:
        # After the second of three updates: between where the policy began and where it is.
        assert not any(torch.equal(a, b) for a, b in zip(teacher[:1], policy[:1], strict=True))
        assert not any(torch.equal(a, b) for a, b in zip(teacher[:1], start[:1], strict=True))


def test_the_teacher_survives_a_stop(base: dict[str, Any], tmp_path: Path) -> None:
    """Policy and teacher after a resumed run are those of an uninterrupted one."""

    def run(out: str, *, stop: int = 0, resume: bool = False) -> dict[str, dict[str, Tensor]]:
        changes = {
            "method": "grpo-care(teacher_every=1)",
            "prompts_per_step": 1,
            "steps": 3,
            "out": str(tmp_path / out),
        }
        display = Display(quiet=True)
        display.step = lambda step, *_, **__: signal.raise_signal(signal.SIGINT) if step == stop else None  # type: ignore[method-assign]
        result = train(make_config({**base, **changes}), resume=resume, display=display)
        assert result.stopped == bool(stop)
        found = checkpoint.newest(result.folder / "checkpoints")
        assert found is not None
        return {
            "policy": load_file(found / "model" / "model.safetensors"),
            "ema": checkpoint.read_state(found)["roles"]["ema"],
        }

    whole = run("whole")
    early = run("stopped", stop=2)
    resumed = run("stopped", resume=True)
    for model, weights in whole.items():
        assert all(torch.equal(resumed[model][name], value) for name, value in weights.items()), model
        assert not all(torch.equal(early[model][name], value) for name, value in weights.items()), model
    assert not all(torch.equal(whole["ema"][name], value) for name, value in whole["policy"].items())


def test_a_checkpoint_that_calls_the_roles_otherwise_goes_on(base: dict[str, Any], tmp_path: Path) -> None:
    """Earlier versions wrote the weights beside the policy as `side`, and those of the copy as `teacher`."""
    config = make_config({**base, "method": "grpo-care", "out": str(tmp_path)})
    kept, taken = [prepare(config, log=lambda _: None) for _ in range(2)]
    try:
        runs = [
            run_of(setup, optimizer_of(setup), Progress(states=setup.method.init(size=len(setup.prompts))))
            for setup in (kept, taken)
        ]
        one_step(runs[0])
        runs[0].trainer.save(tmp_path / "model")
        written = state.capture(runs[0], {}, {})
        written["side"] = {"teacher": written.pop("roles")["ema"]}
        state.restore(tmp_path, written, runs[1])
        pairs = zip(kept.policy.roles.models.values(), taken.policy.roles.models.values(), strict=True)
        assert all(
            torch.equal(a, b) for one, two in pairs for a, b in zip(one.parameters(), two.parameters(), strict=True)
        )
    finally:
        kept.close()
        taken.close()
