"""What adapters share: a package that may not be there, options, endless seeds, texts of the policy."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cohort.errors import UsageError

if TYPE_CHECKING:
    from cohort.types import Message

# Rows of an environment whose seeds have no end, where none says how many.
ROWS = 1000
# Where the seeds of rows that are held out begin, and how many there are.
HELD_OUT, HELD_OUT_ROWS = 2**30, 100


def needed(module: str, extra: str) -> ModuleType:
    """A package's module.

    Raises:
        UsageError: it is not installed, or cannot be imported; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        missing = isinstance(error, ModuleNotFoundError) and error.name == package
        reason = "is not installed" if missing else f"cannot be imported ({error})"
        raise UsageError(f"the package {package} {reason}: pip install 'cohort-rl[{extra}]'") from error


def seeded(prompt: str, size: int, seed: int, held_out: bool) -> list[dict[str, Any]]:
    """Rows of an environment whose seeds have no end, a row a seed; those held out have others than those trained on."""
    first, count = (HELD_OUT, min(size, HELD_OUT_ROWS)) if held_out else (0, size)
    return [{"prompt": prompt, "seed": first + seed + i} for i in range(count)]


def near(name: str, names: Iterable[str]) -> str:
    """What a wrong name may have meant, as the end of a message; empty if nothing is like it."""
    found = difflib.get_close_matches(name, list(names), n=3)
    return f"; did you mean {', '.join(found)}?" if found else ""


def number(
    options: Mapping[str, Any], name: str, default: float, *, whole: bool = False, least: float | None = None
) -> Any:
    """An option that is a number.

    Raises:
        UsageError: it is none, or smaller than `least`.
    """
    value = options.get(name, default)
    fits = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not fits or (least is not None and value < least):
        bound = "" if least is None else f" of at least {least}"
        raise UsageError(f"{name} is a {'whole ' if whole else ''}number{bound}, not {value!r}")
    return value


def said(message: Message) -> str:
    """What the policy said, without what it thought before."""
    content = message.get("content") or ""
    return str(content).rsplit("</think>", 1)[-1].strip()
