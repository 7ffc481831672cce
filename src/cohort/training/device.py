"""Where the model is, and the type of its weights."""

from __future__ import annotations

import torch

from cohort.errors import UsageError


def pick_device(name: str) -> torch.device:
    """The device asked for; "auto" takes a GPU where there is one.

    Raises:
        UsageError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name}: no such kind of device; use cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"--device {name}: cohort trains on cpu, cuda, cuda:N and mps")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError(f"--device {name}: torch sees no Apple GPU here; use --device cpu")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: torch sees no GPU here; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {name}: torch sees {torch.cuda.device_count()} GPUs here, counted from 0")
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """float32 on a CPU, bfloat16 (with float32 master weights) on a GPU, unless asked otherwise."""
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
