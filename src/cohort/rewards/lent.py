"""Environments that reward functions are given: packed where they live, opened where they are read."""

from __future__ import annotations

import base64
import contextlib
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohort.rewards.sending import packed
from cohort.rewards.spec import module_of


@dataclass(frozen=True)
class Lent:
    """An object from another process, as text. A pickle of it opens as the object.

    Attributes:
        data: its pickle, in base 64.
        file, module: the file that its class comes from, and its name as a module; empty where others find it without.
    """

    data: str
    file: str = ""
    module: str = ""

    @classmethod
    def of(cls, value: Any, file: str = "", module: str = "") -> Lent:
        """Pack an object; attributes of it that cannot be sent are left out.

        Raises:
            Exception: of any kind: it cannot be sent without them either.
        """
        try:
            data = packed(value)
        except Exception:
            kept = {}
            for name, held in getattr(value, "__dict__", {}).items():
                with contextlib.suppress(Exception):
                    packed(held)
                    kept[name] = held
            data = packed(_Parts(type(value), kept))
        return cls(base64.b64encode(data).decode(), file, module)

    def open(self) -> Any:
        """The object."""
        if self.file and self.module not in sys.modules:
            module_of(Path(self.file), self.module)
        return pickle.loads(base64.b64decode(self.data))

    def __reduce__(self) -> Any:
        return _opened, (self.data, self.file, self.module)


def _opened(data: str, file: str, module: str) -> Any:
    return Lent(data, file, module).open()


@dataclass
class _Parts:
    """What can be sent of an object."""

    kind: type
    kept: dict[str, Any]

    def __reduce__(self) -> Any:
        return _made, (self.kind, self.kept)


def _made(kind: type, kept: dict[str, Any]) -> Any:
    value: Any = object.__new__(kind)
    value.__dict__.update(kept)
    return value
