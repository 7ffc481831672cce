"""The rank that runs the run, and has the others take part."""

from __future__ import annotations

from typing import Any

from cohort import registry
from cohort.distributed.failing import raise_first
from cohort.distributed.follower import Beginning, checksum, rank_of
from cohort.distributed.trainer import RankedTrainer
from cohort.distributed.world import World
from cohort.methods import Method
from cohort.training.build import Setup
from cohort.training.progress import Progress
from cohort.training.run import Result, train


def drive(world: World, config: Any, *, method: Method | None, **how: Any) -> Result:
    """See `cohort.training.run.train`: the same with the trainer of many ranks. The others end when this does, and are told
    what came of it."""
    result: Result | None = None

    def make(setup: Setup, progress: Progress) -> RankedTrainer:
        asked = method if method is not None else registry.method(setup.config.method)
        corrected = setup.method.correction != asked.correction
        world.tell(("begin", Beginning(corrected, setup.micro_tokens, checksum(setup.policy))))
        failures = world.collect(None) or []
        if world.agree(any(each is not None for each in failures)):
            raise_first(failures)
        return RankedTrainer(rank_of(world, setup, setup.micro_tokens), progress, setup.collector.engine)

    try:
        result = train(config, method=method, make=make, **how)
        return result
    finally:
        world.tell(("end", result))
