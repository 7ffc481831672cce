"""Inside the program's sandbox: the program runs, and its functions are called from the test code's."""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cohort.rewards.code.talk import Gone, Talk, builtin, perform


def converse(request: dict[str, Any]) -> None:
    """Run a program, and answer until the other side ends."""
    module = sys.modules["program"] = ModuleType("program")
    reading, writing = request["pipes"]
    talk = _Program(reading, writing, module)
    try:
        exec(compile(request["source"], "program.py", "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:
        talk.send(["failed", f"{type(error).__name__}: {error}"[:300]])
        os._exit(1)
    try:
        talk.send(["ready"])
        while True:
            talk.serve(talk.receive())
    except Gone:
        os._exit(0)


class _Program(Talk):
    def __init__(self, reading: int, writing: int, module: ModuleType) -> None:
        super().__init__(reading, writing)
        self.module = module

    def done(self, how: str, number: Any, *rest: Any) -> Any:
        if how == "names":
            # Name -> its value; of a class of exceptions the names of those that it is derived from.
            found = {}
            for name in number:
                value = getattr(self.module, name, None)
                if isinstance(value, type) and issubclass(value, Exception):
                    found[name] = ["exception", [each.__name__ for each in value.__mro__], value]
                elif hasattr(self.module, name) and not isinstance(value, ModuleType):
                    found[name] = ["value", value]
            return found
        return perform(self.own[number], how, rest)

    def raised(self, names: Any = (), text: Any = "") -> Exception:
        made = next((found for name in names if (found := builtin(name)) is not None), RuntimeError)
        return made(text)
