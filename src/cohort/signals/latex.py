"""Formulas as text: one spelling for what is written in many, and the parts between brackets."""

from __future__ import annotations

import re
from collections.abc import Iterator

# No deeper nest of brackets is read.
DEEPEST = 40
# What sets words upright in a formula, and an argument in braces that holds no more than one level of others.
UPRIGHT = r"\\(?:text|mbox|textrm|textnormal|textsf|textup|mathrm|mathsf|operatorname|hbox|unit)"
_STYLE = r"\\(?:boxed|fbox|textbf|textit|emph|underline|mathbf|boldsymbol|bm|mathit|mathcal)"
GROUP = r"\s*\{((?:[^{}]|\{[^{}]*\})*+)\}"
_STYLED = re.compile(_STYLE + GROUP)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?![\s{A-Za-z])")
_UNICODE = str.maketrans(
    {
        "≤": r"\le ",
        "≥": r"\ge ",
        "≠": r"\ne ",
        "×": r"\times ",
        "÷": r"\div ",
        "±": r"\pm ",
        "π": r"\pi ",
        "∪": r"\cup ",
    }
    | {"∈": r"\in ", "°": r"^{\circ}", "º": r"^{\circ}", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "∗": "*", "％": r"\%"}
    | {
        "θ": r"\theta ",
        "α": r"\alpha ",
        "β": r"\beta ",
        "γ": r"\gamma ",
        "λ": r"\lambda ",
        "μ": r"\mu ",
        "σ": r"\sigma ",
    }
)
_SPELLINGS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), written)
    for pattern, written in (
        (r"\\(?:left|right|[bB]igg?[lr]?|middle)(?![A-Za-z])\s*\.?", ""),
        (r"\\(?:displaystyle|textstyle|limits|quad|qquad)(?![A-Za-z])|\\[,;:! ]|~", " "),
        (r"\{,\}", ","),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\(?:leq|leqslant)(?![A-Za-z])|<=", r"\\le "),
        (r"\\(?:geq|geqslant)(?![A-Za-z])|>=", r"\\ge "),
        (r"\\neq(?![A-Za-z])|!=", r"\\ne "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\(?:ast|star)(?![A-Za-z])|(?<=[\w)}])\s*\*(?=\s*[\w(\\])", r"\\cdot "),
        (r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z])|\\textdegree(?![A-Za-z])", r"^{\\circ}"),
        (r"\\varnothing(?![A-Za-z])", r"\\emptyset"),
        (r"\\(?:R|mathbb\s*R|mathbb\s*\{\s*R\s*\}|Reals)(?![A-Za-z])", r"\\mathbb{R}"),
        (r"\\backslash(?![A-Za-z])", r"\\setminus"),
        (r"\\infin(?:ity)?(?![A-Za-z])|(?<![\\A-Za-z])(?:infinity|oo)(?![A-Za-z])", r"\\infty "),
        (r"\\(?:dots|ldots|cdots)(?![A-Za-z])", "..."),
        # As programs write it.
        (r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"(?<![\\A-Za-z])(pi|theta|alpha|beta)(?![A-Za-z])", r"\\\1 "),
        (r"(?<![\\A-Za-z])(sin|cos|tan|log|ln|exp)(?=\s*[({\d\\]|\s+[a-z](?![A-Za-z]))", r"\\\1 "),
        (r"\*\*(?=\s*[\w({])", "^"),
        (r"\^\s*\(([^()]*)\)", r"^{\1}"),
        (r"\\(bar|hat|vec|tilde|overline)\s*([A-Za-z])(?![A-Za-z])", r"\\\1{\2}"),
        # Arguments without braces.
        (r"\\sqrt\s*(\d|[A-Za-z])", r"\\sqrt{\1}"),
        (r"\\frac\s*(\d|[A-Za-z])\s*(\d|[A-Za-z])", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d|[A-Za-z])\s*\{", r"\\frac{\1}{"),
        (r"(\\frac\s*\{[^{}]*\})\s*(\d|[A-Za-z])", r"\1{\2}"),
        (r"(?<=[A-Za-z])'+", "_{prime}"),
    )
)
_BOLD = re.compile(r"(?<![\w)\]}*])(\*\*|\*|__|`)(?=\S)([^*`\n]{1,200}?)(?<=\S)\1(?![\w(\[{*])")


def spelled(text: str) -> str:
    """The text in one spelling of LaTeX, without what stands around answers."""
    text = text.strip()
    for _ in range(6):
        before = text
        text = _STYLED.sub(r" \1 ", _BOX.sub("", _BOLD.sub(r"\2", text))).strip()
        for left, right in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
            if len(text) > len(left + right) and text.startswith(left) and text.endswith(right):
                inside = text[len(left) : -len(right)]
                text = inside.strip() if left not in inside else text
        text = re.sub(r"(?<!\.)\.$", "", text).strip()
        if text == before:
            break
    for pattern, written in _SPELLINGS:
        text = pattern.sub(written, text)
    return " ".join(text.translate(_UNICODE).split())


# Splitting ------------------------------------------------------------------------------------------------------------

_OPEN, _CLOSE = "([{", ")]}"


def levels(text: str) -> Iterator[tuple[int, int]]:
    """(place, depth of brackets) of every character. Interval brackets may be mixed, so that their kinds are not told apart."""
    depth = 0
    for at, char in enumerate(text):
        if char in _CLOSE:
            depth -= 1
        yield at, depth
        if char in _OPEN:
            depth += 1


def balanced(text: str) -> bool:
    """True if brackets close what they open, and do not nest too deep."""
    depths = [depth for _, depth in levels(text)]
    opened, closed = (sum(char in kind for char in text) for kind in (_OPEN, _CLOSE))
    return opened == closed and min(depths, default=0) >= 0 and max(depths, default=0) <= DEEPEST


def split(text: str, pattern: str) -> list[str]:
    """The parts of a text between matches outside brackets."""
    outside = {at for at, depth in levels(text) if depth == 0}
    parts, start = [], 0
    for match in re.finditer(pattern, text):
        if match.start() in outside and match.start() >= start:
            parts.append(text[start : match.start()])
            start = match.end()
    return [part.strip() for part in (*parts, text[start:])]


def enclosed(text: str, left: str, right: str) -> str | None:
    """What stands between two brackets that belong together; None if they are not around all of the text."""
    if not (text.startswith(left) and text.endswith(right) and len(text) >= len(left + right)):
        return None
    inside = text[len(left) : len(text) - len(right)]
    return inside.strip() if balanced(inside) else None
