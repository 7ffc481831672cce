"""A GPU that is none: a backend of torch's whose tensors hold their numbers in the processor's memory, and which otherwise
behaves as CUDA does where a program can go wrong.

Its tensors do not mix with tensors of the CPU, a generator of the CPU draws none of them, and NumPy does not read them. What
has the host wait for the device is counted, with the line of the library that it comes from (`waits`). Numbers are those of
the CPU, bit for bit, where the same operations are done.

Backends are registered once a process, and for all of it: `install` is called in processes of its own alone.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
aten = torch.ops.aten
# (what has waited, the line of the library that asked for it) -> how often.
Waits = Counter[tuple[str, str]]
# Tensors of both sides may meet here.
BETWEEN = {aten._to_copy.default, aten.copy_.default, aten.set_.source_Tensor, aten.set_.source_Storage}
# An index may be of the CPU: it is copied to the device, which the host waits for.
INDEXING = {
    aten.index.Tensor,
    aten._unsafe_index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
# The size of what these give, or their way of doing it, depends on numbers that the host must read.
READING = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten.equal.default,
    aten.masked_select.default,
    aten.bincount.default,
    aten.multinomial.default,
    aten.repeat_interleave.Tensor,
}


class Misplaced(RuntimeError):
    """An operation that CUDA refuses: of tensors on two devices, or with a generator of another one."""


class Waiting:
    """Counts what has the host wait, in all threads."""

    def __init__(self) -> None:
        self.counts: Waits = Counter()
        self.on = True

    def note(self, what: str) -> None:
        if self.on:
            self.counts[what, source()] += 1


WAITING = Waiting()


@contextmanager
def waits() -> Iterator[Waits]:
    """Counts what has the host wait inside."""
    before, WAITING.counts = WAITING.counts, Counter()
    try:
        yield WAITING.counts
    finally:
        WAITING.counts = before


def source() -> str:
    """The line of the library that runs now."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if "/src/cohort/" in name and not name.endswith("/cohort/devices.py"):
            return f"{name.split('/src/cohort/')[-1]}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "?" if threading.current_thread() is threading.main_thread() else "backward"


class PretendTensor(Tensor):
    """A tensor of the pretend GPU.

    Attributes:
        held: its numbers, a tensor of the CPU.
    """

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> PretendTensor:
        made: PretendTensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
            requires_grad=False,
        )
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"{NAME}({self.held!r})"

    def tolist(self) -> Any:
        WAITING.note("tolist")
        return self.held.detach().tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError(
            f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
        )

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def untyped_storage(self) -> Any:
        return self.held.untyped_storage()

    def __reduce_ex__(self, protocol: Any) -> Any:
        # What is stored is read to the CPU.
        return self.held.detach().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        made: Any = PretendTensor(self.held.detach().clone())
        if getattr(self, "_is_param", False):
            made = torch.nn.Parameter(made, self.requires_grad)
        memo[id(self)] = made
        return made

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return perform(func, args, kwargs or {})


def ours(device: Any) -> bool:
    """True of the pretend GPU."""
    return device is not None and torch.device(device).type == NAME


def perform(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """An operation on tensors of the pretend GPU, or one that makes some."""
    if func._can_decompose():
        # Inference mode asks for operations whole that are made of others.
        with Mode():
            return func.decompose(*args, **kwargs)
    flat, _ = tree_flatten((args, kwargs))
    mine = [each for each in flat if isinstance(each, PretendTensor)]
    others = [each for each in flat if isinstance(each, Tensor) and not isinstance(each, PretendTensor)]
    asked = kwargs.get("device")
    to_device = ours(asked) if asked is not None else bool(mine)
    refuse(func, args, kwargs, mine, others, to_device)
    count(func, args, kwargs, mine, others, to_device)
    out = func(*tree_map(inside, tuple(args)), **tree_map(inside, dict(kwargs)))
    if func is aten.copy_.default:
        return args[0]
    if not to_device or func is aten._local_scalar_dense.default:
        return out
    known = {id(each.held): each for each in mine}
    return tree_map(lambda each: known.get(id(each), outside(each)), out)


def inside(value: Any) -> Any:
    if isinstance(value, PretendTensor):
        return value.held
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == NAME else value


def outside(value: Any) -> Any:
    return PretendTensor(value) if isinstance(value, Tensor) and not isinstance(value, PretendTensor) else value


def refuse(
    func: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    mine: Sequence[Tensor],
    others: Sequence[Tensor],
    to_device: bool,
) -> None:
    """Raise what CUDA would.

    Raises:
        Misplaced: tensors or generators are on another device.
    """
    generators = [each for each in (*args, *kwargs.values()) if isinstance(each, torch._C.Generator)]
    if generators and to_device and generators[0]._cdata not in Generator.known:
        raise Misplaced(f"Expected a '{NAME}' device type for generator but found '{generators[0].device}' ({func})")
    if not mine or func in BETWEEN:
        return
    # A number on the CPU is a constant of the kernel.
    wrong = [each for each in others if each.ndim]
    if func in INDEXING:
        wrong = [each for each in wrong if each is args[0] or (len(args) > 2 and each is args[2])]
        if isinstance(args[0], PretendTensor):
            wrong = [each for each in wrong if each is not args[0]]
    if wrong:
        raise Misplaced(
            f"Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and cpu! "
            f"({func}, on the CPU one of shape {tuple(wrong[0].shape)})"
        )


def count(
    func: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    mine: Sequence[Tensor],
    others: Sequence[Tensor],
    to_device: bool,
) -> None:
    """Note the operation if the host waits in it."""
    name = func.name().removeprefix("aten::")
    if func in READING:
        if not (func is aten.repeat_interleave.Tensor and kwargs.get("output_size") is not None):
            WAITING.note(name)
    elif func in BETWEEN:
        crossing = bool(others) if func is not aten._to_copy.default else bool(mine) != to_device
        if crossing and not (kwargs.get("non_blocking") or (func is aten.copy_.default and len(args) > 2 and args[2])):
            WAITING.note(f"copy to the {'device' if to_device and not others[1:] and others else 'CPU'}")
    elif func in INDEXING:
        indices = [each for each in args[1] if each is not None]
        # One mask and one number are `masked_fill`.
        filled = len(args) > 2 and len(indices) == 1 and args[2].numel() == 1 and not isinstance(args[2], PretendTensor)
        if any(each.dtype in (torch.bool, torch.uint8) for each in indices) and not filled:
            WAITING.note(f"{name} by a mask")
        elif any(not isinstance(each, PretendTensor) for each in indices):
            WAITING.note(f"{name} by an index of the CPU")


class Mode(TorchDispatchMode):
    """Takes operations that make tensors of the pretend GPU of none."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        flat, _ = tree_flatten((args, kwargs))
        if ours(kwargs.get("device")) or any(isinstance(each, PretendTensor) for each in flat):
            return perform(func, args, kwargs)
        return func(*args, **kwargs)


class Module:
    """What torch asks of a backend's module (`torch.pretend`)."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None: ...

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: Any = None) -> None: ...

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def synchronize(self, device: Any = None) -> None:
        WAITING.note("synchronize")


class Generator(torch._C.Generator):
    """A generator of the CPU, which says that it is of the device that it was asked for."""

    asked: torch.device
    # Addresses: the dispatcher wraps a generator anew.
    known: ClassVar[set[int]] = set()

    def __new__(cls, device: Any = "cpu") -> Generator:
        made = super().__new__(cls, "cpu" if ours(device) else device)
        made.asked = torch.device(NAME, 0) if ours(device) else torch.device(device)
        if ours(device):
            cls.known.add(made._cdata)
        return made

    def __del__(self) -> None:
        self.known.discard(self._cdata)

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.asked


_KEPT: list[Any] = []


def install() -> torch.device:
    """Register the pretend GPU with torch, for the rest of the process."""
    if not _KEPT:
        _setup_privateuseone_for_python_backend(NAME, Module())
        library = torch.library.Library("aten", "IMPL")

        def empty_strided(size: Any, stride: Any, dtype: Any = None, **_: Any) -> Tensor:
            return PretendTensor(torch.empty_strided(size, stride, dtype=dtype))

        def empty(size: Any, dtype: Any = None, **_: Any) -> Tensor:
            return PretendTensor(torch.empty(size, dtype=dtype))

        def copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
            # `torch.tensor(numbers, device=...)` comes here, past the dispatcher of Python.
            if isinstance(source, PretendTensor) != isinstance(target, PretendTensor) and not non_blocking:
                WAITING.note(f"copy to the {'CPU' if isinstance(source, PretendTensor) else 'device'}")
            inside(target).copy_(inside(source))
            return target

        library.impl("_copy_from", copy_from, "PrivateUse1")
        library.impl("empty_strided", empty_strided, "PrivateUse1")
        library.impl("empty.memory_format", empty, "PrivateUse1")
        # A parameter that two modules have stays one when they come here, as it does on CUDA.
        torch.__future__.set_swap_module_params_on_conversion(True)
        torch.Generator = Generator  # type: ignore[misc]
        mode = Mode()
        mode.__enter__()
        _KEPT.extend([mode, library])
    return torch.device(NAME, 0)
