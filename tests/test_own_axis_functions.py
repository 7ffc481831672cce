"""A function of every axis comes in as a file of its own: each stands here, and is trained with for two steps."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from cohort.methods import Method, use
from cohort.methods.axis import AXES, MANY
from cohort.training.assembly import assemble
from cohort.training.build import prepare
from cohort.training.config import make_config
from cohort.training.loop import one_step
from cohort.types import Batch, Request, Rollout, StepInfo, grouped
from cohort.types.access import Sampler
from cohort.types.declare import hooks, needs
from tests import micro


@hooks(init=lambda *, size: {"at": 0, "size": size})
def in_turn(*, count: int, rng: torch.Generator, state: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
    """The prompts one after the other."""
    rows = (state["at"] + torch.arange(count)) % state["size"]
    return rows, {**state, "at": state["at"] + count}


def one_more(rows: Tensor, *, group_size: int) -> Tensor:
    return torch.full_like(rows, group_size + 1)


def politely(requests: Sequence[Request], sampler: Sampler) -> list[Rollout]:
    return [rollout.replace(fields={"polite": 1.0}) for rollout in sampler.draw(requests)]


def shorter(requests: Sequence[Request], sampler: Sampler) -> list[Rollout]:
    return sampler.generate([replace(request, max_new_tokens=2) for request in requests])


def doubled(batch: Batch) -> Tensor:
    return 2 * batch.rewards


def answered(batch: Batch) -> Tensor:
    return batch.mask.any(1)


def plain(batch: Batch) -> Tensor:
    return batch.rewards - batch.rewards.mean()


def fading(batch: Batch, advantages: Tensor, *, info: StepInfo) -> tuple[Tensor, dict[str, float]]:
    """Less for later tokens; reports what it did."""
    faded = advantages * 0.9 ** torch.arange(batch.mask.shape[1], device=batch.device)
    return faded, {"faded": float(info.step)}


@needs("old_logp", "sampler_logp")
def at_most_one(batch: Batch) -> Tensor:
    return (batch.old_logp - batch["sampler_logp"]).exp().clamp(max=1.0)


@needs("old_logp")
def squared(batch: Batch) -> Tensor:
    return (2 * (batch.logp - batch.old_logp)).exp()


def unclipped(batch: Batch, ratio: Tensor, advantages: Tensor) -> Tensor:
    return -ratio * advantages


def likelihood(batch: Batch) -> Tensor:
    return -(batch.rewards * (batch.logp * batch.mask).sum(1)).mean()


@needs("entropy")
def open_minded(batch: Batch) -> Tensor:
    return -0.01 * batch["entropy"]


def optimistic(batch: Batch, *, critic: str = "head", critic_lr: float | None = None) -> Tensor:
    """The expectile of the rewards at 0.7."""
    error = batch.rewards[:, None] - batch["values"]
    return torch.where(error > 0, 0.7, 0.3) * error**2 * batch["old_values"].isfinite()


def by_count(batch: Batch) -> Tensor:
    return batch.mask / batch.mask.sum().clamp(min=1)


def descent(params: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr)


OWN: dict[str, Callable[..., Any]] = {
    "curriculum": in_turn,
    "budget": one_more,
    "guidance": politely,
    "sampling": shorter,
    "shaping": doubled,
    "filter": answered,
    "advantage": plain,
    "credit": fading,
    "correction": at_most_one,
    "ratio": squared,
    "surrogate": unclipped,
    "objective": likelihood,
    "critic": optimistic,
    "regularizer": open_minded,
    "aggregation": by_count,
    "optimizer": descent,
}


def test_there_is_a_function_here_for_every_axis() -> None:
    assert set(OWN) == set(AXES)


@pytest.mark.parametrize("axis", OWN)
def test_a_function_of_every_axis(axis: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    called = []

    @functools.wraps(OWN[axis])
    def noting(*args: Any, **kwargs: Any) -> Any:
        called.append(axis)
        return OWN[axis](*args, **kwargs)

    filled = use(noting)
    method = Method(name="own", **{axis: (filled,) if axis in MANY else filled})
    root = tmp_path_factory.getbasetemp()
    given = {**micro.CONFIG, "model": str(micro.folder(root)), "group_size": 4, "steps": 2}
    setup = prepare(make_config(given), method=method, log=lambda _: None)
    try:
        run = assemble(setup)
        before = [p.detach().clone() for p in setup.policy.trainable()]
        results = [one_step(run) for _ in range(2)]
        assert len(called) >= (1 if axis == "optimizer" else 2)
        assert all(math.isfinite(result.metrics["loss"]) for result in results)
        assert any(not torch.equal(a, b) for a, b in zip(before, setup.policy.trainable(), strict=True))
    finally:
        setup.close()
    if axis == "curriculum":
        assert run.progress.states["curriculum/in_turn"]["at"] == 2 * setup.config.sampling.prompts_per_step
    if axis == "budget":
        assert {len(group.rollouts) for group in grouped(results[0].rollouts)} == {5}
    if axis == "critic":
        assert all(result.metrics["loss/optimistic"] > 0 for result in results)
    if axis == "credit":
        assert [result.metrics["faded"] for result in results] == [0.0, 1.0]
