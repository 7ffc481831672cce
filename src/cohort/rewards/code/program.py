"""The program that a completion holds."""

from __future__ import annotations

import ast
import re

from cohort.signals.answers import outside_thought

_FENCE = re.compile(
    r"^([ \t]{0,3})(```+|~~~+)[ \t]*([\w+.#-]*)[^\n`]*\n(.*?)(?:(?:^[ \t]{0,3})?\2[`~]*[ \t]*\r?$|\Z)", re.M | re.S
)
PYTHON = frozenset({"", "python", "python3", "py", "py3", "python3.11", "pycon"})


def program_of(text: str) -> str:
    """The last fenced block of a completion that is Python or says no language, without what was thought; else the whole
    text. A block that is not closed ends with the text."""
    text = outside_thought(text)
    blocks = [match for match in _FENCE.finditer(text) if match[3].lower() in PYTHON]
    if not blocks:
        return text
    # A block is as far to the right as its fence, as in a list.
    return (
        re.sub(rf"^[ \t]{{1,{len(blocks[-1][1])}}}", "", blocks[-1][4], flags=re.M) if blocks[-1][1] else blocks[-1][4]
    )


def defines(source: str, name: str) -> bool:
    """Whether a program's module level defines a name, as far as its lines show; the program itself is not parsed here."""
    word = re.escape(name)
    return (
        re.search(rf"^(?:(?:async )?def|class) +{word}\b|^{word} *[:=]|^from .*import .*\b{word}\b", source, re.M)
        is not None
    )


def completed(stub: str, source: str, entry: str) -> str:
    """A program with what its prompt begins: behind the prompt where it brings the function itself, else its continuation.

    Args:
        stub: code of the prompt, as of HumanEval; "" where there is none.
        entry: name of the function.
    """
    if not stub:
        return source
    if not defines(source, entry.partition(".")[0].removesuffix("()")):
        return stub + source
    return f"{stub}\n\n{source}" if parses(stub) else f"{stub}\n    pass\n\n{source}"


def parses(code: str) -> bool:
    """Whether code of a row (never of a completion) is Python."""
    try:
        compile(code, "row", "exec", dont_inherit=True, flags=ast.PyCF_ONLY_AST)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
