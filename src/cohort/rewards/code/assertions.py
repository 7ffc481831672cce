"""Asserts about a program's functions, read without running anything: which calls they make, and what they say of the values.

`assert f([1, 2]) == [2, 1]` is a call that the program makes in its sandbox, and a comparison that is made here, by value. So
neither what the program is told nor what it does to its own interpreter bears on the comparison. Asserts of another form
are judged by an interpreter in a sandbox of its own (see asserts.py).
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cohort.rewards.code.wire import MOST

# A function of the program by its path, its arguments by place and by name.
Call = tuple[str, tuple[Any, ...], dict[str, Any]]
# Names of the module under which tests import the program.
MODULES = frozenset({"solution", "program"})
_IGNORED = frozenset({"typing", "__future__", "pytest", "math"})
_BITS, _LENGTH = 4096, 1_000_000


class Unreadable(Exception):
    """The asserts have another form."""


@dataclass(frozen=True, eq=False)
class Assertion:
    """One assert.

    Attributes:
        calls: that it makes.
        text: its source.
    """

    calls: tuple[Call, ...]
    text: str
    _tree: ast.expr
    _nodes: tuple[int, ...]
    _names: dict[str, Any]

    def holds(self, values: Sequence[Any]) -> bool:
        """Whether it does, with these values of its calls; one that fails on them does not."""
        try:
            return bool(_Reader(self._names, dict(zip(self._nodes, values, strict=True))).value(self._tree))
        except Exception:
            return False


def read(code: str, entry: str | None) -> list[Assertion]:
    """The asserts of test code, those of `check(candidate)` and of functions test_... included.

    Args:
        entry: the function that `candidate` is.

    Raises:
        Unreadable: some of it is more than asserts about calls with literal arguments.
        SyntaxError: it is no Python.
    """
    found: list[Assertion] = []
    names: dict[str, Any] = {}
    _statements(ast.parse(code).body, names, set(), entry, found, code)
    if not found:
        raise Unreadable
    return found


def _statements(
    body: Sequence[ast.stmt],
    names: dict[str, Any],
    foreign: set[str],
    entry: str | None,
    found: list[Assertion],
    code: str,
) -> None:
    for node in body:
        match node:
            case ast.Assert():
                calls = _calls(node.test, names, foreign, entry)
                if calls:
                    text = ast.get_source_segment(code, node) or "assert"
                    ids, made = zip(*calls, strict=True)
                    found.append(Assertion(made, text, node.test, ids, dict(names)))
            case ast.Assign(targets=[ast.Name(id=name)]) if not _calls(node.value, names, foreign, entry):
                names[name] = _Reader(names, {}).given(node.value)
            case ast.Import():
                foreign.update(
                    (each.asname or each.name).partition(".")[0] for each in node.names if each.name != "math"
                )
            case ast.ImportFrom() if node.module not in MODULES:
                foreign.update(each.asname or each.name for each in node.names)
            case ast.ImportFrom() if any(each.asname for each in node.names):
                raise Unreadable
            case ast.FunctionDef(name="check", args=ast.arguments(args=[ast.arg(arg=argument)])) if entry:
                _statements(node.body, {**names, argument: _Candidate}, set(foreign), entry, found, code)
            case ast.FunctionDef(name=name, args=ast.arguments(args=[], kwonlyargs=[]), decorator_list=[]) if (
                name.startswith("test_")
            ):
                _statements(node.body, dict(names), set(foreign), entry, found, code)
            case ast.Expr(value=ast.Constant()) | ast.Pass() | ast.ImportFrom():
                pass
            case ast.Expr(value=ast.Call(func=ast.Name(id="check"), args=[_])) if entry:
                pass
            case _:
                raise Unreadable


class _Candidate:
    """What `candidate` is bound to."""


def _calls(tree: ast.expr, names: dict[str, Any], foreign: set[str], entry: str | None) -> list[tuple[int, Call]]:
    """Calls of the program's functions in an expression, each with its node."""
    found: list[tuple[int, Call]] = []
    left: list[ast.AST] = [tree]
    while left:
        node = left.pop()
        path = _path(node, names, foreign, entry) if isinstance(node, ast.Call) else None
        if path is not None:
            assert isinstance(node, ast.Call)
            reader = _Reader(names, {})
            if any(keyword.arg is None for keyword in node.keywords):
                raise Unreadable
            arguments = tuple(reader.given(each) for each in node.args)
            found.append((id(node), (path, arguments, {str(k.arg): reader.given(k.value) for k in node.keywords})))
        elif isinstance(node, ast.Name) and node.id not in names and node.id not in FUNCTIONS and node.id not in TYPES:
            if node.id != "math" or node.id in foreign:
                raise Unreadable
        elif not isinstance(node, _VALUES | _WORKED | _SIGNS) or _of_an_object(node):
            raise Unreadable
        elif isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Name) and not _of_math(node.func):
                raise Unreadable
            left += node.args
            left += [keyword.value for keyword in node.keywords]
        else:
            left += ast.iter_child_nodes(node)
    return found[::-1]


def _path(node: ast.Call, names: dict[str, Any], foreign: set[str], entry: str | None) -> str | None:
    """Path of the program's function that is called; None if it is one of those that are known here."""
    match node.func:
        case ast.Name(id=name) if names.get(name) is _Candidate:
            return entry
        case ast.Name(id=name) if name in foreign or name in names:
            raise Unreadable
        case ast.Name(id=name) if name not in FUNCTIONS or name == entry:
            # A class makes an object, which is no value.
            if name in _BUILTIN and name != entry:
                raise Unreadable
            return name
        case ast.Attribute(value=ast.Call(func=ast.Name(id="Solution"), args=[], keywords=[]), attr=name):
            return f"Solution.{name}"
    return None


def _of_math(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "math"


def _of_an_object(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and not (_of_math(node) and node.attr in _MATH)


_VALUES = ast.Constant | ast.List | ast.Tuple | ast.Set | ast.Dict | ast.Name | ast.Attribute | ast.Subscript
_WORKED = ast.UnaryOp | ast.BinOp | ast.BoolOp | ast.Compare | ast.Call
_SIGNS = ast.expr_context | ast.operator | ast.unaryop | ast.boolop | ast.cmpop
_BUILTIN = frozenset(dir(__builtins__) if not isinstance(__builtins__, dict) else __builtins__)


def _bounded(function: Callable[..., Any], most: int) -> Callable[..., Any]:
    def call(value: Any = (), **named: Any) -> Any:
        if len(value) > most:
            raise ValueError("too many elements")
        return function(value, **named)

    return call


def _number(value: Any, *digits: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > _BITS:
        raise ValueError("too large a number")
    return value


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "len": len,
    "set": _bounded(set, MOST),
    "frozenset": _bounded(frozenset, MOST),
    "sorted": _bounded(sorted, _LENGTH),
    "list": _bounded(list, _LENGTH),
    "tuple": _bounded(tuple, _LENGTH),
    "sum": _bounded(sum, _LENGTH),
    "any": any,
    "all": all,
    "abs": lambda value: abs(_number(value)),
    "round": lambda value, *digits: round(_number(value), *digits),
    "float": lambda value: float(value) if isinstance(value, (int, float)) or value in ("inf", "-inf", "nan") else None,
    "int": lambda value: int(value) if isinstance(value, (int, float)) else None,
    "str": lambda value: value if isinstance(value, str) else repr(_number(value)),
    "bool": bool,
    "range": lambda *ends: _bounded(lambda made: made, _LENGTH)(range(*ends)),
    "isinstance": isinstance,
}
TYPES = {t.__name__: t for t in (int, float, str, list, tuple, dict, set, bool, frozenset, bytes, complex)}
_MATH = {
    name: getattr(math, name) for name in ("isclose", "pi", "e", "inf", "nan", "sqrt", "fabs", "floor", "ceil", "isnan")
}
_COMPARED: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_NUMERIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_SINGLE: dict[type, Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
    ast.Not: operator.not_,
}


class _Reader:
    """Values of expressions of plain values, whose work is bounded by their size.

    Args:
        names: name -> value.
        known: node -> the value of the program's call there.
    """

    def __init__(self, names: dict[str, Any], known: dict[int, Any]) -> None:
        self.names, self.known = names, known

    def given(self, node: ast.expr) -> Any:
        """The value of an expression of a row.

        Raises:
            Unreadable: it has none.
        """
        try:
            value = self.value(node)
        except Exception as error:
            raise Unreadable from error
        return value

    def value(self, node: ast.expr) -> Any:
        if id(node) in self.known:
            return self.known[id(node)]
        match node:
            case ast.Constant():
                return node.value
            case ast.Name(id=name):
                found = self.names[name] if name in self.names else TYPES[name]
                if found is _Candidate:
                    raise Unreadable
                return found
            case ast.List() | ast.Tuple() | ast.Set():
                made = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)]
                return made([self.value(each) for each in node.elts])
            case ast.Dict():
                return {
                    self.value(k): self.value(v) for k, v in zip(node.keys, node.values, strict=True) if k is not None
                }
            case ast.UnaryOp():
                return _SINGLE[type(node.op)](self.value(node.operand))
            case ast.BoolOp():
                value: Any = None
                for each in node.values:
                    value = self.value(each)
                    if bool(value) is isinstance(node.op, ast.Or):
                        break
                return value
            case ast.Compare():
                left = self.value(node.left)
                for how, each in zip(node.ops, node.comparators, strict=True):
                    right = self.value(each)
                    if not _COMPARED[type(how)](left, right):
                        return False
                    left = right
                return True
            case ast.BinOp():
                return self._operated(type(node.op), self.value(node.left), self.value(node.right))
            case ast.Subscript():
                index = self.value(node.slice)
                return self.value(node.value)[index]
            case ast.Attribute() if _of_math(node):
                return _MATH[node.attr]
            case ast.Call():
                known = FUNCTIONS[node.func.id] if isinstance(node.func, ast.Name) else self.value(node.func)
                named = {str(each.arg): self.value(each.value) for each in node.keywords}
                return known(*(self.value(each) for each in node.args), **named)
        raise Unreadable

    def _operated(self, how: type, left: Any, right: Any) -> Any:
        if isinstance(left, (int, float, complex)) and isinstance(right, (int, float, complex)):
            _number(left)
            _number(right)
            if how is ast.Pow and abs(right) <= 64:
                return left**right
            return _NUMERIC[how](left, right)
        if how is ast.Add and len(left) + len(right) <= _LENGTH:
            return left + right
        if how is ast.Sub and isinstance(left, (set, frozenset)):
            return left - right
        if how is ast.Mult:
            many, count = (left, right) if isinstance(right, int) else (right, left)
            if len(many) * count <= _LENGTH:
                return many * count
        raise ValueError("not operated on here")
