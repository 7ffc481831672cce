"""What a forward pass keeps for its backward pass: everything, or a layer's input, from which the rest is made again.

`keep` holds every intermediate of every layer; `checkpoint` holds the input of each layer and makes a whole layer again
when its gradient is taken (arXiv:1604.06174); `stream` does that in chunks of the sequence (see stream.py). The result is
the same. A layer is whatever transformers itself would checkpoint: a `GradientCheckpointingLayer`.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from cohort.policies.attention import Layout, packed

# Blocks of memory from this size on go back to the system as soon as they are freed, where activations are to be few.
LARGE_BLOCK = 2**20
# layer, the layer's own forward function -> what is called in its place.
Wrap = Callable[[nn.Module, Callable[..., Any]], Callable[..., Any]]


def layers_of(base: Any) -> list[nn.Module]:
    """The layers of a transformers model that can be computed again by themselves, in order; outermost ones only."""
    found: dict[str, nn.Module] = {}
    for name, module in base.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if isinstance(module, GradientCheckpointingLayer) and not inside:
            found[name] = module
    return list(found.values())


@contextlib.contextmanager
def replaced(base: Any, wrap: Wrap) -> Iterator[None]:
    """Have the layers of a model call something else than their own forward functions."""
    layers = layers_of(base)
    before = [vars(layer).get("forward") for layer in layers]
    try:
        for layer in layers:
            layer.forward = wrap(layer, layer.forward)
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            if own is not None:
                layer.forward = own
            else:
                vars(layer).pop("forward", None)


@contextlib.contextmanager
def checkpointed(base: Any, layout: Layout | None = None) -> Iterator[None]:
    """Have the layers of a model keep their input alone.

    transformers' own switch works in training mode only, which would turn dropout on.

    Args:
        layout: of the packed row that the pass is over, if it is one: it is there again when a layer is made again, long
            after the pass has ended.
    """

    def wrap(layer: nn.Module, inner: Callable[..., Any]) -> Callable[..., Any]:
        def again(*args: Any, **kwargs: Any) -> Any:
            with packed(base, layout) if layout is not None else contextlib.nullcontext():
                return inner(*args, **kwargs)

        def forward(*args: Any, **kwargs: Any) -> Any:
            return checkpoint(again, *args, use_reentrant=False, **kwargs)

        return forward

    with replaced(base, wrap):
        yield


class Compiled:
    """The layers of models, compiled when they are first called.

    Args:
        backend: of torch.compile.
    """

    def __init__(self, backend: str = "inductor") -> None:
        self.backend = backend
        self.made: dict[int, Callable[..., Any]] = {}

    @contextlib.contextmanager
    def layers(self, base: Any) -> Iterator[None]:
        """Have the layers of a model call their compiled selves."""

        def wrap(layer: nn.Module, inner: Callable[..., Any]) -> Callable[..., Any]:
            if id(layer) not in self.made:
                # Rows are of every length: compiled once for all of them.
                self.made[id(layer)] = torch.compile(inner, dynamic=True, backend=self.backend)
            return self.made[id(layer)]

        with replaced(base, wrap):
            yield


def return_freed_memory() -> None:
    """Have the C library give large blocks of this process back to the system when they are freed.

    glibc keeps those of up to 32 MB for later, and blocks of a length that none after them has add up: a quarter of the
    peak on a CPU. See mallopt(3); elsewhere this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        m_trim_threshold, m_mmap_threshold = -1, -3
        mallopt(m_trim_threshold, LARGE_BLOCK)
        mallopt(m_mmap_threshold, LARGE_BLOCK)
