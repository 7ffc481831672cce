"""`cohort`, for torchrun: a rank of each attempt kills itself at a moment.

    torchrun --nproc-per-node 2 --max-restarts 5 -m tests.distributed.killing train ...

The environment's KILLS holds a list with a moment for each attempt, [rank, name, n]: SIGKILL at the n-th call of a function of
`CALLS` in that rank; attempts beyond the list are left alone. The names of those that came are added to killed.txt.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

from cohort.cli.app import main
from cohort.distributed.storing import Store
from cohort.distributed.world import World
from cohort.engine.native import drawing
from cohort.training import checkpoint
from cohort.training.precision import MasterWeights
from cohort.training.recorder import Recorder

# Name -> what is called (of several functions any), and whether the end comes after it rather than before. The last ones are
# the driver's alone.
CALLS: dict[str, tuple[Any, str, bool]] = {
    "operation": (World, "exchange collect agree", False),
    "update": (MasterWeights, "step", False),
    "updated": (MasterWeights, "step", True),
    "checkpoint": (Store, "save", False),
    "checkpoint begun": (Store, "save", True),
    "files": (HuggingFaceStorageWriter, "write_data", False),
    "files written": (HuggingFaceStorageWriter, "write_data", True),
    "sampling": (drawing, "pick", False),
    "state written": (torch, "save", True),
    "before the rename": (checkpoint, "sync", False),
    "recorded": (Recorder, "metrics", True),
}


def end(name: str) -> None:
    with Path("killed.txt").open("a") as file:
        file.write(f"{name}\n")
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(name: str, at: int) -> None:
    """Have this process killed at a call of a function."""
    owner, functions, after = CALLS[name]
    count = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            mine = count
            if mine == at and not after:
                end(name)
            result = real(*args, **kwargs)
            if mine == at:
                end(name)
            return result

        return call

    for function in functions.split():
        setattr(owner, function, counted(getattr(owner, function)))


if __name__ == "__main__":
    moments = json.loads(os.environ.get("KILLS", "[]"))
    attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    if attempt < len(moments) and moments[attempt][0] == int(os.environ["RANK"]):
        die_at(*moments[attempt][1:])
    main()
