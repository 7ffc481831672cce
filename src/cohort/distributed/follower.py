"""What a rank other than the driver does: what the driver tells it, until the run is over."""

from __future__ import annotations

import contextlib
import signal
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from cohort import registry
from cohort.axes.correction import importance_weight
from cohort.distributed.drawing import serve_draws
from cohort.distributed.failing import Failure
from cohort.distributed.parts import InParts, Part
from cohort.distributed.record import say_of_rank
from cohort.distributed.trainer import Rank
from cohort.distributed.watch import Watch
from cohort.distributed.weights import Weights
from cohort.distributed.whole import Whole
from cohort.distributed.world import World
from cohort.errors import UsageError
from cohort.methods import Method, use
from cohort.policies.given import GivenModel
from cohort.training.build import Trained
from cohort.training.config import TrainConfig
from cohort.training.defaults import with_defaults
from cohort.training.interrupt import SIGNALS
from cohort.training.models import compile_policy, give_teachers, load_policy
from cohort.training.result import Result
from cohort.types.policy import Policy

# Bytes of a number -> the whole numbers of that size.
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Beginning:
    """What the driver tells when a run begins.

    Attributes:
        corrected: the method was given importance weights between sampler and trainer.
        draws: all ranks draw rollouts.
        halved: micro-batches are half as large as `micro_tokens` says, since memory ran out.
        micro_tokens: most tokens of a pass.
        checksum: of the model's weights.
    """

    corrected: bool
    draws: bool
    halved: bool
    micro_tokens: int
    checksum: int


def checksum(policy: Policy) -> int:
    """A number that differs where weights do. It is of their bits, so that no processor adds it up in another way."""
    out = 0
    for parameter in policy.model.parameters():
        bits = parameter.detach().view(BITS[parameter.element_size()])
        out = (31 * out + int(bits.sum(dtype=torch.int64))) % 2**61
    return out


def rank_of(world: World, trained: Trained, micro_tokens: int) -> Rank:
    """What a process does of each operation."""
    config = trained.config
    probes = trained.method.stage("optimizer").declared.probes
    weights: Weights = Whole(world, trained) if probes else InParts(world, trained, config.machine.shard)
    return Rank(
        world, weights, trained.method, config.sampling.temperature, micro_tokens, config.optimisation.grad_clip
    )


def follow(
    world: World, watch: Watch, config: TrainConfig, *, method: Method | None, given: GivenModel | None
) -> Result | None:
    """Follow the driver to the end of its run, and return what came of that; None if it failed.

    Args:
        config, method, given: as of `cohort.training.run.train`, the same as the driver's.
    """
    with _undisturbed():
        try:
            result: Result | None = _follow(world, watch, config, method, given)
        except RuntimeError as error:
            raise watch.explain(error) from error
        return result


def _follow(world: World, watch: Watch, config: TrainConfig, method: Method | None, given: GivenModel | None) -> Any:
    what, told = watch.told()
    if what == "end":
        return told
    failed: Failure | None = None
    part: Part | None = None
    try:
        part = _part(config, method, given, told)
    except Exception as error:
        failed = Failure.of(world.rank, error)
    world.collect(failed)
    if world.agree(failed is not None) or part is None:
        return watch.told()[1]
    rank = rank_of(world, part, told.micro_tokens)
    if told.draws:
        serve_draws(world, watch, part)
    while (command := watch.told())[0] != "end":
        getattr(rank, command[0])(*command[1])
    return command[1]


def _part(config: TrainConfig, method: Method | None, given: GivenModel | None, beginning: Beginning) -> Part:
    """The part of the set-up that updates take."""
    config = with_defaults(config)
    if config.machine.threads:
        torch.set_num_threads(config.machine.threads)
    method = method if method is not None else registry.method(config.method)
    policy = load_policy(config, _silent, given=given)
    if checksum(policy) != beginning.checksum:
        raise UsageError(
            f"the model '{config.policy.model}' has other weights here than in rank 0: all machines need the same files"
        )
    policy.halved = beginning.halved
    give_teachers(policy, method, config, _silent)
    if beginning.corrected:
        method = replace(method, correction=(use(importance_weight),))
    compile_policy(config, policy, _silent)
    return Part(config, method, policy)


def _silent(text: str) -> None:
    """The driver says it."""


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Leave signals that ask for an end to the driver, which decides when that is; and say whose warnings are."""
    usual = warnings.showwarning
    warnings.showwarning = lambda message, *_, **__: say_of_rank(f"warning: {message}")
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        warnings.showwarning = usual
        for number, old in before.items():
            signal.signal(number, old)
