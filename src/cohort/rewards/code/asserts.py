"""Inside the sandbox of the test code: it runs with the program's functions standing for themselves by messages."""

from __future__ import annotations

import ast
import builtins
import contextlib
import json
import os
import sys
import traceback
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cohort.rewards.code.talk import Gone, Remote, Talk, builtin, perform

# Modules that a test may take from what its program imports, since they are imported here anew.
SHARED = (
    "math cmath random collections itertools functools operator string re heapq bisect copy json datetime decimal fractions "
    "statistics typing time"
)
PROGRAM = ("solution", "program")


def converse(request: dict[str, Any]) -> None:
    """Run test code, and tell how many of its tests passed: [passed, total, what happened first, whether the program ended]."""
    told: list[Any]
    try:
        told = _judged(request)
    except Gone:
        told = [0, 1, "the program ended", True]
    except BaseException as error:
        told = [0, 1, _where(error), False]
    os.write(request["results"], json.dumps(told).encode())
    os._exit(0)


def _judged(request: dict[str, Any]) -> list[Any]:
    talk = _Tests(*request["pipes"])
    first = talk.receive()
    if first[0] != "ready":
        return [0, 1, str(first[1:2])[2:-2], False]
    module = sys.modules["tests"] = ModuleType("tests")
    space = module.__dict__
    _stub(request["stub"], space)
    tree = ast.parse(request["code"])
    entry = request["entry"]
    root = entry.replace("()", "").partition(".")[0]
    used, tested = _names(tree)
    tested |= {root} if root else set()
    _imports(request["program"], used - tested, space)
    # What is tested is the program's; of other names, what the prompt and Python define is not for it to define.
    asked = sorted(tested | {name for name in used if name not in space and not hasattr(builtins, name)})
    told = talk.ask(["names", asked])
    # No other names than these, whatever it tells.
    for name in asked:
        if name in told:
            kind, *rest = told[name]
            space[name] = talk.exception(name, *rest) if kind == "exception" else rest[0]
    for name in PROGRAM:
        sys.modules[name] = _Program(name, space)
    sys.modules.setdefault("pytest", _pytest())
    exec(compile(tree, "tests.py", "exec", dont_inherit=True), space)
    return _run(space, tree, entry)


class _Program(ModuleType):
    """What tests import as the module of the program."""

    def __init__(self, name: str, space: dict[str, Any]) -> None:
        super().__init__(name)
        self.__dict__["_space"] = space

    def __getattr__(self, name: str) -> Any:
        try:
            return self._space[name]
        except KeyError:
            raise AttributeError(f"the program has no {name}") from None


def _stub(code: str, space: dict[str, Any]) -> None:
    if not code:
        return
    try:
        made = compile(code, "prompt.py", "exec", dont_inherit=True)
    except SyntaxError:
        made = compile(f"{code}\n    pass", "prompt.py", "exec", dont_inherit=True)
    exec(made, space)


def _names(tree: ast.Module) -> tuple[set[str], set[str]]:
    """Names that test code uses, and those that it takes from the program by importing it."""
    imported: set[str] = set()
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in PROGRAM:
            imported |= {each.name for each in node.names}
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in PROGRAM:
            imported.add(node.attr)
    return names, imported


def _imports(program: str, wanted: set[str], space: dict[str, Any]) -> None:
    """Names that the program imports from modules that mean the same here, under their own names."""
    with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        for node in ast.parse(program).body:
            if isinstance(node, ast.Import):
                for each in node.names:
                    if each.name in SHARED.split() and each.asname is None and each.name in wanted:
                        space[each.name] = __import__(each.name)
            elif isinstance(node, ast.ImportFrom) and node.module in SHARED.split() and not node.level:
                for each in node.names:
                    if each.asname is None and each.name in wanted:
                        with contextlib.suppress(AttributeError):
                            space[each.name] = getattr(__import__(node.module), each.name)


def _run(space: dict[str, Any], tree: ast.Module, entry: str) -> list[Any]:
    """Call the tests that the code defines."""
    own = [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    called = any(
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and getattr(node.value.func, "id", "") == "check"
        for node in tree.body
    )
    tests: list[Any] = []
    for name in own:
        value = space.get(name)
        if name == "check" and entry and not called:
            tests.append(lambda value=value: value(_entry(entry, space)))
        elif name.startswith("test") and callable(value):
            tests += _spread(value)
        elif isinstance(value, type):
            tests += _of_class(name, value)
    passed, first = 0, ""
    for test in tests:
        try:
            test()
            passed += 1
        except Exception as error:
            first = first or _where(error)
    return [passed, len(tests), first, False] if tests else [1, 1, "", False]


def _entry(entry: str, space: dict[str, Any]) -> Any:
    first, *rest = entry.split(".")
    found = space[first.removesuffix("()")]
    found = found() if first.endswith("()") else found
    for name in rest:
        found = getattr(found, name.removesuffix("()"))
    return found


def _of_class(name: str, made: type) -> list[Any]:
    unittest = sys.modules.get("unittest")
    if unittest is not None and issubclass(made, unittest.TestCase):
        return [lambda case=case: _case(case) for case in unittest.defaultTestLoader.loadTestsFromTestCase(made)]
    if not name.startswith("Test"):
        return []
    return [test for key in vars(made) if key.startswith("test") for test in _spread(getattr(made(), key))]


def _case(case: Any) -> None:
    import unittest

    result = unittest.TestResult()
    case.run(result)
    for _, text in [*result.errors, *result.failures]:
        raise AssertionError(text.strip().splitlines()[-1])
    if result.testsRun != 1 or result.skipped:
        raise AssertionError("it was not run")


def _spread(test: Any) -> list[Any]:
    """A test, or one for each of its parameters."""
    rows: list[dict[str, Any]] = [{}]
    for names, values in getattr(test, "parameters", ()):
        keys = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
        rows = [
            {**row, **dict(zip(keys, value if len(keys) > 1 else [value], strict=True))}
            for row in rows
            for value in values
        ]
    return [lambda row=row: test(**row) for row in rows]


def _where(error: BaseException) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "tests.py"]
    return f"{type(error).__name__}: {error}"[:300] + (f" (line {lines[-1]} of the test code)" if lines else "")


class _Tests(Talk):
    """The test code's side: the program may call what it was given, walk through it, and read and set what objects of classes
    of the test code show; nothing with an underscore, and no frame, leads it on."""

    def done(self, how: str, number: Any, *rest: Any) -> Any:
        target = self.own[number]
        shown = type(target).__module__ == "tests"
        walked = hasattr(target, "__next__") and how == "one" and rest[0] in ("iter", "next")
        named = how not in ("get", "set") or (isinstance(rest[0], str) and not rest[0].startswith("_"))
        if (how == "call" and callable(target)) or walked or (shown and named and how != "two"):
            return perform(target, how, rest)
        raise TypeError("the test code does not allow that")

    def exception(self, name: str, names: Any, _: Any) -> type[Exception]:
        """A class of the program's that stands for exceptions raised there."""
        base = next((found for each in names[1:] if (found := builtin(each)) is not None), Exception)
        made = self.__dict__.setdefault("classes", {}).setdefault(name, type(str(name), (base,), {}))
        assert isinstance(made, type)
        return made

    def raised(self, names: Any = (), text: Any = "") -> Exception:
        for name in names if isinstance(names, list) else ():
            made = self.__dict__.get("classes", {}).get(name) or builtin(name)
            if made is not None:
                with contextlib.suppress(Exception):
                    error = made(text)
                    assert isinstance(error, Exception)
                    return error
        return RuntimeError(f"the program raised {names}: {text}"[:300])


def _pytest() -> ModuleType:
    """What test code mostly uses of pytest, where it is not installed."""
    import math

    class Approx:
        def __init__(self, expected: Any, rel: float | None = None, abs: float | None = None, **_: Any) -> None:
            self.expected, self.rel, self.abs = expected, 1e-6 if rel is None else rel, 1e-12 if abs is None else abs

        def __eq__(self, other: object) -> bool:
            return self._same(other, self.expected)

        def _same(self, value: Any, expected: Any) -> bool:
            if isinstance(expected, (list, tuple)):
                listed = type(value) is type(expected) and len(value) == len(expected)
                return listed and all(map(self._same, value, expected))
            if isinstance(expected, dict):
                return (
                    isinstance(value, dict)
                    and value.keys() == expected.keys()
                    and all(self._same(value[key], expected[key]) for key in expected)
                )
            if isinstance(value, Remote) or not isinstance(value, (int, float)):
                return bool(value == expected)
            return math.isclose(value, expected, rel_tol=self.rel, abs_tol=self.abs) or value == expected

        __hash__ = None  # type: ignore[assignment]

    class Raises:
        def __init__(self, expected: Any, *, match: str | None = None) -> None:
            self.expected, self.match = expected, match
            self.value: Any = None

        def __enter__(self) -> Raises:
            return self

        def __exit__(self, kind: Any, error: Any, _: Any) -> bool:
            import re

            if error is None:
                raise AssertionError(f"did not raise {self.expected}")
            if not isinstance(error, self.expected):
                return False
            self.value, self.type = error, kind
            if self.match is not None and not re.search(self.match, str(error)):
                raise AssertionError(f"raised {error!r}, which does not match {self.match!r}")
            return True

    def raises(expected: Any, call: Any = None, *arguments: Any, match: str | None = None, **named: Any) -> Any:
        if call is None:
            return Raises(expected, match=match)
        with Raises(expected, match=match):
            call(*arguments, **named)
        return None

    class Mark:
        @staticmethod
        def parametrize(names: Any, values: Any, **_: Any) -> Any:
            def mark(test: Any) -> Any:
                test.parameters = [*getattr(test, "parameters", ()), (names, list(values))]
                return test

            return mark

        def __getattr__(self, name: str) -> Any:
            return lambda *given, **_: given[0] if given and callable(given[0]) else lambda test: test

    def fail(text: str = "") -> None:
        raise AssertionError(text)

    module = ModuleType("pytest")
    module.__dict__.update(approx=Approx, raises=raises, mark=Mark(), fail=fail)
    return module
