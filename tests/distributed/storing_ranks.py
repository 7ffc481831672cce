"""Run by torchrun for test_storing.py: ranks that hold a policy in parts write and read checkpoints."""

from __future__ import annotations

import datetime
import functools
import json
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from cohort.axes.optimizer import cut_like, whole
from cohort.distributed.sharding import publish, shard, twin
from cohort.distributed.storing import Store
from cohort.engine.native.engine import NativeEngine
from cohort.policies.causal_lm import CausalLM
from cohort.policies.shards import places
from cohort.training import checkpoint
from cohort.training.precision import MasterWeights
from cohort.training.progress import Progress
from cohort.training.trainer import LocalTrainer
from tests.helpers import tiny_policy

KINDS = ("full", "half", "adapters")
# Updates before the checkpoint, and after it.
BEFORE, AFTER = 2, 2


def made(kind: str) -> CausalLM:
    """The policy as a run begins with it, before its roles."""
    policy = tiny_policy(dtype=torch.bfloat16 if kind == "half" else torch.float32)
    if kind == "adapters":
        torch.manual_seed(1)
        policy.add_lora(2)
    return policy


def with_roles(policy: CausalLM, kind: str) -> CausalLM:
    policy.roles.make("ema", decay=0.9)
    if kind == "full":
        torch.manual_seed(2)
        policy.roles.make("critic", kind="model")
        policy.roles.make("target")
    return policy


def optimizer_of(policy: Any) -> MasterWeights:
    def make(params: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW(params, lr=1e-2)

    return MasterWeights(policy.trainable(), make, scaled=(policy.roles.trained(), 2.0))


def update(policy: Any, optimizer: MasterWeights, number: int) -> None:
    """The update of this number (the first is 1), by gradients that depend on it alone."""
    rng = torch.Generator().manual_seed(number)
    for parameter in optimizer.params:
        parameter.grad = cut_like(torch.randn(parameter.shape, generator=rng).to(parameter.dtype), parameter)
    optimizer.step()
    optimizer.zero_grad()
    policy.roles.move(number)


def begin(kind: str) -> LocalTrainer:
    """One process."""
    policy = with_roles(made(kind), kind)
    engine = NativeEngine(policy, slots=2, cache_mb=1)
    return LocalTrainer(policy, optimizer_of(policy), Progress(states={}), engine, 1.0, 100, 1.0)


def numbers(policy: Any, optimizer: MasterWeights) -> dict[str, Tensor]:
    """All that a checkpoint is to hold, whole."""
    state = {"roles": policy.roles.state_dict(), "optimizer": optimizer.state_dict()}
    weights = {f"policy.{name}": value.detach() for name, value in policy.model.named_parameters()}
    return {name: whole(value).clone() for name, value in {**weights, **dict(places(state))}.items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@functools.cache
def expected(kind: str, updates: int) -> dict[str, Tensor]:
    """What one process has after so many updates."""
    trainer = begin(kind)
    for number in range(1, updates + 1):
        update(trainer.policy, trainer.optimizer, number)
    return numbers(trainer.policy, trainer.optimizer)


class Ranks:
    """What one rank has of a policy in parts."""

    def __init__(self, kind: str, mesh: DeviceMesh) -> None:
        self.kind = kind
        self.replica = made(kind)
        self.policy: Any = shard(with_roles(twin(self.replica), kind), mesh)  # type: ignore[arg-type]
        self.optimizer = optimizer_of(self.policy)
        self.store = Store(self.policy, self.optimizer, self.replica)

    def updates(self, first: int, count: int) -> None:
        for number in range(first, first + count):
            update(self.policy, self.optimizer, number)

    def is_that_of_one_process(self, updates: int) -> bool:
        publish(self.policy, self.replica)
        weights = {f"policy.{name}": value for name, value in self.replica.model.named_parameters()}
        right = expected(self.kind, updates)
        there = all(torch.equal(value, right[name]) for name, value in weights.items())
        return there and same(numbers(self.policy, self.optimizer), right)


def written(kind: str, folder: Path, mesh: DeviceMesh) -> dict[str, Any]:
    """The run goes on while its checkpoint is written, and what is written is what it was."""
    ranks = Ranks(kind, mesh)
    ranks.updates(1, BEFORE)
    state, root = ranks.store.state_dict(), folder / kind

    def save(place: Path) -> Future[None]:
        dist.barrier()
        return ranks.store.save(place)

    begun: Future[Any]
    if dist.get_rank() == 0:
        begun = checkpoint.begin(root, BEFORE, save, state, keep=2)
    else:
        begun = save(root / f".tmp-step-{BEFORE:06d}" / "model")
    ranks.updates(BEFORE + 1, AFTER)
    begun.result()
    dist.barrier()
    model = root / f"step-{BEFORE:06d}" / "model"
    return {
        "went on": ranks.is_that_of_one_process(BEFORE + AFTER),
        "bytes": sum(path.stat().st_size for path in model.glob(f"shard-{dist.get_rank() + 1:05d}-*.safetensors")),
    }


def read(kind: str, root: Path, mesh: DeviceMesh) -> dict[str, Any]:
    """A checkpoint of another number of processes is taken over, and the run goes on."""
    found = checkpoint.newest(root)
    assert found is not None
    ranks = Ranks(kind, mesh)
    ranks.store.load(found / "model", checkpoint.read_state(found))
    there = ranks.is_that_of_one_process(BEFORE)
    ranks.updates(BEFORE + 1, AFTER)
    return {"there": there, "goes on": ranks.is_that_of_one_process(BEFORE + AFTER)}


def not_written(folder: Path, mesh: DeviceMesh) -> dict[str, Any]:
    """A rank that cannot write: all are told, and the next checkpoint is written."""
    ranks = Ranks("adapters", mesh)
    ranks.updates(1, BEFORE)
    place = folder / "no" / "model"
    if dist.get_rank() == 1:
        # A folder that stands where this rank's file is to go.
        (place / "shard-00002-model-00001-of-00002.safetensors").mkdir(parents=True)
    dist.barrier()
    failed = ranks.store.save(place)
    said = str(failed.exception())
    ranks.store.save(folder / "yes" / "model").result()
    return {"said": said, "type": type(failed.exception()).__name__}


def main(folder: Path, what: str) -> None:
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
    mesh = init_device_mesh("cpu", (dist.get_world_size(), 1), mesh_dim_names=("data", "tensor"))
    cases: dict[str, Callable[[], dict[str, Any]]] = {}
    for kind in KINDS:
        if what == "write":
            cases[f"written {kind}"] = lambda kind=kind: written(kind, folder, mesh)
        cases[f"read {kind}"] = lambda kind=kind: read(kind, folder / kind, mesh)
        cases[f"of one {kind}"] = lambda kind=kind: read(kind, folder / f"one-{kind}", mesh)
    if what == "write":
        cases["not written"] = lambda: not_written(folder, mesh)
    report = {}
    for name, case in cases.items():
        print(name, flush=True)
        found: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(found, case())
        report[name] = found
    if dist.get_rank() == 0:
        (folder / "report.json").write_text(json.dumps(report))
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        main(Path(sys.argv[1]), sys.argv[2])
    except BaseException:
        traceback.print_exc()
        raise
