"""All that a run's next step depends on: what a checkpoint holds, and what an unfinished step is undone to."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cohort.errors import UsageError
from cohort.rollouts.sources import restore as restore_source
from cohort.rollouts.sources import snapshot
from cohort.training import checkpoint
from cohort.training.loop import Training


def random_states() -> dict[str, Any]:
    """Of the global generators."""
    version, keys, gauss = random.getstate()
    name, numbers, position, has_gauss, cached = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, list(keys), gauss],
        "numpy": [name, [int(n) for n in numbers], int(position), int(has_gauss), float(cached)],
    }


def set_random_states(generators: Mapping[str, Any]) -> None:
    """Take over what `random_states` gave."""
    torch.set_rng_state(generators["torch"])
    if torch.cuda.is_available() and generators["cuda"]:
        torch.cuda.set_rng_state_all(generators["cuda"])
    version, keys, gauss = generators["python"]
    random.setstate((version, tuple(keys), gauss))
    name, numbers, position, has_gauss, cached = generators["numpy"]
    np.random.set_state((name, np.array(numbers, dtype=np.uint32), position, has_gauss, cached))


def capture(run: Training, extra: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The state for a checkpoint, but for the policy's weights."""
    return {
        **run.trainer.state_dict(),
        "source": run.source.state_dict(),
        "progress": dict(vars(run.progress)),
        "extra": dict(extra),
        "inputs": dict(inputs),
        "random": random_states(),
    }


def read(found: Path) -> dict[str, Any]:
    """The state of a checkpoint.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return checkpoint.read_state(found)
    except Exception as error:
        raise UsageError(f"checkpoint {found} cannot be read: {_first_line(error)}") from error


def restore(found: Path, state: Mapping[str, Any], run: Training) -> dict[str, Any]:
    """Take over a checkpoint; what else the run had put into it.

    Raises:
        UsageError: it is not one of this run's.
    """
    try:
        run.trainer.load(found / "model", state)
        run.source.load_state_dict(state.get("source", {}))
        for name, value in state["progress"].items():
            setattr(run.progress, name, value)
        set_random_states(state["random"])
        return dict(state["extra"])
    except (KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise UsageError(
            f"checkpoint {found} cannot be taken over: it is not of this model and method ({_first_line(error)})"
        ) from error


class Undo:
    """What brings the run back to where an unfinished step began.

    Until the step's first update all but counters, random states and the source of rollouts is as it was. What an update
    changes the trainer copies before the first one, where it is small.
    """

    def __init__(self, run: Training) -> None:
        self.trainer, self.progress, self.source = run.trainer, run.progress, run.source
        self.begin()

    def begin(self) -> None:
        """A step begins, or is over with all that belongs to it."""
        self.trainer.hold()
        self._progress, self._random, self._source = dict(vars(self.progress)), random_states(), snapshot(self.source)

    @property
    def whole(self) -> bool:
        """False while the weights are between two steps and no copy of them was made."""
        return self.trainer.restorable or self.progress.step > self._progress["step"]

    def undo(self) -> None:
        """Bring everything back, or leave it at the step's end where no copy was made and the step came to its end."""
        if not self.trainer.restorable:
            return
        self.trainer.restore()
        for name, value in self._progress.items():
            setattr(self.progress, name, value)
        set_random_states(self._random)
        restore_source(self.source, self._source)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]
