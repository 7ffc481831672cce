"""Whether two answers are equivalent: exactly, as values, functions, regions, solutions.

Symmetric. Decimals are exact, so that 0.33 is not 1/3. Expressions are equal as functions wherever both are real, which is
decided by exact arithmetic where there is some, else by 30 digits at points chosen once and for all. To be called in the
process of `cohort.signals.equality`, which bounds its time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from latex2sympy2_extended import latex2sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig
from sympy import Abs, Complement, E, Expr, I, Intersection, Interval, Ne, Rational, S, Symbol, Union
from sympy import FiniteSet as Points
from sympy import Set as Region
from sympy import pi as PI
from sympy.core.relational import Ge, Gt, Le, Lt, Relational

from cohort.signals.latex import spelled
from cohort.signals.notation import (
    Choice,
    Combined,
    Equation,
    Inequality,
    Many,
    Matrix,
    Named,
    Ordered,
    Ratio,
    Shape,
    Value,
    Words,
    read,
)
from cohort.signals.units import quantity

DIGITS = 30
# Where functions of up to this many symbols are compared, in turns for each symbol: any that are no special values.
POINTS = tuple(
    tuple(Rational(n, 97) for n in row)
    for row in (
        (113, 41, 209, 67, 151, 89, 53),
        (29, 173, 71, 131, 43, 211, 101),
        (251, 83, 37, 163, 109, 59, 137),
        (-113, 179, -61, 149, -31, 127, -79),
        (47, -139, 103, -73, 191, -107, 167),
        (-157, -53, -181, -97, -119, -197, -23),
    )
)
_CONFIG = ConversionConfig(lowercase_symbols=False, interpret_as_mixed_fractions=False)


class UnreadableError(ValueError):
    """What stands there is no expression."""


def equivalent(one: str, other: str) -> bool:
    """True if two answers are the same text, value, function, choice, words, solutions, region, tuple or matrix."""
    same = spelled(one)
    if same and same == spelled(other):
        return True
    return any(_same(left, right) for left in read(one) for right in read(other))


def _same(one: Shape, other: Shape) -> bool:
    one, other = _unnamed(one, other)
    for kinds, compare in _COMPARED:
        if isinstance(one, kinds[0]) and isinstance(other, kinds[1]):
            return _tried(compare, one, other)
        if isinstance(other, kinds[0]) and isinstance(one, kinds[1]):
            return _tried(compare, other, one)
    return False


def _tried(compare: Any, one: Shape, other: Shape) -> bool:
    try:
        return bool(compare(one, other))
    except Exception:  # of every kind, from sympy on what it was not made for
        return False


# names ---------------------------------------------------------------------------------------------------------------


def _unnamed(one: Shape, other: Shape) -> tuple[Shape, Shape]:
    """Both without the names that only one has, or that are the same; of others, the equations that they are."""
    one, other = _settled(one), _settled(other)
    if isinstance(one, Named) and isinstance(other, Named):
        if _plain(one.name) == _plain(other.name):
            return one.value, other.value
        return _equation(one), _equation(other)
    if isinstance(one, Named):
        return (_equation(one) if isinstance(other, Equation) else _told(one)), other
    if isinstance(other, Named):
        return one, (_equation(other) if isinstance(one, Equation) else _told(other))
    return one, other


def _told(named: Named) -> Shape:
    """What it says of the name; nothing if that is the name itself."""
    return Words("") if isinstance(named.value, Value) and named.value.text == named.name else named.value


def _settled(shape: Shape) -> Shape:
    """A chain of equal constants is the last of them, one of constants that differ is nothing."""
    if isinstance(shape, Named) and isinstance(shape.value, Equation):
        settled = _settled(shape.value)
        return Words("") if isinstance(settled, Equation) else Named(shape.name, settled)
    if not isinstance(shape, Equation):
        return shape
    try:
        sides = [_expression(side) for side in shape.sides]
    except UnreadableError:
        return shape
    if any(side.free_symbols for side in sides):
        return shape
    equal = all(same_value(left, right) for left, right in pairwise(sides))
    return Value(shape.sides[-1]) if equal else Words("")


def _plain(name: str) -> str:
    return re.sub(r"\\(?:text|mathrm|operatorname)|[{}\s]", "", name)


def _equation(named: Named) -> Shape:
    value = named.value
    return Equation((named.name, value.text)) if isinstance(value, Value) and not value.unit else named


# shapes --------------------------------------------------------------------------------------------------------------


def _values(one: Value, other: Value) -> bool:
    if not (one.unit and other.unit):
        return same_value(_expression(one.text), _expression(other.text))
    scales = [quantity(each.unit) for each in (one, other)]
    if scales[0][1] != scales[1][1]:
        return False
    left, right = (_expression(each.text) * scale for each, (scale, _) in zip((one, other), scales, strict=True))
    return same_value(left, right)


def _choices(one: Choice, other: Choice) -> bool:
    return one.letter == other.letter and (one.rest is None or other.rest is None or _same(one.rest, other.rest))


def _labelled(one: Choice, other: Shape) -> bool:
    """B. 12 is 12 as well, and B alone is the symbol."""
    if one.rest is not None:
        return _same(one.rest, other)
    return isinstance(other, Value) and not other.unit and other.text == one.letter


def _alike(one: Sequence[Shape], other: Sequence[Shape]) -> bool:
    """Each of one has its own equal in the other, as of solutions that may be told twice."""
    left = list(one)
    if len({*map(repr, one)}) > len(other) or len({*map(repr, other)}) > len(one):
        return False
    return all(any(_same(a, b) for b in other) for a in left) and all(any(_same(a, b) for a in left) for b in other)


def _many(one: Many, other: Many) -> bool:
    names = [{_base(item) for item in each.items} for each in (one, other)]
    if any(len(each) == 1 and None not in each for each in names):
        # x = 2 or x = -2, and x_1 = 2, x_2 = -2, are solutions for one unknown.
        bare = [
            [item.value if isinstance(item, Named) and len(found) == 1 else item for item in each.items]
            for each, found in zip((one, other), names, strict=True)
        ]
        return _alike(*bare)
    return _alike(one.items, other.items)


def _base(item: Shape) -> str | None:
    return re.split(r"[_(]", _plain(item.name))[0] if isinstance(item, Named) else None


def _single(one: Many, other: Shape) -> bool:
    """A set of one solution is that solution."""
    return all(_same(item, other) for item in one.items) if one.items else False


def _tuples(one: Ordered, other: Ordered) -> bool:
    if len(one.items) != len(other.items) or one.brackets != other.brackets:
        return False
    return all(_same(a, b) for a, b in zip(one.items, other.items, strict=True))


def _matrices(one: Matrix, other: Matrix) -> bool:
    if [len(row) for row in one.rows] != [len(row) for row in other.rows]:
        return False
    rows = zip(one.rows, other.rows, strict=True)
    return all(_same(a, b) for left, right in rows for a, b in zip(left, right, strict=True))


def _ratios(one: Ratio, other: Ratio) -> bool:
    if len(one.parts) != len(other.parts):
        return False
    left, right = ([_expression(part) for part in each.parts] for each in (one, other))
    return all(same_value(a * right[0], b * left[0]) for a, b in zip(left, right, strict=True))


def _equations(one: Equation, other: Equation) -> bool:
    """The same solutions: one is a multiple of the other."""
    if len(one.sides) != 2 or len(other.sides) != 2:
        return False
    left, right = (_expression(a) - _expression(b) for a, b in (one.sides, other.sides))
    symbols = left.free_symbols
    if symbols != right.free_symbols or not symbols or same_value(left, S.Zero) or same_value(right, S.Zero):
        return False
    return _factor(left, right) is not None


def _factor(one: Expr, other: Expr) -> Expr | None:
    """The number that one is a multiple of the other by; None if it is none."""
    found = [_at(one / other, sorted((one / other).free_symbols, key=str), row) for row in POINTS]
    known = [factor for factor in found if factor is not None]
    same = len(known) >= 3 and known[0] != 0 and all(_same_constant(factor, known[0]) for factor in known)
    return known[0] if same else None


# regions -------------------------------------------------------------------------------------------------------------


def _regions(one: Shape, other: Shape) -> bool:
    names = [_variables(each) for each in (one, other)]
    if names[0] and names[1] and names[0] != names[1]:
        return False
    if any(len(each) > 1 for each in names):
        return isinstance(one, Inequality) and isinstance(other, Inequality) and _half_spaces(one, other)
    left, right = _region(one), _region(other)
    if left == right or S.EmptySet in (left, right):
        return bool(left == right)
    parts = [sorted(_spans(each), key=_start) for each in (left, right)]
    return len(parts[0]) == len(parts[1]) > 0 and all(map(_same_span, *parts))


def _variables(shape: Shape) -> set[str]:
    if isinstance(shape, Inequality):
        return {str(symbol) for side in shape.sides for symbol in _expression(side).free_symbols}
    if isinstance(shape, Named):
        return {_plain(shape.name)}
    return set().union(*map(_variables, shape.parts)) if isinstance(shape, Combined) else set()


def _region(shape: Shape) -> Region:
    if isinstance(shape, Named):
        return _region(shape.value)
    if isinstance(shape, Many):
        return Points(*(_expression(item.text) for item in shape.items if isinstance(item, Value)))
    if isinstance(shape, Ordered) and len(shape.items) == 2:
        low, high = (_expression(item.text) if isinstance(item, Value) else S.NaN for item in shape.items)
        if not (low.is_extended_real and high.is_extended_real) or (low - high).is_positive:
            raise UnreadableError
        return Interval(low, high, shape.brackets[0] == "(", shape.brackets[1] == ")")
    if isinstance(shape, Inequality):
        found: Region = S.Reals
        for (left, right), sign in zip(pairwise(shape.sides), shape.signs, strict=True):
            relation = _SIGNS[sign](_expression(left), _expression(right))
            symbols = relation.free_symbols
            if not isinstance(relation, Relational) or len(symbols) != 1:
                raise UnreadableError
            (symbol,) = symbols
            found = Intersection(found, relation.subs(symbol, Symbol("x", real=True)).as_set())
        return found
    if isinstance(shape, Combined):
        first, *rest = map(_region, shape.parts)
        for each in rest:
            first = {"or": Union, "and": Intersection, "without": Complement}[shape.how](first, each)
        return first
    value = _expression(shape.text) if isinstance(shape, Value) else None
    if isinstance(value, Region):
        return value
    raise UnreadableError


_SIGNS = {"<": Lt, "<=": Le, ">": Gt, ">=": Ge, "!=": Ne}


def _spans(region: Region) -> list[Any]:
    return list(region.args) if isinstance(region, Union) else [region]


def _start(span: Region) -> float:
    return float(span.inf.evalf())


def _same_span(one: Region, other: Region) -> bool:
    if isinstance(one, Interval) and isinstance(other, Interval):
        ends = ((one.start, other.start), (one.end, other.end))
        closed = (one.left_open, one.right_open) == (other.left_open, other.right_open)
        return closed and all(same_value(a, b) for a, b in ends)
    return bool(one == other)


def _half_spaces(one: Inequality, other: Inequality) -> bool:
    """Inequalities of several variables, of which one is a positive multiple of the other."""
    if len(one.signs) != 1 or len(other.signs) != 1:
        return False
    sides = []
    for each in (one, other):
        left, right = map(_expression, each.sides)
        sign = each.signs[0]
        sides.append((right - left if sign[0] == ">" else left - right, sign.replace(">", "<")))
    (left, strict), (right, other_strict) = sides
    if strict != other_strict:
        return False
    factor = _factor(left, right)
    return factor is not None and bool(strict == "!=" or factor.evalf(DIGITS).is_positive)


# expressions ---------------------------------------------------------------------------------------------------------

_DECIMAL = re.compile(r"(?<![\d_.])(\d*)\.(\d+)(?![\d.])")
_MIXED = re.compile(r"(?<![\w^.}\\])(\d+)\s*(?:\\frac\{(\d+)\}\{(\d+)\}|\s(\d+)/(\d+)(?![\d/]))")
_OF_HUNDRED = re.compile(r"(\([^()]*\)|\\frac\{[^{}]*\}\{[^{}]*\}|[\d.]+|[A-Za-z])\s*\\?%")
_DEGREES = re.compile(r"(\([^()]*\)|\{[^{}]*\}|[\d.]+|\\?[A-Za-z]+)\s*\^\{\\circ\}")


def _mixed(match: re.Match[str]) -> str:
    whole, over, under = match[1], match[2] or match[4], match[3] or match[5]
    return rf"({whole}+\frac{{{over}}}{{{under}}})" if int(over) < int(under) else match[0]


def _decimal(match: re.Match[str]) -> str:
    return rf"(\frac{{{int(match[1] + match[2])}}}{{{10 ** len(match[2])}}})"


@lru_cache(maxsize=256)
def _expression(text: str) -> Expr:
    """The expression that a text is, whole and exact.

    Raises:
        UnreadableError: it is none.
    """
    text = re.sub(r"([_^])\s*(\d*\.\d+)", r"\1{\2}", text)
    text = _DEGREES.sub(r"(\\frac{\1 \\pi}{180})", text)
    text = _OF_HUNDRED.sub(r"(\\frac{\1}{100})", text)
    text = _DECIMAL.sub(_decimal, _MIXED.sub(_mixed, text))
    # A capital I is a variable; as an imaginary unit it is written small.
    text = re.sub(r"(?<![\\A-Za-z])I(?![A-Za-z_])", "I_{0}", text).strip()
    try:
        found = latex2sympy(text, conversion_config=_CONFIG)
        if hasattr(found, "doit"):
            found = found.doit()
        if isinstance(found, Expr):
            found = found.subs({Symbol("i"): I, Symbol("pi"): PI, Symbol("e"): E})
    except RecursionError:
        raise UnreadableError(text) from None
    except Exception as error:  # of every kind, from the parser and from what it builds
        raise UnreadableError(text) from error
    if not isinstance(found, (Expr, Region)) or found.has(S.NaN, S.ComplexInfinity):
        raise UnreadableError(text)
    return found


def same_value(one: Expr, other: Expr) -> bool:
    """True of equal numbers, and of expressions that are equal as functions of real variables."""
    if isinstance(one, Region) or isinstance(other, Region):
        return bool(one == other)
    if one == other:
        return True
    if isinstance(one, Rational) and isinstance(other, Rational):
        return False
    if one.has(S.Infinity, S.NegativeInfinity) or other.has(S.Infinity, S.NegativeInfinity):
        return False
    symbols = sorted(one.free_symbols | other.free_symbols, key=str)
    if not symbols:
        return _same_constant(one, other)
    if len(symbols) > len(POINTS[0]):
        return bool((one - other).expand() == 0)
    pairs = [(_at(one, symbols, row), _at(other, symbols, row)) for row in POINTS]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    both_real = [] if one.has(I) or other.has(I) else [(a, b) for a, b in known if _is_real(a) and _is_real(b)]
    compared = both_real or known
    return len(compared) >= 2 and all(_same_constant(a, b) for a, b in compared)


def _same_constant(one: Expr, other: Expr) -> bool:
    """True of expressions without symbols that are equal to 20 digits; where both are noise around 0, of those that are 0."""
    left, right = (each.evalf(DIGITS) for each in (one, other))
    if not (_is_finite(left) and _is_finite(right)):
        return False
    gap, size = (Abs(left - right).evalf(DIGITS), max(Abs(left).evalf(DIGITS), Abs(right).evalf(DIGITS)))
    if gap <= size * Rational(1, 10**20):
        return True
    return size < Rational(1, 10**20) and bool((one - other).equals(0))


def _at(expression: Expr, symbols: Sequence[Symbol], row: Sequence[Rational]) -> Expr | None:
    """The exact value at a point; None where it is not finite."""
    value = expression.subs(dict(zip(symbols, row, strict=False))).doit()
    return value if _is_finite(value.evalf(DIGITS)) else None


def _is_finite(value: Expr) -> bool:
    return bool(value.is_number and value.is_finite)


def _is_real(value: Expr) -> bool:
    return bool(value.evalf(DIGITS).is_real)


_COMPARED: tuple[tuple[tuple[type, type], Any], ...] = (
    ((Words, Words), lambda one, other: bool(one.text) and one.text == other.text),
    ((Choice, Choice), _choices),
    ((Choice, object), _labelled),
    ((Value, Value), _values),
    ((Many, Many), _many),
    ((Ordered, Ordered), _tuples),
    ((Matrix, Matrix), _matrices),
    ((Ratio, Ratio), _ratios),
    ((Equation, Equation), _equations),
    ((Inequality, object), _regions),
    ((Combined, object), _regions),
    ((Many, object), _single),
)
