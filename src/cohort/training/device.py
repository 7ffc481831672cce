"""Where the model is, and the type of its weights."""

from __future__ import annotations

from collections.abc import Callable

import torch

from cohort.errors import UsageError

# Kind of device -> how many there are here. What else torch has a backend for can be entered: passes and losses ask for a
# device's kind where kernels differ alone, and take the general way on one that they do not know.
KINDS: dict[str, Callable[[], int]] = {
    "cpu": lambda: 1,
    "cuda": lambda: torch.cuda.device_count() if torch.cuda.is_available() else 0,
    "mps": lambda: int(torch.backends.mps.is_available()),
}
# What torch sees none of.
CALLED = {"cuda": "GPU", "mps": "Apple GPU"}


def pick_device(name: str) -> torch.device:
    """The device asked for; "auto" takes a GPU where there is one.

    Raises:
        UsageError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if KINDS["cuda"]() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name}: no such kind of device; use cpu, cuda or cuda:N") from error
    if device.type not in KINDS:
        raise UsageError(f"--device {name}: cohort trains on cpu, cuda, cuda:N and mps")
    count, called = KINDS[device.type](), CALLED.get(device.type, device.type)
    if not count:
        raise UsageError(f"--device {name}: torch sees no {called} here; use --device cpu")
    if (device.index or 0) >= count:
        raise UsageError(f"--device {name}: torch sees {count} {called}s here, counted from 0")
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """float32 on a CPU, bfloat16 (with float32 master weights) on a GPU, unless asked otherwise."""
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
