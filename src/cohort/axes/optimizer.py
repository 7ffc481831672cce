"""Optimizer axis: the parameter update. A function makes a torch optimizer from parameters and a learning rate."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor


def adamw(
    params: Iterable[Any],
    lr: float,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """AdamW.

    Source: arXiv:1711.05101.
    """
    groups = list(params)
    tensors = [p for group in groups for p in (group["params"] if isinstance(group, dict) else [group])]
    # One pass over memory for each parameter, where torch has it.
    fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in tensors)
    how: dict[str, Any] = {"fused": fused}
    # Parameters that are cut over different ranks cannot be passed over together.
    if len({getattr(p, "device_mesh", None) for p in tensors}) > 1:
        how = {"foreach": False}
    return torch.optim.AdamW(groups, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, **how)


def whole(tensor: Tensor) -> Tensor:
    """A parameter, or what was made of it, with all its parts: itself, unless several ranks have a part of it each."""
    gathered: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return gathered


def cut_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, which every rank has, in such parts as another of its shape; itself, if that is whole."""
    if not hasattr(like, "full_tensor"):
        return tensor
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor

    assert isinstance(like, DTensor)
    mesh, part = like.device_mesh, tensor
    # The last dimension of the mesh cuts first, and those before it what that leaves.
    for at in reversed(range(mesh.ndim)):
        cut = getattr(like.placements[at], "dim", None)
        if cut is not None:
            own = mesh if mesh.mesh_dim_names is None else mesh[mesh.mesh_dim_names[at]]
            part = distribute_tensor(part, own, [Shard(cut)], src_data_rank=None).to_local()
    shape, stride = like.shape, like.stride()
    return DTensor.from_local(part, mesh, like.placements, run_check=False, shape=shape, stride=stride)


def quantised(value: float, scale: float, cap: int) -> tuple[int, int]:
    """(sign, power) of a finite number; of 0 the sign is 0, and the power the smallest."""
    if value == 0:
        return 0, -cap
    return (1 if value > 0 else -1), max(-cap, min(cap, round(scale * math.log(abs(value)))))


def restored(sign: int, power: int, scale: float) -> float:
    """The number that (sign, power) stand for."""
    return sign * math.exp(power / scale)


def encode(values: Sequence[float], scale: float, cap: int) -> bytes:
    """A code for each number: 0, the powers of positive ones, those of negative ones, and one for what is not finite."""
    codes = []
    for value in values:
        sign, power = quantised(value, scale, cap) if math.isfinite(value) else (2, 0)
        first = {0: cap, 1: cap + 1, -1: 3 * cap + 2, 2: 4 * cap + 3}[sign]
        codes.append(first + power)
    return struct.pack(f"<{len(codes)}{_form(cap)}", *codes)


def decode(codes: bytes, scale: float, cap: int) -> list[float]:
    """The numbers that `encode` has left of some; NaN for one that was not finite."""
    out = []
    for (code,) in struct.iter_unpack(f"<{_form(cap)}", codes):
        if code > 4 * cap + 2:
            out.append(math.nan)
        elif code > 2 * cap + 1:
            out.append(restored(-1, code - 3 * cap - 2, scale))
        else:
            out.append(restored(1, code - cap - 1, scale) if code else 0.0)
    return out


def _form(cap: int) -> str:
    """Of a code: zero, 2 cap + 1 powers with two signs, and what is not finite."""
    return "B" if 4 * cap + 4 <= 256 else "H"
