"""The number that a text is, however it is written; a formula is none.

What is read: signs (also U+2212); separators of thousands (1,234 1 234 1_234 1'234 and LaTeX's 1{,}234 1\\,234), in groups of
three; decimals, also 1.234,5; fractions and mixed numbers (3/4 \\frac{3}{4} 2 1/2 and one-character ones); powers of ten (1e3
10^3 3 \\times 10^4); "thousand" to "trillion"; what a name is equal to (x = 5). Currencies, units, degrees and the percent
sign are left out: 25% is 25. 3,14 may be a list as well as a decimal, and is read as neither.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

# Python's own bound for the digits of a number that is written out.
_MOST_DIGITS = 4000
# Stands for an operation: what holds it is no number.
_OPERATION = "§"

# Spelling -------------------------------------------------------------------------------------------------------------

_SIGNS = str.maketrans(
    {
        **dict.fromkeys("−﹣－–‒‐‑", "-"),
        **dict.fromkeys("\u00a0\u2007\u2009\u200a\u202f\u205f\u3000", " "),
        **dict.fromkeys("\u200b\u2060\ufeff", ""),
    }
)
_CHARACTERS = _SIGNS | str.maketrans(
    {
        **dict.fromkeys("×✕⋅·∙∗", "*"),
        **dict.fromkeys("÷∕⁄", "/"),
        **dict.fromkeys("≃≅≒", "≈"),
        **dict.fromkeys("‘’ʼ", "'"),
        **dict.fromkeys("“”„«»「」『』", '"'),
        **dict.fromkeys("→⇒⟹∴—", ";"),
        **dict.fromkeys("€£¥₹₩＄￥", "$"),
        **dict.fromkeys("º˚", "°"),
        "…": "...",
        "℃": "°C",
        "℉": "°F",
        "％": "%",
        "，": ", ",
        "、": ", ",
        "。": ". ",
        "：": ": ",
        "；": "; ",
        "！": "! ",
        "？": "? ",
        "（": "(",
        "）": ")",
        "．": ".",
        "＝": "=",
        "＋": "+",
        "／": "/",
    }
)
_RAISED = re.compile(r"[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_SMALL_FRACTION = re.compile(r"[¼-¾⅐-⅞]")
_WORDED = r"\\(?:text|mbox|textrm|textnormal|textsf|mathrm|mathsf|operatorname|rm|hbox|unit)"
_STYLED = r"\\(?:boxed|fbox|mathbf|textbf|boldsymbol|bm|emph|textit|mathit|underline|mathbb)"
_LATEX: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), written)
    for pattern, written in (
        (r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits|quad|qquad)(?![A-Za-z])", " "),
        (r"\\(?:boxed|fbox)(?!\s*\{)(?![A-Za-z])", " "),
        (r"\\!", ""),
        (r"\\[,;: ]|~", " "),
        (r"\{,\}", ","),
        (r"\\[()\[\]]|\$\$", " "),
        (r"\\([$%#])", r"\1"),
        (r"(?:US|AU|CA|HK|NZ|S|A|C)?\$", ""),
        (r"\\(?:times|cdot|ast)(?![A-Za-z])", "*"),
        (r"\\div(?![A-Za-z])", "/"),
        (r"\\approx(?![A-Za-z])", "≈"),
        (r"\\(?:to|rightarrow|Rightarrow|longrightarrow|implies|iff|therefore)(?![A-Za-z])|[=-]>", ";"),
        (r"[ ]?(?:\^\s*\{\s*\\circ\s*\}|\^\s*\\circ|\\degree|\\textdegree)(?![A-Za-z])", "°"),
        (r"\^\s*\{?\s*(st|nd|rd|th)\s*\}?(?![A-Za-z])", r"\1"),
        (r"(?<=\d)[ ]{0,3}\\(?:Omega|ohm)(?![A-Za-z])|\\mu\s+units", " units"),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\frac\s*(\d)\s*(\d)(?!\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
        (r"(\\frac\s*\{[^{}]*\})\s*(\d)(?!\d)", r"\1{\2}"),
        (r"(?<![\^_\w\\}])\{([-+\d.,\s]*)\}", r"\1"),
        (r"(?<=\d)\s*\\frac\s*\{([\d.,\s]+)\}\s*\{([\d.,\s]+)\}", r" \1/\2"),
        (r"\\frac\s*\{([-+\d.,\s]+)\}\s*\{([\d.,\s]+)\}", r"\1/\2"),
        (r"\\\\|\\newline", ";"),
        # Markdown, where it stands around something.
        (r"(?<![\w)\]}*])(\*\*|\*|__|`)(?=\S)([^*`\n]{1,200}?)(?<=\S)\1(?![\w(\[{*])", r"\2"),
    )
)
# Without any of these nothing of LaTeX or Markdown is there, which is most of a reward's time.
_MARKUP = re.compile(r"[\\$^{}~>*`_]|units")
_WORDED_PART = re.compile(_WORDED + r"\s*\{((?:[^{}]|\{[^{}]*\})*+)\}(\s*\^\s*(?:\{\s*-?\d\s*\}|-?\d))?")
_STYLED_PART = re.compile(_STYLED + r"\s*\{((?:[^{}]|\{[^{}]*\})*+)\}")


def _worded(match: re.Match[str]) -> str:
    """What stands upright in a formula: a number, a unit of one or two letters with its power, or words."""
    inside, power = match[1], match[2] or ""
    letters = inside.strip()
    if any(char.isdigit() for char in inside) or letters in ("e", "i", "d"):
        return inside + power
    if re.fullmatch(r"[A-Za-zµμΩ]{1,2}|[A-Za-z]{1,3}/[A-Za-z]{1,2}", letters) and letters not in (
        "or",
        "if",
        "pi",
        "st",
        "nd",
        "rd",
        "th",
    ):
        return " units "
    return f" {inside}" if match.string[match.end() :].startswith("(") else f" {inside} "


def _raised(text: str) -> str:
    """The text with raised digits as LaTeX writes them."""
    return _RAISED.sub(lambda match: "^{" + unicodedata.normalize("NFKC", match[0]).replace("−", "-") + "}", text)


def _spelled(text: str) -> str:
    """The text in one spelling: ASCII digits, signs and spaces, without most of LaTeX and Markdown."""
    text = _raised(text)
    text = _SMALL_FRACTION.sub(lambda match: f" {unicodedata.normalize('NFKC', match[0])} ", text)
    text = text.translate(_CHARACTERS)
    if not text.isascii():
        text = "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)
    if not _MARKUP.search(text):
        return text
    # From inside outwards, since one may hold another.
    for _ in range(4):
        before = text
        text = _STYLED_PART.sub(r"\1", _WORDED_PART.sub(_worded, text))
        if text == before:
            break
    for pattern, written in _LATEX:
        text = pattern.sub(written, text)
    return re.sub(r"units(?:\s*[/*]?\s*units)+", "units", text)


# Thousands, as LaTeX and typesetters separate them.
_THOUSANDS = re.compile(r"(?<=\d)(?:\\[,!;: ]|\{,\}|[ _'])(?=\d{3}(?!\d))")
_EXPONENT = re.compile(r"(?<![\w\\.^{])(\d+(?:\.\d+)?)[eE]([-+]?\d+)(?![\w.]*\w)")
_ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|(\d+|[A-Za-z]))")


def tidy(text: str) -> str:
    """The text with ASCII signs and spaces, and numbers of a piece, for other readers of formulas."""
    text = _raised(text).translate(_SIGNS).replace("∞", r"\infty ").replace("·", r"\cdot ")
    text = _ROOT.sub(lambda match: rf"\sqrt{{{match[1] or match[2]}}}", text)
    text = _EXPONENT.sub(r"\1 \\cdot 10^{\2}", text)
    return _THOUSANDS.sub("", text.replace("\\$", ""))


def words(text: str) -> str | None:
    """The words that a text is, without case, style and punctuation around them; None if it holds more than letters."""
    for _ in range(4):
        text = _STYLED_PART.sub(r"\1", _WORDED_PART.sub(r" \1\2 ", text))
    found = " ".join(text.replace("$", " ").strip(' \n\t.,:;()*`_"').split()).casefold()
    return found if found.replace(" ", "").isalpha() else None


# Words ----------------------------------------------------------------------------------------------------------------

_LETTER = "A-Za-zÀ-ÖØ-öø-ɏ"
_FUNCTIONS = r"(?:sqrt|sin|cos|tan|log|ln|pi|mod|infinity|theta)\b"
_SCALES = r"(?:hundred|thousand|million|billion|trillion)\b"
# Between words, or around them, stand the numbers and formulas of a text.
_BETWEEN = re.compile(
    rf"""
      \n | ; | " | \.{{2,}}
    | [.,:!?] (?= [')\]}}]* (?:\s|$) )
    | (?<!\w) [aAI] (?=\s+\w)
    | (?<!\w) \([A-Ea-e]\) (?=\s)
    | (?<![\w(]) (?<![-+*/=^<>,]\s) [A-E][).:] (?=\s+\S)
    | (?<=\d) - (?=[{_LETTER}]{{2,}}) (?!-{_FUNCTIONS})
    | </?[A-Za-z][^<>=\n]{{0,40}}>
    | (?<![{_LETTER}\d\\_{{^]) (?!{_FUNCTIONS}|{_SCALES}) [{_LETTER}]{{2,}} (?:['-][{_LETTER}]+)*
      (?!\s*= | [\w(\[^/]) (?:-(?=\d))?
    | (?:(?![{_LETTER}\d_\u0370-\u03ff]) \w)+
    """,
    re.VERBOSE,
)
# As an operator: between two numbers, or behind one.
_SAID = re.compile(
    r"(?<=[\d)%])\s+(?:(?:plus|minus|times|over|divided\s+by|multiplied\s+by|mod|modulo|choose|out\s+of|to|point"
    r"|to\s+the\s+power\s+of)\s+(?=[-(]?\s*[\d.])|(?:squared|cubed|factorial|hal(?:f|ves)|thirds?|quarters?|fifths?"
    r"|and\s+a\s+(?:half|third|quarter))\b(?!\s+[a-z]*met))",
    re.IGNORECASE,
)
_NEGATIVE = re.compile(r"\b(?:minus|negative)\s+(?=[\d.])", re.IGNORECASE)
# A tuple or an interval is one thing.
_TERMS = rf"(?:(?!(?<![\\{_LETTER}])[{_LETTER}]{{2}})[^()\[\]\n]){{0,80}}"
_TUPLE = re.compile(rf"[(\[]{_TERMS},\s{_TERMS}[)\]]")
_BULLET = re.compile(r"^[ \t]*[-*+•][ \t]+", re.MULTILINE)


def _runs(text: str) -> list[str]:
    """The numbers and formulas of a text, without the words between them."""
    text = _NEGATIVE.sub("-", _SAID.sub(f" {_OPERATION} ", text))
    text = _TUPLE.sub(lambda match: re.sub(r",\s", f",{_OPERATION}", match[0]), text)
    return [run for part in _BETWEEN.split(text) if (run := _trimmed(part))]


def _trimmed(run: str) -> str:
    """A run without punctuation around it, nor brackets that belong to the words."""
    # Nothing that long is a number.
    run = run.strip()
    if len(run) > 2 * _MOST_DIGITS:
        return f"{run[-_MOST_DIGITS:]}{_OPERATION}"
    while True:
        before = run
        run = run.strip().strip("'`#_:;,?").rstrip(".").lstrip("=≈").removeprefix("**").removesuffix("**").strip()
        for left, right in ("()", "[]", "{}"):
            many = run.count(left) - run.count(right)
            if run.endswith(right if many < 0 else left):
                run = run[: -1 if many else None]
            elif run.startswith(left if many > 0 else right):
                run = run[1 if many else 0 :]
            elif run.startswith(left) and run.endswith(right) and not re.search(rf"[,{_OPERATION}]", run):
                inside = run[1:-1]
                run = inside if left not in inside and right not in inside else run
        if run == before:
            return run


# Values ---------------------------------------------------------------------------------------------------------------

_GROUPED = r"[1-9]\d{0,2}(?P<by>[,' _])\d{3}(?:(?P=by)\d{3})*(?:\.\d+)?"
_CONTINENTAL = r"[1-9]\d{0,2}(?:(?:\.\d{3})+,\d+|(?:\.\d{3}){2,}|(?:[ ]\d{3})+,\d+)"
_SIMPLE = r"(?:\d++(?:\.\d*+)?|\.\d++)"
_POWER = r"10\s*(?:\^|\*\*)\s*[{(]?\s*(?P<power>[-+]?\s*\d+)\s*[})]?"
_SCALE = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12, "k": 3}
_LETTERS = r"(?:m|g|s|h|l|L|J|N|W|V|K|C|F)"
_KNOWN = (
    r"(?:[mcdknuµμ]m|[mkµμ]g|[mcd][lL]|lbs?|oz|ft|in|inch(?:es)?|yds?|mi|mph|km/?h|kph|m/s|hrs?|h|mins?|secs?|ms|ns|yrs?|days?"
    r"|k?Wh|[kM]W|[kmM]V|mA|[kMG]?Hz|k?J|k?cal|k?Pa|mol|eV|rad|deg|dB|[kKMGT]i?B|px|pts?|USD|EUR|GBP|INR|CNY|JPY|Rs|cents?"
    r"|st|nd|rd|th|am|pm|units?)"
)
_RAISED_UNIT = r"(?:\s*\^\s*(?:\{\s*-?\d\s*\}|-?\d))?"
_UNITS = re.compile(
    rf"""(?:
      \s*% | \s*°\s*[CFK]? | \s*'{{1,2}}
    | (?:\s*{_KNOWN} | \s+(?:{_LETTERS}|[{_LETTER}]{{3,}})) (?![{_LETTER}]) {_RAISED_UNIT}
      (?:\s*+(?:[/*]\s*+)?(?:{_KNOWN}|{_LETTERS}) (?![{_LETTER}]) {_RAISED_UNIT})*
    )?""",
    re.VERBOSE,
)
_NUMERAL = re.compile(
    rf"""(?P<sign>[-+]?)\s*(?:
      (?P<mixed>\d+)\s+(?P<part>\d+)\s*/\s*(?P<whole>\d+)
    | (?P<over>{_SIMPLE}|{_GROUPED.replace("by", "by1")})\s*/\s*(?P<under>{_SIMPLE}|{_GROUPED.replace("by", "by2")})
    | (?:(?P<digits>{_CONTINENTAL}|{_GROUPED}|{_SIMPLE})\s*(?:[*xX]|(?<=\s)[*xX])\s*)?{_POWER}
    | (?P<value>{_CONTINENTAL}|{_GROUPED.replace("by", "by3")}|{_SIMPLE})
      (?:[eE](?P<exponent>[-+]?\d+) | \s*(?P<scale>{_SCALES}) | (?P<k>[kK])(?!\w))?
    )(?![\d.,/^*!])""",
    re.VERBOSE,
)
_NAME = re.compile(
    rf"(?:\\?[{_LETTER}\u0370-\u03ff]++'*+(?:_(?:\{{[^{{}}]*\}}|\w))?(?:\([^()=]*\))?\s*+){{1,3}}|\|\w+\|", re.UNICODE
)
_CONSTANT = re.compile(rf"(?:[^{_LETTER}\\=<>≤≥≠\u0370-\u03ff]|\\(?:frac|sqrt|binom|pi)(?![A-Za-z])|sqrt|pi)*")


def _decimal(written: str) -> Fraction | None:
    """A number without sign and exponent."""
    if re.fullmatch(_CONTINENTAL, written):
        written = written.replace(".", "").replace(" ", "").replace(",", ".")
    written = re.sub(r"[,' _]", "", written)
    return None if len(written) > _MOST_DIGITS else Fraction(Decimal(written))


def _value(text: str) -> Fraction | None:
    """The number that a run is, with its unit."""
    text = text.strip()
    match = _NUMERAL.match(text)
    if match is None or _UNITS.fullmatch(text, match.end()) is None:
        return None
    found = match.groupdict()
    if found["whole"] is not None:
        digits = [found["mixed"], found["part"], found["whole"]]
        if max(map(len, digits)) > _MOST_DIGITS or int(found["whole"]) == 0:
            return None
        value: Fraction | None = int(found["mixed"]) + Fraction(int(found["part"]), int(found["whole"]))
    elif found["under"] is not None:
        over, under = _decimal(found["over"]), _decimal(found["under"])
        value = over / under if over is not None and under else None
    else:
        value = _decimal(found["digits"] or found["value"] or "1")
        written = found["power"] or found["exponent"] or "0"
        scale = _SCALE[found["scale"] or "k"] if found["scale"] or found["k"] else 0
        power = int(written.replace(" ", "")) + scale if len(written) < 10 else _MOST_DIGITS + 1
        if value is not None:
            value = value * Fraction(10) ** power if abs(power) <= _MOST_DIGITS else None
    return -value if value is not None and found["sign"] == "-" else value


def _read(run: str) -> Fraction | None:
    """The number that a run is, or that it says a name, or an expression of numbers, is equal to."""
    if _OPERATION in run:
        return None
    exact, *rounded = [_equal(part) for part in run.split("≈")]
    return exact if exact is not None or not rounded else rounded[-1]


def _equal(text: str) -> Fraction | None:
    *sides, last = re.split(r"(?<![<>!=:])=(?!=)", text)
    value = _value(last)
    if not sides:
        return value
    first = sides[0].strip()
    if value is None:
        # As in 5 = x.
        return _value(first) if len(sides) == 1 and _NAME.fullmatch(last.strip()) else None
    named = _NAME.fullmatch(first) is not None
    return value if named or all(_CONSTANT.fullmatch(side) for side in sides) else None


@lru_cache(maxsize=4096)  # a row's answer is read once for each of its rollouts
def number(text: str) -> Fraction | None:
    """The number that a text is, words around it left out; None if it is none, or several, or a formula."""
    # Behind a number this is a factorial.
    runs = _runs(re.sub(r"(?<=[\w)}\]])!", _OPERATION, _spelled(text)))
    return _read(runs[0]) if len(runs) == 1 else None


def last_number(text: str) -> Fraction | None:
    """The last number of a text; None if it holds none, or if the last that is there is a formula."""
    run = _last_run(text)
    return None if run is None else _read(run)


def last_formula(text: str) -> tuple[str, Fraction | None] | None:
    """The last number or formula of a text that has a digit, and which number it is; None if there is none."""
    run = _last_run(text)
    return None if run is None else (run.replace(f",{_OPERATION}", ", "), _read(run))


def _last_run(text: str) -> str | None:
    runs = reversed(_runs(_BULLET.sub("", _spelled(text))))
    return next((run for run in runs if any(char.isdigit() for char in run)), None)


def plain(value: Fraction | Decimal) -> str:
    """A number without exponent, trailing zeros or a sign of zero; as a fraction where its decimals do not end."""
    value = Fraction(value)
    left, places = value.denominator, 0
    for prime in (2, 5):
        count = 0
        while left % prime == 0:
            left, count = left // prime, count + 1
        places = max(places, count)
    # By way of Decimal, since Python refuses to write out integers of more than 4,300 digits.
    if left != 1:
        return f"{Decimal(value.numerator)}/{Decimal(value.denominator)}"
    digits = str(Decimal(abs(value.numerator) * 10**places // value.denominator)).rjust(places + 1, "0")
    text = f"{digits[:-places]}.{digits[-places:]}" if places else digits
    return f"-{text}" if value < 0 else text
