"""Test code that is more than calls and literals: run by an interpreter that never runs the program's code."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from cohort.rewards.code.sandbox import Limits, Ran, Sandbox

# Seconds that a program's side may take to end once the test code's has.
END = 0.5


@dataclass(frozen=True)
class Scripted:
    """How a program did in test code.

    Attributes:
        share: of its tests that passed.
        detail: what happened first in one that did not.
        ran: what became of the program, where that is why; else None.
    """

    share: float
    detail: str = ""
    ran: Ran | None = None


def run_script(
    judged: Sandbox, judging: Sandbox, source: str, program: str, stub: str, entry: str, code: str, limits: Limits
) -> Scripted:
    """How a program does in test code.

    Two sandboxes are joined by pipes: the program's, which answers calls, and that of the test code, which makes them.

    Args:
        judged, judging: the sandboxes.
        source, program: the program with, and without, what its prompt begins.
        stub: what its prompt begins.
        entry: the function under test; "" where none is named.
    """
    heard, answered = os.pipe()
    listening, asked = os.pipe()
    test = {"do": "session", "source": "", "code": code, "entry": entry, "stub": stub, "program": program}
    try:
        begun = judged.begin({"do": "session", "source": source}, limits, (listening, answered)) and judging.begin(
            test, limits, (heard, asked)
        )
    finally:
        for end in (heard, answered, listening, asked):
            os.close(end)
    if not begun:
        judged.used = judging.used = True
        return Scripted(0.0, ran=Ran("lost"))
    told = judging.answer(limits)
    # The program's side ends when the other side has; one that does not is not waited for.
    ran = judged.answer(limits, END - limits.seconds)
    try:
        passed, total, detail, ended = json.loads(told.results)
    except ValueError:
        # The test code itself came to no end: its program let it wait, or it asks for more than there is.
        return Scripted(0.0, ran=told)
    return Scripted(0.0, detail, ran=ran) if ended else Scripted(passed / total, detail)
