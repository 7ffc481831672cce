"""`--processes N`: torchrun, from within, with N processes on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from cohort.distributed.record import PLACE, Record, in_ranks
from cohort.errors import UsageError
from cohort.training.config import TrainConfig
from cohort.training.device import pick_device
from cohort.training.interrupt import SIGNALS

# Seconds that processes have to end when one of them has; the one that wrote something had its time before.
SHUTDOWN = 30


def launches(config: TrainConfig) -> bool:
    """True if the command that was given this configuration is to start the processes that do it."""
    return config.machine.processes > 1 and not in_ranks()


def launch(config: TrainConfig, arguments: Sequence[str], log: Callable[[str], None]) -> int:
    """Start the command again in as many processes as the configuration asks for, until all have ended; its status.

    Where a process dies, all are started again, as often as `restarts` says, and go on from the newest checkpoint.

    Args:
        arguments: the command's own, without its name.
        log: is told of processes that died.

    Raises:
        UsageError: there is no device for each.
    """
    count = check_devices(config)
    with tempfile.TemporaryDirectory(prefix="cohort-ranks-", ignore_cleanup_errors=True) as folder:
        record = Record(Path(folder) / "record.json")
        os.environ[PLACE] = str(record.path)
        # What torchrun does; one process alone would take all cores.
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
        # Its warnings say of each signal what is said here once.
        logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
        asked = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=config.machine.restarts,
            monitor_interval=0.1,
            # The others are handed on.
            signals_to_handle="SIGQUIT",
            shutdown_timeout=SHUTDOWN,
        )
        with _handed_on(record):
            try:
                elastic_launch(asked, sys.executable)("-m", "cohort", *arguments)
            except ChildFailedError as error:
                first = min(error.failures.items(), key=lambda each: each[1].timestamp)
                log(f"cohort: {_ended(*first)}{_tried(config.machine.restarts)}")
                return 3
        status = record.read().get("status")
        return status if isinstance(status, int) else 1


def check_devices(config: TrainConfig) -> int:
    """Processes that a configuration asks for.

    Raises:
        UsageError: there are not as many GPUs, or they share models in another way.
    """
    count, tensor = config.machine.processes, config.machine.tensor_parallel
    if count % tensor:
        raise UsageError(f"--tensor-parallel {tensor}: {count} processes cannot be dealt into groups of {tensor}")
    device = pick_device(config.machine.device)
    if device.type == "cuda":
        if device.index is not None:
            raise UsageError(f"--device {device}: each process takes the GPU of its own number; leave --device out")
        there = torch.cuda.device_count()
        if count > there:
            raise UsageError(f"--processes {count}: each takes a GPU, and torch sees {there} here")
    elif device.type != "cpu":
        raise UsageError(
            f"--processes {count}: there is one {device.type}, which one process can use; take --device cpu"
        )
    return count


def _ended(rank: int, failure: object) -> str:
    code = getattr(failure, "exitcode", 1)
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"rank {rank} was ended by {signal.Signals(-code).name}"
    return f"rank {rank} ended with status {code}"


def _tried(restarts: int) -> str:
    if not restarts:
        return "; restarts is 0, so that nothing was started again"
    return f", and so had {'it or another' if restarts > 1 else 'one'} before: all were started again {restarts} times"


@contextlib.contextmanager
def _handed_on(record: Record) -> Iterator[None]:
    """Signals that ask for an end go to the driver, which decides when that is."""

    def hand_on(number: int, frame: object) -> None:
        driver = record.read().get("driver")
        if not isinstance(driver, int):
            raise KeyboardInterrupt
        with contextlib.suppress(ProcessLookupError):
            os.kill(driver, number)

    before = {
        number: signal.signal(number, hand_on) for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
