"""The process in which reward functions run: `python -m cohort.rewards.worker`.

It reads calls from standard input and writes results to standard output, both as length-prefixed pickles between a
parent and its own child. What reward functions print goes to standard error; they find standard input empty.
"""

from __future__ import annotations

import asyncio
import faulthandler
import inspect
import math
import os
import pickle
import struct
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import IO, Any

HEADER = struct.Struct(">Q")


def write_frame(stream: IO[bytes], message: Any) -> None:
    """Send one message."""
    data = pickle.dumps(message)
    stream.write(HEADER.pack(len(data)) + data)
    stream.flush()


def read_frame(stream: IO[bytes]) -> Any:
    """Receive one message; EOFError when the other side is gone."""
    head = stream.read(HEADER.size)
    if len(head) < HEADER.size:
        raise EOFError
    (size,) = HEADER.unpack(head)
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return pickle.loads(data)


def accepted(function: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """The arguments that a function takes: all of them if it has **kwargs."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return given
    names = {p.name for p in parameters}
    return {k: v for k, v in given.items() if k in names}


class BadValueError(ValueError):
    """What a reward function returned is no list of rewards."""


def check(values: Any, rows: int) -> list[float | None]:
    """The values of a reward function as floats.

    Raises:
        BadValueError: not a list of `rows` numbers or None; says which.
    """
    if not isinstance(values, Sequence) and not hasattr(values, "tolist"):
        raise BadValueError(f"it returned {type(values).__name__}, not a list of {rows} numbers")
    values = values.tolist() if hasattr(values, "tolist") else list(values)
    if len(values) != rows:
        raise BadValueError(f"it returned {len(values)} values for {rows} completions")
    out: list[float | None] = []
    for row, value in enumerate(values):
        if value is None:
            out.append(None)
            continue
        if hasattr(value, "item"):
            value = value.item()
        if not isinstance(value, (int, float)):
            raise BadValueError(f"it returned {value!r} for completion {row}, which is no number")
        if not math.isfinite(value):
            raise BadValueError(f"it returned {value!r} for completion {row}")
        out.append(float(value))
    return out


def call(function: Callable[..., Any], arguments: dict[str, Any], rows: int) -> dict[str, Any]:
    """{"values": ...} or {"error": text, "traceback": text} of one reward function on one batch."""
    try:
        values = function(**accepted(function, arguments))
        if inspect.isawaitable(values):
            values = asyncio.run(_await(values))
        return {"values": check(values, rows)}
    except BadValueError as error:
        return {"error": str(error)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}


async def _await(values: Any) -> Any:
    return await values


def main() -> None:
    """Serve calls until the parent goes away."""
    import dill

    from cohort.quiet import quiet_command
    from cohort.rewards.spec import RewardSpec

    # A judge that loads a model would print a bar a load.
    quiet_command()
    # Neither what a reward function prints nor what it or a child of it reads may touch the messages.
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    faulthandler.enable()
    functions: list[Callable[..., Any]] = []
    while True:
        try:
            message = read_frame(requests)
        except EOFError:
            return
        if "load" in message:
            sys.path += [entry for entry in message["path"] if entry not in sys.path]
            try:
                specs: list[RewardSpec] = dill.loads(message["load"])
                functions = [spec.load() for spec in specs]
                write_frame(replies, {"ready": True})
            except Exception as error:
                write_frame(replies, {"error": str(error), "traceback": traceback.format_exc()})
        else:
            # Shows, in what the worker said last, where a function hangs when its time is up.
            faulthandler.dump_traceback_later(0.9 * message["timeout"])
            reply = call(functions[message["reward"]], message["arguments"], message["rows"])
            faulthandler.cancel_dump_traceback_later()
            write_frame(replies, reply)


if __name__ == "__main__":
    main()
