"""Test code that is more than calls and literals: run by an interpreter that never runs the program's code."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass

from cohort.rewards.code.sandbox import Limits, Ran, Sandbox


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


def run_script(source: str, program: str, stub: str, entry: str, code: str, limits: Limits) -> Scripted:
    """How a program does in test code.

    Two sandboxes are joined by pipes: the program's, which answers calls, and that of the test code, which makes them.

    Args:
        source, program: the program with, and without, what its prompt begins.
        stub: what its prompt begins.
        entry: the function under test; "" where none is named.
    """
    ends = [*os.pipe(), *os.pipe()]
    heard, answered, listening, asked = ends
    try:
        with contextlib.ExitStack() as stack:
            judged = stack.enter_context(Sandbox("program", (listening, answered)))
            judging = stack.enter_context(Sandbox("asserts", (heard, asked)))
            while ends:
                os.close(ends.pop())
            begun = {"do": "session", "source": source, "pipes": [listening, answered]}
            test = {"do": "session", "source": "", "pipes": [heard, asked]}
            if not judged.begin(begun, limits) or not judging.begin(
                {**test, "code": code, "entry": entry, "stub": stub, "program": program}, limits
            ):
                return Scripted(0.0, ran=Ran("lost"))
            told = judging.answer(limits)
            try:
                passed, total, detail, ended = json.loads(told.results)
            except ValueError:
                # The test code itself came to no end: its program let it wait, or it asks for more than there is.
                return Scripted(0.0, ran=told)
            if ended:
                return Scripted(0.0, detail, ran=judged.answer(limits))
            return Scripted(passed / total, detail)
    finally:
        for end in ends:
            os.close(end)
