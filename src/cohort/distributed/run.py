"""A run in one process, or in those that torchrun has started: the driver runs it, the others take part."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from cohort import registry
from cohort.distributed.drawing import draw_on_all, draws_on_all
from cohort.distributed.failing import Agreed, Failure, OutOfMemory, RankLost, raise_first
from cohort.distributed.follower import Beginning, checksum, follow, rank_of
from cohort.distributed.record import AGAIN, Record, in_ranks, launched, say_of_rank
from cohort.distributed.trainer import RankedTrainer
from cohort.distributed.watch import Watch
from cohort.distributed.world import World
from cohort.errors import UsageError
from cohort.methods import Method
from cohort.policies.given import GivenModel
from cohort.training.build import Setup
from cohort.training.config import TrainConfig
from cohort.training.display import Display
from cohort.training.interrupt import ended_by_signals
from cohort.training.observer import MakeObserver
from cohort.training.progress import Progress
from cohort.training.run import Result
from cohort.training.run import train as run


def train(
    config: TrainConfig,
    *,
    method: Method | None = None,
    resume: bool = False,
    accept_changes: bool = False,
    display: Display | None = None,
    given: GivenModel | None = None,
    observers: Sequence[MakeObserver] = (),
) -> Result:
    """See `cohort.training.run.train`. In each of the processes that torchrun has started, all give the driver's result.

    Raises:
        UsageError: as there; or there cannot be as many processes.
        RankLost: a process has ended before the run did.
        SystemExit: in all processes but the driver, where the driver's run has failed.
    """
    display = display or Display()
    if not in_ranks():
        check_one(config)
        return run(
            config,
            method=method,
            resume=resume,
            accept_changes=accept_changes,
            display=display,
            given=given,
            observers=observers,
        )
    check_ranks(config)
    world = World.from_environment()
    with _joined(world, config, display) as watch:
        if not world.driver:
            result = follow(world, watch, config, method=method, given=given)
            if result is None:
                sys.exit(0)
            return result
        record = Record()
        before = record.read() if world.attempt else {}
        if not world.attempt and not launched():
            record.clear()
        record.write(driver=os.getpid())
        if world.attempt:
            display.log(f"restart {world.attempt}: a process of the run has ended, and all were started again")
        if before.get("folder"):
            config, resume = config.model_copy(update={"out": before["folder"]}), True

        def opened(folder: Path) -> None:
            record.write(folder=str(folder.absolute()))

        def make(setup: Setup, progress: Progress) -> RankedTrainer:
            return _begin(world, watch, method, setup, progress, halved=before.get("halved") is True)

        result = None
        try:
            result = run(
                config,
                method=method,
                resume=resume,
                accept_changes=accept_changes,
                display=display,
                given=given,
                observers=observers,
                make=make,
                opened=opened,
            )
            if not launched():
                record.clear()
        except OutOfMemory:
            record.write(halved=True)
            raise
        finally:
            if watch.lost is None and not watch.broken:
                watch.tell(("end", result))
        return result


def check_one(config: TrainConfig) -> None:
    """Nothing asks for several processes that only several can do.

    Raises:
        UsageError: something does.
    """
    if config.machine.processes > 1:
        raise UsageError(
            "processes is for the command line, cohort train; a script of your own is started in several processes by "
            "torchrun --nproc-per-node N SCRIPT, each of which calls cohort.train"
        )
    if config.machine.tensor_parallel > 1:
        raise UsageError("tensor_parallel cuts a model over several processes: say --processes too")


def check_ranks(config: TrainConfig) -> None:
    """torchrun alone says how many processes there are, and their passes can go together as they are asked to.

    Raises:
        UsageError: the configuration says how many as well, or they cannot.
    """
    if config.machine.processes > 1 and not launched():
        raise UsageError(
            f"--processes {config.machine.processes} would have each process that torchrun has started start others: leave it "
            "out, --nproc-per-node says how many there are"
        )
    if config.machine.compile is True and config.machine.tensor_parallel > 1:
        raise UsageError(
            "compile makes layers that one process computes as a whole, and with tensor_parallel several compute each: leave "
            "one of them out"
        )
    if config.policy.agent_models and (config.machine.shard == "parameters" or config.machine.tensor_parallel > 1):
        raise UsageError(
            "shard: parameters and tensor_parallel have all processes make the same passes, and agents with models of their "
            "own have each their own number of them: set shard to optimizer and tensor_parallel to 1, or leave agent_models out"
        )


def check_whole(config: TrainConfig) -> None:
    """Weights are not cut that every rank moves along directions of its own.

    Raises:
        UsageError: they are to be.
    """
    machine = config.machine
    if machine.shard == "parameters" or machine.tensor_parallel > 1:
        raise UsageError(
            f"{config.method} has each rank move weights of its own, which are whole: leave shard=parameters and "
            "tensor_parallel out"
        )


@contextlib.contextmanager
def _joined(world: World, config: TrainConfig, display: Display) -> Iterator[Watch]:
    """The processes have come together, and know if one ends."""
    # Nobody else may say what all find out.
    say = display.log if world.driver else say_of_rank
    watch: Watch | None = None
    try:
        with ended_by_signals():
            try:
                world.open(config.machine.device, config.machine.tensor_parallel)
            except UsageError:
                if world.driver:
                    raise
                sys.exit(0)
            except RuntimeError as error:
                raise RankLost(f"the processes did not come together ({error})") from error
            watch = Watch(world, say)
            failure: Failure | None = None
            try:
                yield watch
            except OutOfMemory as error:
                failure = Failure.of(world.rank, error)
                raise
            except (SystemExit, RankLost):
                raise
            except BaseException as error:
                failure = Failure.of(world.rank, error)
                if not world.driver:
                    # The driver says it, and decides what becomes of the run.
                    sys.exit(0)
                raise
            finally:
                watch.close(failure)
                if watch.lost is None:
                    world.close()
    except RankLost:
        if not world.driver:
            os._exit(AGAIN)
        raise
    except KeyboardInterrupt:
        if watch is not None and isinstance(watch.lost, RankLost):
            # torchrun asks those who are left to end, so as to start all again.
            raise watch.lost from None
        raise


def _begin(
    world: World, watch: Watch, method: Method | None, setup: Setup, progress: Progress, *, halved: bool
) -> RankedTrainer:
    """The trainer of a run that is set up, once all others have what they need for their parts.

    Args:
        halved: memory ran out in an attempt before.
    """
    watch.check()
    asked = method if method is not None else registry.method(setup.config.method)
    if asked.stage("optimizer").declared.probes:
        check_whole(setup.config)
    corrected = setup.method.correction != asked.correction
    everywhere = draws_on_all(world, setup.collector.engine, setup.policy)
    setup.policy.halved |= halved
    beginning = Beginning(corrected, everywhere, setup.policy.halved, setup.micro_tokens, checksum(setup.policy))
    watch.tell(("begin", beginning))
    failures = world.collect(None) or []
    if world.agree(any(each is not None for each in failures)):
        try:
            raise_first(failures)
        except Agreed as failed:
            raise failed.error from None
    rank = rank_of(world, setup, setup.micro_tokens)
    if everywhere:
        setup.collector.engine = draw_on_all(world, watch, setup)
    return RankedTrainer(rank, watch, progress, setup.collector.engine)
