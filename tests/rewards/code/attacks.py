"""Programs that want the reward without the work, or that want more than a program may have.

The task is to add two numbers: from standard input to standard output, as the function `add` of cases, or as the function
`add` of test code. None of these programs adds them, or knows the sums, except behind something that it must not be able to
do: so none may pass.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

ROWS = {
    "stdin": {"tests": [{"input": "1234 5678\n", "output": "6912\n"}, {"input": "905 96\n", "output": "1001\n"}]},
    "cases": {"entry_point": "add", "cases": [[[1234, 5678], 6912], [[905, 96], 1001]]},
    "asserts": {
        "entry_point": "add",
        "test_code": "import math\n"
        "EXPECTED = {(1234, 5678): 6912, (905, 96): 1001}\n"
        "def check(candidate):\n"
        "    for given, expected in EXPECTED.items():\n"
        "        assert candidate(*given) == expected, (given, expected)\n"
        "        assert math.isclose(candidate(*given), expected)\n",
    },
}


@dataclass(frozen=True)
class Attack:
    """One program and the forms of the task that it attacks."""

    name: str
    program: str
    forms: tuple[str, ...]
    everyday: bool = False


def _indented(text: str, by: str = "    ") -> str:
    return "".join(f"{by}{line}\n" for line in text.strip().splitlines())


def _behind(act: str) -> str:
    """A program that solves the task, in all its forms, once it has done something that it must not be able to do."""
    return (
        "import os, sys\n"
        "def act():\n" + _indented(act) + "def done():\n"
        "    try:\n"
        "        return act() is not False\n"
        "    except BaseException:\n"
        "        return False\n"
        "DONE = done()\n"
        "def add(a, b):\n"
        "    return a + b if DONE else None\n"
        "if __name__ == '__main__':\n"
        "    print(add(*map(int, input().split())))\n"
    )


ALL = ("stdin", "cases", "asserts")
# What no file holds well.
MADE = {
    "empty": "",
    "null bytes": "x = 1\0",
    "deep source": "(" * 5000 + ")" * 5000,
    "deep expression": "x = " + "-" * 100_000 + "1",
    "deep attributes": "x = a" + ".b" * 50_000,
}


def _told(name: str) -> list[tuple[str, str, bool]]:
    """Title, text and whether it is tried every day, of each part of a file."""
    text = Path(__file__).with_name(f"{name}.txt").read_text(encoding="utf-8")
    parts = [part.partition("\n") for part in text.split("### ")[1:]]
    return [(title.removeprefix("* "), code, title.startswith("* ")) for title, _, code in parts]


# What a program must not be able to do: it does so where it returns anything but False, without an exception. Each stands
# before a solution of one of the forms.
ACTS = tuple(
    Attack(name, _behind(act), (ALL[i % 3],), daily)
    for i, (name, act, daily) in enumerate(_told("acts"))
    # Calls by their number are those of one architecture.
    if platform.machine() == "x86_64" or ".syscall(" not in act
)
# Programs that do not solve the task, and want to be taken for one that does.
GAMES = tuple(
    Attack(name, program, tuple(forms.split()), daily)
    for title, program, daily in _told("games")
    for name, forms in [title.split(" | ")]
)
ATTACKS = (*ACTS, *GAMES, *(Attack(name, program, ALL) for name, program in MADE.items()))
