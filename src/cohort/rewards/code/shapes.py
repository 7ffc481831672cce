"""The tests of a row, in the shapes of the usual public data sets.

| columns | data sets |
|---|---|
| `tests`, a list of {"input", "output"} | own; DeepCoder |
| `entry_point` with `cases`, a list of [arguments, expected] | own |
| `test_code`, or `test` with `entry_point` or imports from `solution` | own; HumanEval(+), KodCode |
| `test_list`, `test_setup_code`, `test_imports`, `challenge_test_list` | MBPP |
| `input_output` with `inputs`, `outputs`, `fn_name` | APPS, TACO |
| `public_test_cases`, `private_test_cases`, `metadata` with `func_name` | LiveCodeBench |
| `public_tests`, `private_tests`, `generated_tests`, `official_tests` | CodeContests, open-r1/codeforces |
| `verification_info`, `ground_truth`, `reward_model` | PrimeIntellect, SYNTHETIC-1, verl |
| `test_cases`, of asserts or of {"input", "output"} | AceCode, TACO-verified |

A column may hold JSON as a text.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import pickle
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from cohort.errors import shown
from cohort.rewards.code.assertions import Call, Unreadable, read
from cohort.rewards.code.compare import same_output, same_value
from cohort.rewards.code.program import parses, program_of

# Columns that hold the tests, and those that say of them how they are called.
TESTS = (
    *(
        "tests",
        "cases",
        "test_code",
        "test_list",
        "input_output",
        "public_test_cases",
        "private_test_cases",
        "public_tests",
    ),
    *(
        "private_tests",
        "generated_tests",
        "official_tests",
        "verification_info",
        "test_cases",
        "ground_truth",
        "reward_model",
    ),
    "test",
)
# Those that rows of other tasks have too.
LOOSE = ("ground_truth", "reward_model", "test")
BESIDE = (
    "setup",
    "entry_point",
    "fn_name",
    "test_setup_code",
    "test_imports",
    "challenge_test_list",
    "metadata",
    "starter_code",
)
REFERENCES = ("canonical_solution", "reference_solution", "solution")


class BadTests(ValueError):
    """No program can pass the tests of a row; the message says what is wrong with them."""


@dataclass(frozen=True)
class Case:
    """Calls of a program's functions, and what says of their values whether they are right.

    Attributes:
        text: what is tested, for messages.
    """

    calls: tuple[Call, ...]
    holds: Callable[[Sequence[Any]], bool]
    text: str


@dataclass
class Suite:
    """The tests of a row.

    Attributes:
        setup: code that stands before a program, and before test code.
        stub: the function that the prompt begins, where it does.
        entry: the function that is tested, where one is named.
        streams: pairs of standard input and expected standard output.
        cases: calls with expected values.
        scripts: test code that is more than calls and comparisons with literals.
    """

    setup: str = ""
    stub: str = ""
    entry: str = ""
    streams: list[tuple[str, str]] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return len(self.streams) + len(self.cases) + len(self.scripts)


def has_tests(row: Mapping[str, Any]) -> bool:
    """Whether a row has a column that holds tests; one that rows of other tasks have too must hold some that can be read."""
    if any(not _empty(row.get(name)) for name in TESTS if name not in LOOSE):
        return True
    loose = {name: row[name] for name in LOOSE if not _empty(row.get(name))}
    if not loose:
        return False
    try:
        return bool(read_tests({**{name: row.get(name) for name in BESIDE}, **loose}).total)
    except BadTests:
        # A row that says what is to be called is one of this task.
        return not _empty(row.get("entry_point"))


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, (str, list, tuple, dict)) and not len(value))


def read_tests(row: Mapping[str, Any]) -> Suite:
    """The tests of a row.

    Raises:
        BadTests: they cannot be read, or no program can pass them.
    """
    tests = Suite(setup=_text(row.get("setup") or "", "'setup'"), entry=_entry(row))
    if not parses(tests.setup):
        raise BadTests(f"'setup' is no Python: {shown(tests.setup)}")
    for name in TESTS:
        if not _empty(row.get(name)):
            _READERS.get(name, _listed)(tests, row, name)
    if not tests.total:
        raise BadTests(f"there is no test in {', '.join(name for name in TESTS if not _empty(row.get(name)))}")
    expected: dict[str, str] = {}
    for given, output in tests.streams:
        other = expected.setdefault(given, output)
        if not (same_output(output, other) or same_output(other, output)):
            raise BadTests(f"for the input {shown(given, 60)} they expect {shown(other, 60)} and {shown(output, 60)}")
    return tests


def reference(row: Mapping[str, Any]) -> str | None:
    """The row's own solution, where it has one that is a program."""
    names = (*REFERENCES, "code") if not _empty(row.get("test_list")) else REFERENCES
    for name in names:
        value = row.get(name)
        if isinstance(value, str) and value.strip():
            source = program_of(value)
            if parses(source) or parses(f"def f():\n{source}"):
                return source
    return None


def _entry(row: Mapping[str, Any]) -> str:
    for name in ("entry_point", "fn_name"):
        value = row.get(name)
        if not _empty(value):
            return _function(value, name)
    found = _loaded(row.get("metadata"), "metadata", strict=False)
    value = found.get("func_name") if isinstance(found, dict) else None
    return _function(value, "metadata.func_name") if isinstance(value, str) and value else ""


def _function(value: Any, where: str) -> str:
    if not isinstance(value, str) or not all(
        part.removesuffix("()").isidentifier() for part in value.strip().split(".")
    ):
        raise BadTests(f"{where} must be the name of a function, not {shown(value)}")
    return value.strip()


def _loaded(value: Any, where: str, *, strict: bool = True) -> Any:
    """A column's value, from JSON where it is a text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        if not strict:
            return None
        raise BadTests(f"'{where}' is no JSON: {error}") from error


def _text(value: Any, where: str) -> str:
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    if not isinstance(value, str):
        raise BadTests(f"{where} must be a text, not {shown(value)}")
    return value


def _listed(tests: Suite, row: Mapping[str, Any], name: str) -> None:
    """A list of tests, or a mapping of lists."""
    value = row[name]
    if isinstance(value, str) and name in ("tests", "test_cases") and not value.lstrip().startswith(("[", "{")):
        return _script(tests, row, name)
    if name == "private_test_cases":
        value = _unpacked(value)
    loaded = _loaded(value, name)
    if isinstance(loaded, dict):
        return _columns(tests, loaded, name)
    if not isinstance(loaded, list):
        raise BadTests(f"'{name}' must be a list of tests, not {shown(loaded)}")
    if loaded and all(isinstance(each, str) for each in loaded):
        return _asserts(tests, row, "\n".join(loaded), name)
    for number, each in enumerate(loaded, 1):
        _test(tests, each, f"{name}[{number}]")
    return None


def _test(tests: Suite, test: Any, where: str) -> None:
    if not isinstance(test, Mapping) or "input" not in test or "output" not in test:
        raise BadTests(f"{where} must have 'input' and 'output', not {shown(test)}")
    kind = str(test.get("testtype") or test.get("type") or "")
    named = test.get("fn_name") or (test.get("metadata") or {}).get("func_name") if kind != "stdin" else None
    if kind in ("functional", "function_call") or named:
        entry = _function(named or tests.entry, f"{where}: the function's name")
        _call(tests, entry, test["input"], test["output"], where)
    else:
        tests.streams.append(
            (_text(test["input"], f"{where}: the input"), _text(test["output"], f"{where}: the output"))
        )


def _call(tests: Suite, entry: str, given: Any, expected: Any, where: str) -> None:
    """A test of a function in the form of a data set: arguments a line, or a list of them; expected as JSON or a value."""
    either = [expected]
    if isinstance(given, str):
        given = [_loaded(line, f"{where}: the input") for line in given.splitlines() if line.strip()]
        if isinstance(expected, str):
            with contextlib.suppress(ValueError, RecursionError):
                either = [json.loads(expected)]
    # Some of these data sets put what is expected into a list of its own.
    if isinstance(either[0], list) and len(either[0]) == 1:
        either.append(either[0][0])
    arguments = tuple(given) if isinstance(given, (list, tuple)) else (given,)
    tests.cases.append(Case(((entry, arguments, {}),), partial(_one_of, either), where))


def _one_of(expected: Sequence[Any], values: Sequence[Any]) -> bool:
    return any(same_value(values[0], each) for each in expected)


def _columns(tests: Suite, value: Mapping[str, Any], name: str) -> None:
    """A mapping: `inputs` and `outputs`, or test code, or tests under a name of their own."""
    if not _empty(code := value.get("functional") or value.get("test_code")):
        return _asserts(tests, {}, _text(code, f"'{name}'"), name)
    if not _empty(inner := value.get("test_cases") or value.get("ground_truth")):
        inner = _loaded(inner, name)
        if isinstance(inner, list) and all(isinstance(each, str) for each in inner):
            return _asserts(tests, {}, "\n".join(inner), name)
        if isinstance(inner, Mapping):
            return _columns(tests, inner, name)
        for number, each in enumerate(inner if isinstance(inner, list) else [inner], 1):
            _test(tests, each, f"{name}[{number}]")
        return None
    inputs, outputs = (value.get(plural, value.get(plural[:-1])) for plural in ("inputs", "outputs"))
    if not isinstance(inputs, list) or not isinstance(outputs, list):
        raise BadTests(
            f"'{name}' must have lists 'inputs' and 'outputs', not {', '.join(map(str, value)) or 'nothing'}"
        )
    if len(inputs) != len(outputs):
        raise BadTests(f"'{name}' has {len(inputs)} inputs, but {len(outputs)} outputs")
    named = value.get("fn_name") or value.get("func_name")
    for number, (given, expected) in enumerate(zip(inputs, outputs, strict=True), 1):
        where = f"{name}[{number}]"
        if named:
            _call(tests, _function(named, "fn_name"), given, expected, where)
        else:
            tests.streams.append((_text(given, f"{where}: the input"), _text(expected, f"{where}: the output")))
    return None


def _verified(tests: Suite, row: Mapping[str, Any], name: str) -> None:
    """`verification_info`, `ground_truth` and `reward_model`, which may be of other tasks too."""
    value = row[name]
    loaded = _loaded(value, name, strict=name == "verification_info")
    if name == "reward_model" and isinstance(loaded, Mapping):
        loaded = _loaded(loaded.get("ground_truth"), name, strict=False)
    if isinstance(loaded, Mapping):
        _columns(tests, loaded, name)
    elif isinstance(loaded, list) and loaded:
        _listed(tests, {name: loaded}, name)
    elif name == "verification_info":
        raise BadTests(f"'{name}' must be a mapping, not {shown(value)}")


def _cases(tests: Suite, row: Mapping[str, Any], name: str) -> None:
    listed = _loaded(row[name], name)
    if not tests.entry:
        raise BadTests("there are 'cases', but no 'entry_point' that names the function")
    if not isinstance(listed, list):
        raise BadTests(f"'{name}' must be a list of [arguments, expected], not {shown(listed)}")
    for number, case in enumerate(listed, 1):
        if not isinstance(case, (list, tuple)) or len(case) != 2:
            raise BadTests(f"{name}[{number}] must be a pair [arguments, expected], not {shown(case)}")
        given, expected = case
        if not isinstance(given, (list, tuple, dict)):
            raise BadTests(
                f"{name}[{number}]: arguments must be a list, or a mapping from their names, not {shown(given)}"
            )
        made = ((), dict(given)) if isinstance(given, dict) else (tuple(given), {})
        tests.cases.append(Case(((tests.entry, *made),), partial(_one_of, [expected]), f"{name}[{number}]"))


def _mbpp(tests: Suite, row: Mapping[str, Any], name: str) -> None:
    setup = [_text(row.get(each) or "", f"'{each}'") for each in ("test_imports", "test_setup_code")]
    listed = [row[name], row.get("challenge_test_list")]
    code = [_text(_loaded(each, name, strict=False) or each, f"'{name}'") for each in listed if not _empty(each)]
    _asserts(tests, row, "\n".join([*setup, *code]), name)


def _script(tests: Suite, row: Mapping[str, Any], name: str) -> None:
    code = _text(row[name], f"'{name}'")
    if name == "test" and not tests.entry and "assert" not in code:
        return
    prompt = row.get("prompt")
    if (
        tests.entry
        and isinstance(prompt, str)
        and not tests.stub
        and "def " in prompt
        and (parses(prompt) or parses(f"{prompt}\n    pass"))
    ):
        tests.stub = prompt
    _asserts(tests, row, code, name)


def _asserts(tests: Suite, row: Mapping[str, Any], code: str, name: str) -> None:
    try:
        made = read(code, tests.entry or None)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        at = (
            f", line {line} ({shown(code.splitlines()[line - 1], 80)})"
            if line and line <= len(code.splitlines())
            else ""
        )
        raise BadTests(f"'{name}' is no Python{at}: {error}") from error
    except Unreadable:
        if not _tests_something(code):
            raise BadTests(f"'{name}' asserts nothing") from None
        tests.scripts.append(code)
        return
    tests.cases += [Case(each.calls, each.holds, each.text) for each in made]


def _tests_something(code: str) -> bool:
    """Whether test code has an assert, or what raises one."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, (ast.Assert, ast.Raise)):
            return True
        if isinstance(node, ast.Attribute) and node.attr.startswith(("assert", "fail")):
            return True
    return False


class _Texts(pickle.Unpickler):
    """Reads texts alone: a pickle of a data set's can name nothing."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is no text")


def _unpacked(value: Any) -> Any:
    """LiveCodeBench's private tests, which are packed: base64 of zlib of a pickle of JSON."""
    if not isinstance(value, str) or value.lstrip().startswith(("[", "{")):
        return value
    try:
        packed = zlib.decompress(base64.b64decode(value, validate=True))
        return _Texts(io.BytesIO(packed)).load()
    except Exception as error:
        raise BadTests(f"'private_test_cases' cannot be unpacked: {error}") from error


_READERS: dict[str, Callable[[Suite, Mapping[str, Any], str], None]] = {
    "cases": _cases,
    "test_code": _script,
    "test": _script,
    "test_list": _mbpp,
    "verification_info": _verified,
    "ground_truth": _verified,
    "reward_model": _verified,
}
