"""The program that a completion holds."""

from __future__ import annotations

import ast
import re

from cohort.signals.answers import outside_thought

# A fence that opens a block: how far to the right it is, the fence itself, and the language.
_OPEN = re.compile(r"([ \t]{0,3})(`{3,}|~{3,})[ \t]*([\w+.#-]*)[^`]*")
PYTHON = frozenset({"", "python", "python3", "py", "py3", "python3.11", "pycon"})


def program_of(text: str) -> str:
    """The last fenced block of a completion that is Python or says no language, without what was thought; else the whole
    text. A block that is not closed ends with the text."""
    text = outside_thought(text)
    found: str | None = None
    lines: list[str] = []
    fence, indent, language = "", "", ""
    for line in text.splitlines(keepends=True):
        if not fence:
            opened = _OPEN.fullmatch(line.rstrip())
            if opened is not None:
                indent, fence, language = opened.groups()
                lines = []
            continue
        rest = line.rstrip()
        if not rest.endswith(fence):
            lines.append(line.removeprefix(indent))
            continue
        # The closing fence has a line of its own, or stands at the end of the last one.
        lines.append(rest.rstrip(fence[0]).removeprefix(indent).rstrip() if rest.strip(f" \t{fence[0]}") else "")
        found, fence = "".join(lines) if language.lower() in PYTHON else found, ""
    if fence and language.lower() in PYTHON:
        found = "".join(lines)
    return text if found is None else found


def defines(source: str, name: str) -> bool:
    """Whether a program's module level defines a name, as far as its lines show; the program itself is not parsed here."""
    word = re.escape(name)
    return (
        re.search(
            rf"^(?:(?:async )?def|class) +{word}\b|^{word} *[:=]|^from .{{1,200}}import .{{0,400}}\b{word}\b",
            source,
            re.M,
        )
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
