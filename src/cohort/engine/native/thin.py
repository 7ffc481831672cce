"""Products of a model's weights with few rows, as a step of decoding has them on a CPU."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from cohort.engine.native.plain import columns_of


@contextlib.contextmanager
def thin_products(model: torch.nn.Module) -> Iterator[None]:
    """Have linear layers on the CPU take W x^T rather than x W^T, which is up to twice as fast for the rows of a step."""
    layers = [
        module
        for module in model.modules()
        # A layer that something else has taken over (hooks of accelerate, for one) stays with it.
        if type(module) is torch.nn.Linear and module.weight.device.type == "cpu" and "forward" not in vars(module)
    ]
    for layer in layers:
        layer.forward = functools.partial(thin_linear, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def thin_linear(layer: torch.nn.Linear, x: Tensor) -> Tensor:
    """[..., N] of x [..., K], as the layer gives it."""
    rows = x.reshape(-1, x.shape[-1])
    count = len(rows)
    if count == 1:
        return linear(x, layer.weight, layer.bias)
    columns = rows.t().contiguous()  # nothing to do where x came out of such a product
    if columns_of(count) > count:
        columns = pad(columns, (0, columns_of(count) - count))
    out = layer.weight @ columns if layer.bias is None else torch.addmm(layer.bias[:, None], layer.weight, columns)
    return out[:, :count].t().view(*x.shape[:-1], -1)
