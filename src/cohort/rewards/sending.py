"""Functions given from Python, on their way to another process: what they hold goes with them."""

from __future__ import annotations

import io
import pickle
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from cohort.errors import UsageError, shown

LOCKS = (type(threading.Lock()), type(threading.RLock()))
# Most bytes of what a function holds for which it is looked whether a call changes it.
WATCHED = 1_000_000


class _Held(TypeError):
    """Something that would arrive as something else, or not at all."""


def packed(value: Any) -> bytes:
    """A value for another process, functions and classes of a script or a notebook included.

    Raises:
        Exception: of any kind: something in it cannot be sent.
    """
    import dill

    class Pickler(dill.Pickler):  # type: ignore[misc]
        def persistent_id(self, each: Any) -> None:
            if not _sendable(each):
                raise _Held(f"cannot send {_kind(each)}")

    file = io.BytesIO()
    Pickler(file, recurse=True).dump(value)
    return file.getvalue()


def _sendable(value: Any) -> bool:
    """False for what a pickle of dill's would silently make anew, apart from its original."""
    if isinstance(value, LOCKS):
        return False
    if isinstance(value, (io.FileIO, io.TextIOWrapper, io.BufferedReader, io.BufferedWriter, io.BufferedRandom)):
        return value in (sys.stdin, sys.stdout, sys.stderr, sys.__stdin__, sys.__stdout__, sys.__stderr__)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        # A second copy would take the memory of the device once more.
        return value.device.type in ("cpu", "meta")
    return True


def pickled(value: Any) -> bytes:
    """A value for a process of the user's code: a function or an object of a script goes with what makes it.

    Raises:
        Exception: of any kind: something in it cannot be sent.
    """
    try:
        data = pickle.dumps(value)
        if b"__main__" not in data:
            return data
    except Exception:
        pass
    return packed(value)


def packed_functions(functions: Mapping[str, Callable[..., Any] | None]) -> bytes:
    """The functions by name, as `packed` gives them; together, so that what two of them share stays shared.

    Raises:
        UsageError: one of them holds what cannot be sent; says which, what, and what to do.
    """
    try:
        return packed(dict(functions))
    except Exception as error:
        for name, function in functions.items():
            reason = _reason(function)
            if reason is None:
                continue
            holds = [f"'{held}' ({_kind(value)})" for held, value in holdings(function) if _reason(value) is not None]
            what = f"it holds {', '.join(holds)}" if holds else "it holds something"
            raise UsageError(
                f"reward '{name}': the function runs in a process of its own, but {what}, which cannot be sent there "
                f"({reason}): make that there, inside of the function when it is first called, or write the function into a "
                f"file of its own and name it as path/to/file.py:{name}; or have rewards run in this process, with "
                "reward_process = here"
            ) from error
        raise UsageError(
            f"rewards {', '.join(functions)}: what they hold cannot be sent to a process of their own: {error}"
        ) from error


def _reason(value: Any) -> str | None:
    """Why a value cannot be sent; None if it can."""
    try:
        packed(value)
    except Exception as error:
        return f"{type(error).__name__}: {shown(str(error), 200)[1:-1]}"
    return None


def _kind(value: Any) -> str:
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    device = getattr(value, "device", None)
    return f"{name} on {device}" if device is not None and "torch" in name else name


def holdings(function: Any) -> Iterator[tuple[str, Any]]:
    """Names and values that a function reaches outside of its arguments: what it closes over, globals that it and the
    functions among them name, its defaults, and what an object has, if it is a method or an object that can be called."""
    seen: set[int] = set()
    waiting = [function]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        for name, value in _held(each):
            if isinstance(value, (FunctionType, MethodType)):
                waiting.append(value)
            elif not isinstance(value, (ModuleType, BuiltinFunctionType, type)):
                yield name, value


def _held(function: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(function, MethodType):
        yield "the method", function.__func__
        yield from _attributes(function.__self__)
    elif isinstance(function, FunctionType):
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                yield name, cell.cell_contents
            except ValueError:  # not filled yet
                continue
        yield from ((name, function.__globals__[name]) for name in _names(function.__code__, function.__globals__))
        defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        yield from (("a default", value) for value in defaults)
    elif hasattr(function, "func") and hasattr(function, "keywords"):  # functools.partial
        yield "the function", function.func
        for value in (*function.args, *function.keywords.values()):
            yield "an argument", value
    else:
        yield from _attributes(function)
        if callable(function) and isinstance(own := type(function).__call__, FunctionType):
            yield "__call__", own


def _attributes(value: Any) -> Sequence[tuple[str, Any]]:
    return [(f"self.{name}", each) for name, each in getattr(value, "__dict__", {}).items()]


def _names(code: CodeType, known: Mapping[str, Any]) -> list[str]:
    inner = [each for each in code.co_consts if isinstance(each, CodeType)]
    found = [name for name in code.co_names if name in known]
    return list(dict.fromkeys(found + [name for each in inner for name in _names(each, known)]))


def fingerprints(function: Any) -> dict[str, bytes]:
    """What a function holds, as bytes that differ if it was changed; what is large or cannot be told is left out."""
    out: dict[str, bytes] = {}
    for name, value in holdings(function):
        file = _Bounded()
        try:
            pickle.Pickler(file).dump(value)
        except Exception:
            continue
        out[name] = bytes(file.data)
    return out


class _Bounded:
    """A file that takes WATCHED bytes and no more."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: Any) -> None:
        if len(self.data) + len(data) > WATCHED:
            raise OverflowError
        self.data += data
