"""What crosses between the processor and the device that models are on.

The host prepares work faster than a GPU does it, until it asks for a number: then it waits until all is done, and the GPU
waits for the host after that. So numbers cross in one go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def to_host(*tensors: Tensor) -> list[Tensor]:
    """Tensors in the processor's memory, with one wait for each device that they come from."""
    last = {tensor.device: place for place, tensor in enumerate(tensors)}
    # Copies from a device are made in order: when the last is there, all are.
    return [tensor.to("cpu", non_blocking=last[tensor.device] != place) for place, tensor in enumerate(tensors)]


def wait(device: torch.device | str) -> None:
    """Wait until what was asked of a device is done, copies from it among that."""
    torch.zeros((), device=device).to("cpu")


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on a device, without a wait: what it is copied from must stay as it is until the next one."""
    return tensor.to(device, non_blocking=torch.device(device).type != "cpu")


def tensor_on(values: Sequence[Any], device: torch.device | str, dtype: torch.dtype | None = None) -> Tensor:
    """`torch.tensor` on a device, without a wait."""
    return to_device(torch.tensor(values, dtype=dtype), device)
