"""Inside both sandboxes: a program and test code that call each other's functions, by messages of plain values.

What is not plain stays where it is, and is spoken of by a number. The test code gives away nothing else than arguments: it
never asks the program to compare, and the program can read nothing of the test code's interpreter but what is meant for it.
"""

from __future__ import annotations

import builtins
import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cohort.rewards.code.wire import decode, encode

# Bytes of a message, and objects that stand for others.
LARGEST, MOST_OBJECTS = 1 << 23, 100_000
TWO = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "matmul", "lshift", "rshift")
ONE = ("len", "iter", "next", "bool", "str", "repr", "int", "float", "index", "abs", "neg", "pos", "invert")


class Gone(BaseException):
    """The other side has ended."""


class Remote:
    """An object of the other side. It equals nothing but itself."""

    def __init__(self, talk: Talk, number: int) -> None:
        object.__setattr__(self, "_talk", talk)
        object.__setattr__(self, "_number", number)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._talk.ask(["call", self._number, list(arguments), named], arguments)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__name__":
            raise AttributeError(name)
        return self._talk.ask(["get", self._number, name])

    def __setattr__(self, name: str, value: Any) -> None:
        self._talk.ask(["set", self._number, name, value])

    def __getitem__(self, key: Any) -> Any:
        return self._talk.ask(["item", self._number, key])

    def __setitem__(self, key: Any, value: Any) -> None:
        self._talk.ask(["setitem", self._number, key, value])

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__


def _one(name: str) -> Any:
    def ask(self: Remote) -> Any:
        value = self._talk.ask(["one", self._number, name])
        return self if name == "iter" and isinstance(value, Remote) and value._number == self._number else value

    return ask


def _two(name: str) -> Any:
    def ask(self: Remote, other: Any) -> Any:
        # What it is combined with may be what is expected of it.
        return self._talk.ask(["two", self._number, name, other]) if isinstance(other, Remote) else NotImplemented

    return ask


for _name in ONE:
    setattr(Remote, f"__{_name}__", _one(_name))
for _name in TWO:
    setattr(Remote, f"__{_name}__", _two(_name))


class Talk:
    """One side of a conversation.

    Args:
        reading, writing: descriptors.
    """

    def __init__(self, reading: int, writing: int) -> None:
        self.reading, self.writing, self.rest = reading, writing, b""
        self.own: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.remotes: dict[int, Remote] = {}

    def send(self, message: list[Any]) -> None:
        data = memoryview(f"{encode(message, self._named)}\n".encode())
        try:
            while data:
                data = data[os.write(self.writing, data) :]
        except OSError as error:
            raise Gone from error

    def receive(self) -> list[Any]:
        parts = [self.rest]
        while b"\n" not in parts[-1]:
            try:
                part = os.read(self.reading, 1 << 16)
            except OSError as error:
                raise Gone from error
            parts.append(part)
            if not part or sum(map(len, parts)) > LARGEST:
                raise Gone
        line, _, self.rest = b"".join(parts).partition(b"\n")
        try:
            message = decode(json.loads(line), self._object)
        except Exception as error:
            raise Gone from error
        if not isinstance(message, list) or not message:
            raise Gone
        return message

    def ask(self, request: list[Any], arguments: tuple[Any, ...] = ()) -> Any:
        """What the other side answers; serves it meanwhile."""
        self.send(request)
        while True:
            message = self.receive()
            if message[0] == "value":
                # One that returns something changes nothing here: what it was given may be what it is compared with.
                if message[1] is None and len(message) > 2:
                    for argument, changed in zip(arguments, message[2], strict=False):
                        _change(argument, changed)
                return message[1]
            if message[0] == "error":
                error = self.raised(*message[1:])
                if isinstance(error, (StopIteration, StopAsyncIteration)) and request[2:] != ["next"]:
                    # It would end a loop over the tests as if they all had been passed.
                    raise RuntimeError(f"the program raised {type(error).__name__}")
                raise error
            self.serve(message)

    def serve(self, request: list[Any]) -> None:
        """Do what the other side asks, and answer."""
        try:
            answer = ["value", self.done(*request)]
            if request[0] == "call" and answer[1] is None:
                # What a function without a value does, it does to its arguments.
                answer.append([each if isinstance(each, (list, dict, set, bytearray)) else None for each in request[2]])
        except Exception as error:
            answer = ["error", *self.told(error)]
        try:
            self.send(answer)
        except (TypeError, ValueError, RecursionError) as error:
            self.send(["error", ["TypeError"], str(error)[:300]])

    def done(self, how: str, number: int, *rest: Any) -> Any:
        """Do something with an object of this side; the other side's are restricted in what they may ask."""
        raise NotImplementedError

    def told(self, error: BaseException) -> list[Any]:
        """Names of an exception's classes, and its message."""
        names = [str(each.__name__) for each in type(error).__mro__]
        try:
            text = str(error)[:300]
        except Exception:
            text = ""
        return [names, text]

    def raised(self, names: Any = (), text: Any = "") -> Exception:
        """The exception that the other side told of."""
        raise NotImplementedError

    def _named(self, value: Any) -> str:
        if isinstance(value, Remote):
            return f'["m",{value._number}]'
        number = self.numbers.get(id(value))
        if number is None:
            if len(self.own) >= MOST_OBJECTS:
                raise ValueError("too many objects")
            number = self.numbers[id(value)] = len(self.own)
            self.own.append(value)
        return f'["o",{number}]'

    def _object(self, told: list[Any]) -> Any:
        tag, number = told
        if tag == "m":
            return self.own[number]
        if tag != "o" or type(number) is not int or len(self.remotes) > MOST_OBJECTS:
            raise ValueError("what came is no object")
        return self.remotes.setdefault(number, Remote(self, number))


def _change(argument: Any, changed: Any) -> None:
    if changed is None or isinstance(argument, Remote) or type(argument) is not type(changed):
        return
    if isinstance(argument, (list, bytearray)):
        argument[:] = changed
    else:
        argument.clear()
        argument.update(changed)


def builtin(name: Any) -> type[Exception] | None:
    """The builtin exception of a name; None if there is none."""
    found = getattr(builtins, name, None) if isinstance(name, str) else None
    return found if isinstance(found, type) and issubclass(found, Exception) else None


def perform(target: Any, how: str, rest: tuple[Any, ...]) -> Any:
    """Do what a request says with an object."""
    import operator

    if how == "call":
        return target(*rest[0], **(rest[1] if len(rest) > 1 else {}))
    if how == "get":
        return getattr(target, rest[0])
    if how == "set":
        return setattr(target, *rest)
    if how == "item":
        return target[rest[0]]
    if how == "setitem":
        target[rest[0]] = rest[1]
        return None
    if how == "two" and rest[0] in TWO:
        name = rest[0] + "_" if rest[0] in ("and", "or") else rest[0]
        return getattr(operator, name)(target, rest[1])
    if how == "one" and rest[0] in ONE:
        known: dict[str, Any] = {
            "len": len,
            "iter": iter,
            "next": next,
            "bool": bool,
            "str": str,
            "repr": repr,
            "int": int,
            "float": float,
        }
        return known[rest[0]](target) if rest[0] in known else getattr(operator, rest[0])(target)
    raise TypeError(f"no such request: {how}")
