"""Steps of methods by many ranks and by one process, compared: what tests/distributed/test_exactness.py has torchrun start.

    torchrun --nproc-per-node 2 -m tests.distributed.steps_on_ranks FOLDER REPORT CASE...

A case is a method, or another name of `CASES`, with the precision that it is computed in behind it, as in grpo:float64. The
driver writes into the report, for each case, what differs.
"""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cohort.axes.optimizer import whole
from cohort.distributed.drawing import draw_on_all, serve_draws
from cohort.distributed.follower import rank_of
from cohort.distributed.parts import InParts
from cohort.distributed.trainer import Rank, RankedTrainer
from cohort.distributed.watch import Watch
from cohort.distributed.world import World
from cohort.policies import packing, stream
from cohort.policies.agents import members_of
from cohort.policies.causal_lm import CausalLM
from cohort.policies.replica import take_over, weights_of
from cohort.policies.shards import replaced
from cohort.training.assembly import assemble, make_trainer
from cohort.training.build import Setup
from cohort.training.loop import one_step
from cohort.training.precision import MasterWeights
from cohort.training.progress import Progress
from cohort.types.policy import Policy
from tests import micro
from tests.helpers import in_float64
from tests.training.test_agents import Consulting

SMALL: dict[str, Any] = {"prompts_per_step": 3, "group_size": 4, "steps": 2}
# Name -> method, and what else is asked for.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "several updates": ("grpo", {"updates": 2, "epochs": 2}),
    "several coupled updates": ("disco", {"updates": 2, "epochs": 2}),
    "an average that is clipped around": ("million-envs", {"updates": 2, "epochs": 2}),
    "small passes with an average": (
        "million-envs(whiten='none', proximal_coef=0.1)",
        {"updates": 2, "micro_tokens": 30},
    ),
    "small passes": ("dapo+gdpo", {"micro_tokens": 30}),
    "small coupled passes": ("disco", {"micro_tokens": 30}),
    "replayed": ("grpo", {"replay_groups": 2}),
    "adapters": ("grpo(kl_beta=0.1)", {"lora": 4}),
    "fewer rows than ranks": ("spo-single-stream", {"prompts_per_step": 1, "group_size": 1}),
    "thoughts": ("grpo", {"thought": True}),
    "a composition": ("dapo+gdpo+sage", {}),
    "drawn on all ranks": ("grpo", {"prompts_per_step": 6}),
    "in chunks": ("grpo(kl_beta=0.1)", {"activations": "stream"}),
    "in chunks, parameters in parts": ("disco", {"activations": "stream", "shard": "parameters"}),
    "parameters in parts": ("grpo(kl_beta=0.1)", {"shard": "parameters", "micro_tokens": 30}),
    "parameters in parts, coupled": ("disco", {"shard": "parameters", "micro_tokens": 30}),
    "parameters in parts, an average": ("million-envs", {"shard": "parameters", "updates": 2, "micro_tokens": 30}),
    "parameters in parts, fewer rows than ranks": (
        "spo-single-stream",
        {"prompts_per_step": 1, "group_size": 1, "shard": "parameters"},
    ),
    "parameters in parts, adapters": (
        "grpo(kl_beta=0.1)",
        {"shard": "parameters", "lora": 4, "activations": "checkpoint"},
    ),
    "parameters in parts, a critic": ("ppo", {"shard": "parameters", "activations": "stream"}),
    "parameters in parts, some with a teacher": ("sdpo", {"shard": "parameters", "micro_tokens": 30}),
}
# An environment of two agents, one of which has a model of its own.
AGENTS = "agents with models of their own"
# Cases in which all ranks draw rollouts, rather than the driver.
DRAWN = ("drawn on all ranks",)
# Cases in which ranks make each layer again in chunks of a few tokens, and the one process keeps all.
CHUNKED = ("in chunks", "in chunks, parameters in parts")


@contextmanager
def prepared(root: Path, name: str, dtype: torch.dtype) -> Iterator[tuple[Setup, MasterWeights, Progress]]:
    """A run that is set up, in a precision."""
    if name == AGENTS:
        own = {"environment": Consulting, "agent_models": [f"sub={micro.folder(root)}"], "reward": []}
        making = micro.ready(root, "grpo", **{**SMALL, **own})
    elif name in CASES:
        method, changes = CASES[name]
        making = micro.ready(root, method, **{**SMALL, **changes})
    else:
        making = micro.method_ready(root, name, **SMALL)
    with pytest.MonkeyPatch.context() as patch, making as (setup, optimizer, progress):
        if name in CHUNKED:
            patch.setattr(stream, "CHUNK", 7)
            # In one row, also where that does not pay.
            patch.setattr(packing, "SHARE_SECONDS", -1e9)
        if dtype == torch.float64:
            for policy in members_of(setup.policy).values():
                assert isinstance(policy, CausalLM)
                in_float64(policy)
        yield setup, optimizer, progress


def kept_gradients(optimizer: MasterWeights) -> list[list[Tensor | None]]:
    """The gradients of each update that is made from now on, as clipped; in parts where they are."""
    out: list[list[Tensor | None]] = []
    plain = optimizer.zero_grad

    def zero() -> None:
        if any(p.grad is not None for p in optimizer.params):
            out.append([None if p.grad is None else p.grad.detach().double().clone() for p in optimizer.params])
        plain()

    optimizer.zero_grad = zero  # type: ignore[method-assign]
    return out


def numbers(gradients: list[list[Tensor | None]], policy: Policy, optimizer: MasterWeights) -> dict[str, Any]:
    """What updates have made, whole; all ranks put it together."""
    return {
        "gradients": [[None if each is None else whole(each) for each in update] for update in gradients],
        "weights": [whole(p.detach()).clone() for p in optimizer.params],
        "roles": replaced(policy.roles.state_dict(), lambda _, value: whole(value)),
    }


def made(
    world: World | None, watch: Watch | None, root: Path, name: str, dtype: torch.dtype, steps: int
) -> dict[str, Any]:
    """What came of some steps; of the ranks of a world, or of this process alone."""
    with prepared(root, name, dtype) as (setup, optimizer, progress):
        policy: Policy = setup.policy
        if world is not None and watch is not None:
            rank, optimizer = begun(world, setup)
            policy = rank.weights.policy
            if name in DRAWN:
                setup.collector.engine = draw_on_all(world, watch, setup)
            trainer: Any = RankedTrainer(rank, watch, progress, setup.collector.engine)
        else:
            if name in CHUNKED:
                assert setup.policy.activations == "stream"
                setup.policy.use_activations("keep")
            trainer = make_trainer(setup, progress, optimizer)
        gradients = kept_gradients(optimizer)
        run = assemble(setup, trainer)
        results = [one_step(run) for _ in range(steps)]
        if watch is not None:
            watch.tell(("end", None))
        return {
            **numbers(gradients, policy, optimizer),
            "metrics": [result.metrics for result in results],
            "fields": [{} if result.batch is None else dict(result.batch.items()) for result in results],
            "states": progress.states,
            "progress": {key: value for key, value in vars(progress).items() if key != "states"},
            "tokens": [[list(rollout.tokens) for rollout in result.rollouts] for result in results],
        }


def begun(world: World, setup: Setup) -> tuple[Rank, MasterWeights]:
    """A rank's part, and the optimizer in it."""
    rank = rank_of(world, setup, setup.micro_tokens)
    assert isinstance(rank.weights, InParts)
    return rank, rank.weights.optimizer


def follow(world: World, watch: Watch, root: Path, name: str, dtype: torch.dtype) -> None:
    """Do what the driver does in `made`."""
    with prepared(root, name, dtype) as (setup, _, _), pytest.MonkeyPatch.context() as monkey:
        rank, optimizer = begun(world, setup)
        if name in DRAWN:
            serve_draws(world, watch, setup)
            monkey.setattr(rank.weights, "publish", late(rank.weights.publish, setup.policy))
        gradients = kept_gradients(optimizer)
        while (command := watch.told())[0] != "end":
            getattr(rank, command[0])(*command[1])
        numbers(gradients, rank.weights.policy, optimizer)


def late(publish: Callable[[], None], replica: Policy) -> Callable[[], None]:
    """A publication whose weights come to this rank a while after the last message of it."""

    @torch.no_grad()
    def made() -> None:
        before = weights_of(replica)
        publish()
        after = weights_of(replica)
        take_over(replica, before)
        time.sleep(0.5)
        take_over(replica, after)

    return made


def distance(first: Any, second: Any) -> float:
    """The largest difference of two values made alike, relative to the largest number of each tensor."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        if first.shape != second.shape or first.dtype != second.dtype:
            return math.inf
        if not first.is_floating_point():
            return 0.0 if torch.equal(first, second) else math.inf
        if not torch.equal(first.isnan(), second.isnan()):
            return math.inf
        a, b = (each.double().nan_to_num(0.0, 1e30, -1e30) for each in (first, second))
        scale = float(a.abs().max()) if a.numel() else 0.0
        return float((a - b).abs().max()) / max(scale, 1e-3) if a.numel() else 0.0
    if isinstance(first, Mapping):
        if list(first) != list(second):
            return math.inf
        return max((distance(first[key], second[key]) for key in first), default=0.0)
    if isinstance(first, list | tuple):
        if len(first) != len(second):
            return math.inf
        return max((distance(a, b) for a, b in zip(first, second, strict=True)), default=0.0)
    if isinstance(first, float) and isinstance(second, float | int):
        if math.isnan(first) or math.isnan(second):
            return 0.0 if math.isnan(first) == math.isnan(second) else math.inf
        return abs(first - second) / max(abs(first), 1e-2)
    return 0.0 if first == second else math.inf


def timeless(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics but for those of time, and of ranks."""
    return {key: value for key, value in metrics.items() if not key.startswith(("time/", "ranks/"))}


def compared(one: dict[str, Any], many: dict[str, Any]) -> dict[str, Any]:
    """What differs between the steps of one process and those of ranks."""
    found = {key: distance(one[key], many[key]) for key in one if key not in ("metrics", "gradients")}
    found["gradient"] = distance(one["gradients"][:1], many["gradients"][:1])
    found["gradients"] = distance(one["gradients"], many["gradients"])
    pairs = list(zip(map(timeless, one["metrics"]), map(timeless, many["metrics"]), strict=True))
    found["metrics"] = max(distance(a, b) for a, b in pairs)
    worst = max(((distance(a[key], b.get(key)), key) for a, b in pairs for key in a), default=(0.0, ""))
    updates = len(one["gradients"])
    return {**found, "worst metric": worst[1], "updates": updates, "ranks": many["metrics"][-1].get("ranks/size")}


def main(root: Path, report: Path, names: list[str]) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    world = World.from_environment()
    world.open("cpu")
    watch = Watch(world)
    for case in names:
        name, _, precision = case.rpartition(":")
        # What is rounded to float32 goes apart from the first update on.
        dtype, steps = getattr(torch, precision), 2 if precision == "float64" else 1
        if not world.driver:
            follow(world, watch, root, name, dtype)
            continue
        began = time.monotonic()
        row: dict[str, Any] = {"case": name, "dtype": precision}
        one = made(None, None, root, name, dtype, steps)
        row |= compared(one, made(world, watch, root, name, dtype, steps))
        row["seconds"] = time.monotonic() - began
        with report.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    watch.close()
    world.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
