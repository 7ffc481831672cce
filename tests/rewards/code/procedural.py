"""Programs that are right or wrong by construction: problems drawn from families, in each form that tests have."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Program:
    """One program, the row that it is for, and whether it is right."""

    row: dict[str, Any]
    text: str
    right: bool


Random = random.Random


def _numbers(rng: Random, low: int = -50, high: int = 50) -> list[int]:
    return [rng.randint(low, high) for _ in range(rng.randint(1, 12))]


def _word(rng: Random) -> str:
    return "".join(rng.choice("abcdefgh") for _ in range(rng.randint(1, 12)))


# Name -> arguments of a call, and bodies of `def solve(...)` that do the same.
FAMILIES: dict[str, tuple[Callable[[Random], list[Any]], str, list[str]]] = {
    "linear": (
        lambda r: [r.randint(-99, 99)],
        "x",
        ["return {a} * x + {b}", "y = {b}\nfor _ in range({a}):\n    y += x\nreturn y"],
    ),
    "total": (lambda r: [_numbers(r)], "xs", ["return sum(xs)", "out = 0\nfor x in xs:\n    out += x\nreturn out"]),
    "reverse": (lambda r: [_word(r)], "s", ["return s[::-1]", "return ''.join(reversed(s))"]),
    "vowels": (
        lambda r: [_word(r)],
        "s",
        ["return sum(c in 'aeiou' for c in s)", "return len([c for c in s if c in set('aeiou')])"],
    ),
    "gcd": (
        lambda r: [r.randint(1, 999), r.randint(1, 999)],
        "a, b",
        ["import math\nreturn math.gcd(a, b)", "while b:\n    a, b = b, a % b\nreturn a"],
    ),
    "sort": (
        lambda r: [_numbers(r)],
        "xs",
        ["return sorted(xs, key=lambda x: (abs(x), x))", "xs = sorted(xs)\nxs.sort(key=abs)\nreturn xs"],
    ),
    "transpose": (
        lambda r: [[[r.randint(0, 9) for _ in range(3)] for _ in range(r.randint(1, 4))]],
        "rows",
        ["return [list(each) for each in zip(*rows)]", "return [[row[i] for row in rows] for i in range(3)]"],
    ),
    "primes": (
        lambda r: [r.randint(2, 200)],
        "n",
        [
            "return [p for p in range(2, n) if all(p % d for d in range(2, p))]",
            "out = []\nfor p in range(2, n):\n    if all(p % q for q in out):\n        out.append(p)\nreturn out",
        ],
    ),
    "binary": (lambda r: [r.randint(0, 9999)], "n", ["return bin(n)[2:]", "return format(n, 'b')"]),
    "caesar": (
        lambda r: [_word(r)],
        "s",
        [
            "return ''.join(chr((ord(c) - 97 + {a}) % 26 + 97) for c in s)",
            "import string\nabc = string.ascii_lowercase\n"
            "return s.translate(str.maketrans(abc, abc[{a} % 26:] + abc[:{a} % 26]))",
        ],
    ),
    "runs": (
        lambda r: [_word(r)],
        "s",
        [
            "from itertools import groupby\nreturn [[k, len(list(g))] for k, g in groupby(s)]",
            "out = []\nfor c in s:\n    if out and out[-1][0] == c:\n        out[-1][1] += 1\n"
            "    else:\n        out.append([c, 1])\nreturn out",
        ],
    ),
    "counts": (
        lambda r: [_word(r)],
        "s",
        ["from collections import Counter\nreturn dict(Counter(s))", "return {c: s.count(c) for c in s}"],
    ),
    "merge": (
        lambda r: [sorted([x := r.randint(0, 40), x + r.randint(0, 9)] for _ in range(r.randint(1, 6)))],
        "xs",
        [
            "out = []\nfor a, b in sorted(xs):\n    if out and a <= out[-1][1]:\n"
            "        out[-1][1] = max(out[-1][1], b)\n    else:\n        out.append([a, b])\nreturn out"
        ],
    ),
    "digits": (
        lambda r: [r.randint(0, 10**9)],
        "n",
        ["return sum(map(int, str(n)))", "out = 0\nwhile n:\n    n, d = divmod(n, 10)\n    out += d\nreturn out"],
    ),
    "fibonacci": (
        lambda r: [r.randint(0, 80)],
        "n",
        [
            "a, b = 0, 1\nfor _ in range(n):\n    a, b = b, a + b\nreturn a",
            "from functools import cache\n@cache\ndef f(n):\n    return n if n < 2 else f(n - 1) + f(n - 2)\nreturn f(n)",
        ],
    ),
    "mean": (
        lambda r: [_numbers(r)],
        "xs",
        ["return sum(xs) / len(xs)", "import statistics\nreturn statistics.fmean(xs)"],
    ),
    "palindrome": (
        lambda r: [_word(r)],
        "s",
        ["return s == s[::-1]", "return all(a == b for a, b in zip(s, reversed(s)))"],
    ),
    "unique": (
        lambda r: [_numbers(r, 0, 8)],
        "xs",
        ["return list(dict.fromkeys(xs))", "return sorted(set(xs), key=xs.index)"],
    ),
    "pairs": (
        lambda r: [_numbers(r, 0, 9)],
        "xs",
        [
            "return sum(a + b == {b} for i, a in enumerate(xs) for b in xs[:i])",
            "from itertools import combinations\nreturn len([1 for a, b in combinations(xs, 2) if a + b == {b}])",
        ],
    ),
    "huge": (
        lambda r: [r.randint(20, 60)],
        "n",
        ["import math\nreturn math.factorial(n)", "out = 1\nfor k in range(2, n + 1):\n    out *= k\nreturn out"],
    ),
}
# What makes of a right function a wrong one.
SPOILED = (
    "    return [value]",
    "    return None",
    "    return str(value) + 'x'",
    "    raise ValueError(value)",
    "    return not value if isinstance(value, bool) else [value, 1]",
    "    class Same:\n        def __eq__(self, other): return True\n    return Same()",
    "    import os\n    os._exit(0)",
)


def _function(name: str, arguments: str, body: str) -> str:
    inside = "".join(f"    {line}\n" for line in body.splitlines())
    return f"def {name}({arguments}):\n{inside}"


def _spoiled(right: str, name: str, spoil: str) -> str:
    return f"{right}_right = {name}\ndef {name}(*given):\n    value = _right(*given)\n{spoil}\n"


def _row(form: str, name: str, given: list[list[Any]], expected: list[Any]) -> dict[str, Any]:
    if form == "stdin":
        tests = [{"input": json.dumps(a), "output": json.dumps(b)} for a, b in zip(given, expected, strict=True)]
        return {"tests": tests}
    if form == "cases":
        return {"entry_point": name, "cases": [list(pair) for pair in zip(given, expected, strict=True)]}
    if form == "asserts":
        calls = [f"{name}({', '.join(map(repr, a))})" for a in given]
        return {"test_list": [f"assert {call} == {b!r}" for call, b in zip(calls, expected, strict=True)]}
    loop = (
        f"for given, expected in {list(zip(given, expected, strict=True))!r}:\n    assert {name}(*given) == expected\n"
    )
    return {"test_code": loop}


def programs(count: int, seed: int = 0) -> Iterator[Program]:
    """Programs of all families and forms, of which about half are right."""
    rng = Random(seed)
    names = list(FAMILIES)
    for number in range(count):
        name = names[number % len(names)]
        form = ("stdin", "cases", "asserts", "stdin", "cases", "asserts", "script")[number // len(names) % 7]
        draw, arguments, bodies = FAMILIES[name]
        values = {"a": str(rng.randint(2, 9)), "b": str(rng.randint(3, 12))}
        bodies = [body.replace("{a}", values["a"]).replace("{b}", values["b"]) for body in bodies]
        given = [draw(rng) for _ in range(3)]
        space: dict[str, Any] = {}
        exec(_function(name, arguments, bodies[0]), space)
        expected = [space[name](*json.loads(json.dumps(each))) for each in given]
        right = rng.random() < 0.5
        text = _function(name, arguments, rng.choice(bodies))
        if not right:
            text = _spoiled(text, name, rng.choice(SPOILED))
        if form == "stdin":
            text += f"import json\nprint(json.dumps({name}(*json.loads(input()))))\n"
        yield Program(
            _row(form, name, given, expected), text if rng.random() < 0.5 else f"So:\n```python\n{text}```\n", right
        )
