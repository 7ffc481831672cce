"""What a mathematical answer is made of: a value, a choice, words, several solutions, a tuple, a region, a matrix, an equation.

An answer that cannot be read as a whole is none: nothing is left out but what stands around answers anyway (dollar signs,
boxes, bold type, a full stop). No text is evaluated. `cohort.signals.equivalence` compares what is read here.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cohort.signals.latex import GROUP, UPRIGHT, balanced, enclosed, levels, spelled, split
from cohort.signals.numbers import tidy

# Longer ones are no answers.
LONGEST = 2000


@dataclass(frozen=True)
class Value:
    """One expression in LaTeX, and the unit that it is followed by."""

    text: str
    unit: str = ""


@dataclass(frozen=True)
class Words:
    """Words, without case."""

    text: str


@dataclass(frozen=True)
class Choice:
    """The letter of an option, and what stands behind it."""

    letter: str
    rest: Shape | None = None


@dataclass(frozen=True)
class Many:
    """Solutions in any order."""

    items: tuple[Shape, ...]


@dataclass(frozen=True)
class Ordered:
    """A tuple, or an interval with two ends: brackets are as written."""

    items: tuple[Shape, ...]
    brackets: str = "()"


@dataclass(frozen=True)
class Matrix:
    """Rows of cells."""

    rows: tuple[tuple[Shape, ...], ...]


@dataclass(frozen=True)
class Named:
    """What a name, or a function of names, is equal to or an element of."""

    name: str
    value: Shape


@dataclass(frozen=True)
class Equation:
    """Sides with = between every two, of which the first is no name."""

    sides: tuple[str, ...]


@dataclass(frozen=True)
class Inequality:
    """A chain of sides with a sign, one of < <= > >= !=, between every two."""

    sides: tuple[str, ...]
    signs: tuple[str, ...]


@dataclass(frozen=True)
class Combined:
    """Regions of which a point lies in one ("or"), in all ("and"), or in the first and not in the second ("without")."""

    how: str
    parts: tuple[Shape, ...]


@dataclass(frozen=True)
class Ratio:
    """Three numbers or more with colons between them."""

    parts: tuple[str, ...]


Shape = Value | Words | Choice | Many | Ordered | Matrix | Named | Equation | Inequality | Combined | Ratio

# Reading --------------------------------------------------------------------------------------------------------------

_COMMAS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])")
_OR = rf"{UPRIGHT}\s*\{{\s*,?\s*(?:or)\s*\}}|(?<![A-Za-z\\])or(?![A-Za-z])|\\(?:lor|vee)(?![A-Za-z])"
_AND = rf"{UPRIGHT}\s*\{{\s*,?\s*(?:and)\s*\}}|(?<![A-Za-z\\])and(?![A-Za-z])|\\(?:land|wedge)(?![A-Za-z])"
_SIGN = r"\\(?:le|ge|ne)(?![A-Za-z])|[<>]"
_SIGNS = {"\\le": "<=", "\\ge": ">=", "\\ne": "!=", "<": "<", ">": ">"}
_ATOM = r"(?:\\?[A-Za-z]+(?:_(?:\{[^{}]*\}|\w))?)"
# A symbol with its index, or a function of such: x, x_1, f(x), P(n, k).
_NAME = re.compile(rf"{_ATOM}(?:\s*\(\s*{_ATOM}(?:\s*,\s*{_ATOM})*\s*\))?")
_LABELLED = re.compile(rf"(?:{UPRIGHT}\s*\{{\s*)?(?:\(([A-Ja-j])\)|([A-J])(?:[.):]|\s*:))\s*\}}?\s*(\S.*)", re.DOTALL)
_LETTER = re.compile(rf"(?:{UPRIGHT}\s*\{{\s*)?(?:\(([A-Za-z])\)|([A-J]))[.:)]?\s*\}}?")
_IN_TEXT = re.compile(UPRIGHT + GROUP)
_TABLE = re.compile(r"\\begin\{([pbB]?matrix|array|smallmatrix)\}(?:\{[lcr| ]*\})?(.*)\\end\{\1\}", re.DOTALL)
# Shorter runs of letters are products of variables, but for these.
_SHORT_WORDS = frozenset(("yes", "no", "odd", "all", "one", "two", "six", "ten", "nan", "red"))
_FUNCTION = r"(?:sqrt|frac|binom|sin|cos|tan|cot|sec|csc|log|ln|exp|gcd|lcm|max|min|mod|sum|prod|int|lim)"


class _NothingError(ValueError):
    """The text is no answer."""


def read(text: str) -> list[Shape]:
    """What a text may be, the likeliest first: 100,200 is one number or two. Empty if it is no answer."""
    if len(text) > LONGEST:
        return []
    bare, unit = _without_currency(text.strip())
    bare = spelled(tidy(bare))
    grouped = bare if re.search(r"[(\[{]", bare) else _COMMAS.sub(lambda match: match[0].replace(",", ""), bare)
    out: list[Shape] = []
    for form in dict.fromkeys((grouped, bare)):
        with contextlib.suppress(_NothingError, RecursionError):
            shape = _shape(form)
            out.append(Value(shape.text, unit) if unit and isinstance(shape, Value) and not shape.unit else shape)
    return out


def _without_currency(text: str) -> tuple[str, str]:
    """The text without a sign of dollars before its number, and that unit."""
    match = re.fullmatch(
        r"(-?)\s*(?:\\\$|\$)\s*(-?[\d.][^$]*)", text.removeprefix("$") if text.count("$") == 3 else text
    )
    return (text, "") if match is None else (match[1] + match[2].removesuffix("\\"), "dollars")


def _shape(text: str) -> Shape:
    """What a spelled text is.

    Raises:
        _NothingError: it is no answer.
    """
    text = text.strip()
    if not balanced(text):
        raise _NothingError(text)
    return next(found for reader in _READERS if (found := reader(text)) is not None)


def _shapes(texts: Sequence[str]) -> tuple[Shape, ...]:
    return tuple(_shape(text) for text in texts)


def _letters(text: str) -> Shape | None:
    """A choice, words, or nothing at all."""
    match = _LETTER.fullmatch(text)
    if match is not None:
        return Choice((match[1] or match[2]).upper())
    inside = _IN_TEXT.fullmatch(text)
    within = text if inside is None else inside[1].strip()
    if not within or not re.search(r"[^\W_]|\\\{", within):
        raise _NothingError(text)
    bare = " ".join(within.split()).strip(" .,:;!").casefold()
    letters = re.sub(r"[ '-]", "", bare)
    if not letters.isalpha() or (inside is None and re.search(r"\b(?:or|and)\b", bare)):
        return None if inside is None else _shape(within)
    if inside is None and len(letters) <= 3 and bare not in _SHORT_WORDS:
        return None
    return None if re.fullmatch(_FUNCTION, bare) else Words(bare)


def _labelled(text: str) -> Shape | None:
    match = _LABELLED.fullmatch(text)
    if match is None:
        return None
    rest = match[3] if balanced(match[3]) else match[3].rstrip().removesuffix("}")
    try:
        return Choice((match[1] or match[2]).upper(), _shape(rest))
    except _NothingError:
        return Choice((match[1] or match[2]).upper())


def _matrix(text: str) -> Shape | None:
    match = _TABLE.fullmatch(text)
    if match is None:
        return None
    rows = tuple(_shapes(row.split("&")) for row in re.split(r"\\\\|\\cr", match[2]) if row.strip())
    if len({len(row) for row in rows}) != 1:
        raise _NothingError(text)
    return Matrix(rows)


def _in_braces(text: str) -> Shape | None:
    inside = enclosed(text, "\\{", "\\}")
    if inside is None:
        return None
    return Many(_shapes(split(inside, r"[,;]"))) if inside else Value("\\emptyset")


def _regions(how: str, pattern: str) -> Callable[[str], Shape | None]:
    def reader(text: str) -> Shape | None:
        parts = split(text, pattern)
        return None if len(parts) == 1 else Combined(how, _shapes(parts))

    return reader


def _several(text: str) -> Shape | None:
    """Solutions or conditions, with words or commas between them."""
    either = split(text, _OR)
    listed = [part for each in either for both in split(each, rf",?\s*(?:{_AND})") for part in split(both, r"[,;]")]
    if len(listed) == 1:
        return None
    found = _shapes(listed)
    if all(_is_region(each) for each in found):
        return Combined("or" if len(either) > 1 else "and", found)
    return Many(found)


def _is_region(shape: Shape) -> bool:
    inner = shape.value if isinstance(shape, Named) else shape
    return isinstance(inner, (Inequality, Combined)) or (isinstance(inner, Ordered) and inner.brackets != "()")


def _member(text: str) -> Shape | None:
    name, *rest = split(text, r"\\in(?![A-Za-z])")
    if not rest:
        return None
    if len(rest) > 1 or not _NAME.fullmatch(name):
        raise _NothingError(text)
    return Named(name, _shape(rest[0]))


def _bracketed(text: str) -> Shape | None:
    angled = re.fullmatch(r"\\langle(?![A-Za-z])(.*)\\rangle", text)
    text = text if angled is None else f"({angled[1].strip()})"
    for brackets in ("()", "(]", "[)", "[]"):
        inside = enclosed(text, *brackets)
        if inside is not None:
            parts = split(inside, r"[,;]")
            if len(parts) > 1:
                return Ordered(_shapes(parts), brackets)
            return _shape(inside) if brackets == "()" else None
    return None


def _related(text: str) -> Shape | None:
    """An inequality, what a name is equal to, or an equation."""
    sides = split(text, _SIGN)
    if len(sides) > 1:
        if not all(sides) or any("=" in side for side in sides):
            raise _NothingError(text)
        depth = dict(levels(text))
        signs = (match for match in re.finditer(_SIGN, text) if depth[match.start()] == 0)
        return Inequality(tuple(sides), tuple(_SIGNS[match[0]] for match in signs))
    sides = split(text, r"=")
    if len(sides) == 1:
        return None
    if not all(sides):
        raise _NothingError(text)
    if _NAME.fullmatch(sides[0]) or _IN_TEXT.fullmatch(sides[0]):
        return Named(sides[0], _shape(" = ".join(sides[1:])))
    if len(sides) == 2 and _NAME.fullmatch(sides[1]) and not re.search(r"(?<![\\A-Za-z])[A-Za-z]", sides[0]):
        return Named(sides[1], _shape(sides[0]))
    return Equation(tuple(sides))


def _either_sign(text: str) -> Shape | None:
    if not re.search(r"\\(?:pm|mp)(?![A-Za-z])", text):
        return None
    upper = re.sub(r"\\mp(?![A-Za-z])", "-", re.sub(r"\\pm(?![A-Za-z])", "+", text))
    lower = re.sub(r"\\mp(?![A-Za-z])", "+", re.sub(r"\\pm(?![A-Za-z])", "-", text))
    return Many(_shapes([each.strip().removeprefix("+") for each in (upper, lower)]))


def _ratio(text: str) -> Shape | None:
    parts = split(text, r":")
    if len(parts) == 1:
        return None
    if not all(parts):
        raise _NothingError(text)
    return Value(rf"\frac{{{parts[0]}}}{{{parts[1]}}}") if len(parts) == 2 else Ratio(tuple(parts))


# Units that are not set upright, behind a number.
_PLAIN_UNIT = (
    r"(?:[numkcd]?m|[kMG]?Hz|[kmu]?g|[mu]?s|[mkMG]?W|[mk]?V|[mu]?A|[kM]?J|[kM]?Pa|[mkc]?L|N|K|rad|mol|eV|dB[mi]?|bits?"
    r"|[kMGT]?bps|ohms?|hours?|hrs?|minutes?|mins?|seconds?|secs?|days?|weeks?|months?|years?|degrees?|dollars?|cents?"
    r"|euros?|pounds?|feet|foot|ft|inch(?:es)?|miles?|mph|yards?|km/h|m/s|units?|percent)"
)
_SCALES = {
    "hundred": "100",
    "thousand": "1000",
    "million": "10^{6}",
    "billion": "10^{9}",
    "trillion": "10^{12}",
    "dozen": "12",
}
# Behind a number these are part of it, or take something from it.
_NO_NOUN = re.compile(
    r"(?:hundred|thousand|million|billion|trillion|dozen|squared|cubed|factorial|hal(?:f|ves)|thirds?|quarters?|fifths?|times"
    r"|plus|minus|over|divided|multiplied|mod|modulo|base|choose|to|or|and|not|no|never|more|less|fewer|than|at|most|least"
    r"|about|around|approximately|roughly|nearly|if|unless|except|but|wrong|false|correct|right|true|answer|point)s?",
    re.IGNORECASE,
)
_POWER = r"(?:\s*\^\s*\{?-?\d\}?)?"
_SETUPRIGHT = rf"{UPRIGHT}\s*\{{[^{{}}]*\}}{_POWER}"
_WITH_UNIT = re.compile(
    rf"""(?P<value>.*?[\d)}}\]A-Za-z])\s*(?:
        (?P<degrees>\^\{{\\circ\}})(?:\s*(?P<scale>{UPRIGHT}\s*\{{\s*[CFK]\s*\}}|[CFK]))?
      | (?P<text>{_SETUPRIGHT}(?:\s*(?:/|\\cdot|\\times)?\s*{_SETUPRIGHT})*)
      | (?<=[\d\s)}}\]])(?P<plain>{_PLAIN_UNIT}{_POWER}|(?<=\s)[A-Za-z]{{4,}}(?:\s[A-Za-z]+){{0,2}})
    )""",
    re.VERBOSE | re.DOTALL,
)
_TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")


def _with_unit(text: str) -> Shape | None:
    match = _WITH_UNIT.fullmatch(text)
    if match is None:
        return None
    value = match["value"]
    if match["degrees"] is not None:
        if _TRIGONOMETRY.search(value):
            return None
        unit = "degrees" + re.sub(rf"{UPRIGHT}|[{{}}\s]", "", match["scale"] or "")
    elif match["text"] is not None:
        unit = re.sub(rf"{UPRIGHT}\s*\{{([^{{}}]*)\}}", r" \1 ", match["text"])
    elif re.fullmatch(r"[-+]?[\d.,\s]+", value):
        unit = match["plain"]
    else:
        # 2x m may be a product.
        return None
    unit = " ".join(re.sub(r"[{}]", "", re.sub(r"\\(?:cdot|times)", "*", unit)).split()).strip(" .")
    if unit in ("percent", "pct"):
        return Value(rf"{value}\%")
    scale = _SCALES.get(unit.casefold())
    if scale is not None:
        return Value(rf"{value} \cdot {scale}")
    words = re.findall(r"[A-Za-z]+", unit)
    inner = _shape(value)
    bad = not unit or len(words) > 4 or any(map(_NO_NOUN.fullmatch, words))
    if bad or not isinstance(inner, Value) or inner.unit:
        raise _NothingError(text)
    return Value(inner.text, unit)


def _expression(text: str) -> Shape:
    # What is left of words, code and markup is no expression.
    if not text or re.search(r"""["'`#&;@?]|__|\\text|(?<![\d_^])\d+\s+(?!\d+\s*/\s*\d)\d""", text):
        raise _NothingError(text)
    return Value(text)


_READERS: tuple[Callable[[str], Shape | None], ...] = (
    _letters,
    _labelled,
    _matrix,
    _regions("or", r"\\cup(?![A-Za-z])"),
    _regions("without", r"\\setminus(?![A-Za-z])"),
    _several,
    _member,
    _in_braces,
    _bracketed,
    _related,
    _either_sign,
    _ratio,
    _with_unit,
    _expression,
)
