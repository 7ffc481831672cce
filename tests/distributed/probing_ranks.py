"""Updates by probes on two ranks, each with its own: what tests/distributed/test_probing.py has torchrun start.

    torchrun --nproc-per-node 2 -m tests.distributed.probing_ranks FOLDER MICRO

Each case is one step. The driver writes what it came to, and what an update sends between ranks.
"""

from __future__ import annotations

import json
import pickle
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cohort.distributed.dealing import deal, lengths_of
from cohort.distributed.follower import rank_of
from cohort.distributed.trainer import RankedTrainer
from cohort.distributed.watch import Watch
from cohort.distributed.world import World
from cohort.training import trainer as local
from cohort.training.assembly import assemble, make_trainer
from cohort.training.loop import one_step
from cohort.training.precision import MasterWeights
from cohort.training.probing import probed
from tests import micro
from tests.helpers import in_float64

PROBES = 3
CASES = {
    "probed": f"grpo(kl_beta=0.0)+spsa-one-byte(probes={PROBES})",
    "coupled": f"disco+spsa-one-byte(probes={PROBES})",
}
CONFIG: dict[str, Any] = {"prompts_per_step": 4, "group_size": 4, "steps": 1}


@dataclass
class Part:
    """Rows that one machine would have."""

    rows: Tensor

    def gather(self, own: dict[str, Tensor], count: int) -> dict[str, Tensor]:
        raise AssertionError("nothing here is coupled")


def as_two_machines(optimizer: MasterWeights) -> Callable[..., Any]:
    """In place of `probed` in one process: the probes of two machines, one after the other."""
    probing = optimizer.probing
    assert probing is not None
    apply, norm = optimizer.apply, probing.norm

    def both(policy: Any, method: Any, batch: Any, actions: Any, optimizer: MasterWeights, **how: Any) -> Any:
        shares = deal(lengths_of(actions), 2)
        made = [
            probed(policy, method, batch, actions, optimizer, share=Part(rows), machine=k, machines=2, **how)  # type: ignore[arg-type]
            for k, rows in enumerate(shares)
        ]
        found = [each for _, each in made]
        optimizer.apply = lambda told, most: apply(found, most)  # type: ignore[method-assign]
        probing.norm = lambda told: norm(found)  # type: ignore[method-assign]
        return made[0]

    return both


def weighed(world: World, sent: dict[str, int]) -> None:
    """Count the bytes of this rank's part in what ranks tell each other."""
    exchange = world.exchange

    def told(what: Any) -> list[Any]:
        sent["told"] = sent.get("told", 0) + len(pickle.dumps(what))
        sent["found"] = sent.get("found", 0) + len(getattr(what, "found", b""))
        return exchange(what)

    world.exchange = told  # type: ignore[method-assign]


def main(folder: Path, root: Path) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    world = World.from_environment()
    world.open("cpu")
    watch = Watch(world)
    report: dict[str, Any] = {}
    for name, method in CASES.items():
        plain = world.exchange
        with micro.ready(root, method, **CONFIG) as (setup, optimizer, progress):
            in_float64(setup.policy)
            rank = rank_of(world, setup, setup.micro_tokens)
            sent: dict[str, int] = {}
            weighed(world, sent)
            metrics: dict[str, float] = {}
            if world.driver:
                trainer = RankedTrainer(rank, watch, progress, setup.collector.engine)
                metrics = one_step(assemble(setup, trainer)).metrics  # type: ignore[arg-type]
                watch.tell(("end", None))
            else:
                while (command := watch.told())[0] != "end":
                    getattr(rank, command[0])(*command[1])
            world.exchange = plain  # type: ignore[method-assign]
            weights = torch.cat([p.detach().flatten() for p in setup.policy.trainable()])
        everyone = world.exchange(weights)
        sizes = world.exchange(sent)
        row = {"apart": float((everyone[0] - everyone[1]).abs().max()), "numbers": weights.numel(), "sent": sizes}
        row |= {"grad_norm": metrics.get("grad_norm"), "skipped": metrics.get("skipped_updates")}
        if name == "probed" and world.driver:
            with micro.ready(root, method, **CONFIG) as (setup, optimizer, progress):
                in_float64(setup.policy)
                before = torch.cat([p.detach().flatten() for p in optimizer.params])
                real, local.probed = local.probed, as_two_machines(optimizer)
                alone = one_step(assemble(setup, make_trainer(setup, progress, optimizer)))
                local.probed = real
                after = torch.cat([p.detach().flatten() for p in optimizer.params])
            row["from one process"] = float((after - weights).abs().max() / (after - before).abs().max())
            row["norm of one process"] = alone.metrics["grad_norm"]
        report[name] = row
    if world.driver:
        (folder / "report.json").write_text(json.dumps(report))
    watch.close()
    world.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
