from __future__ import annotations

from typing import Any

import pytest

from cohort.rewards.code.grading import Local, Verdict, grade_all
from cohort.rewards.code.sandbox import Limits
from cohort.rewards.code.shapes import read_tests
from tests.rewards.code.places import needs_sandbox

pytestmark = needs_sandbox

STACK = (
    "s = Stack()\ns.push(1)\ns.push(2)\nassert s.pop() == 2\nassert len(s) == 1\n"
    "assert s.items == [1]\nassert bool(s)\nassert str(s) == 'S'\n"
)
STACK_PROGRAM = """
class Stack:
    def __init__(self): self.items = []
    def push(self, x): self.items.append(x)
    def pop(self): return self.items.pop()
    def __len__(self): return len(self.items)
    def __str__(self): return "S"
"""
PYTEST = """
import pytest
from solution import f, Own

def test_a():
    with pytest.raises(ValueError, match="neg"):
        f(-1)

def test_b():
    with pytest.raises(Own):
        f(5)

@pytest.mark.parametrize("a,b", [(1, 1), (2, 4)])
def test_c(a, b):
    assert f(a) == b

class TestMore:
    def test_d(self):
        assert f(2) == pytest.approx(4.0000001)
"""
SQUARE = """
class Own(KeyError): pass
def f(x):
    if x < 0: raise ValueError("neg")
    if x == 5: raise Own("five")
    return x * x
"""
NODES = """
class Node:
    def __init__(self, v, nxt=None):
        self.v, self.nxt = v, nxt
def listed(head):
    out = []
    while head:
        out.append(head.v)
        head = head.nxt
    return out
assert listed(rev(Node(1, Node(2, Node(3))))) == [3, 2, 1]
"""
UNIT = """
import unittest
class TestF(unittest.TestCase):
    def setUp(self):
        self.want = 2
    def test_a(self):
        self.assertEqual(f(1), self.want)
    def test_b(self):
        self.assertRaises(TypeError, f, "a")
"""
RIGHT: list[tuple[dict[str, Any], str]] = [
    ({"test_code": "for i in range(5):\n    assert f(i) == i * i"}, "def f(x):\n    return x * x"),
    ({"test_code": STACK}, STACK_PROGRAM),
    ({"test": PYTEST}, SQUARE),
    ({"test_code": NODES}, "def rev(h):\n    p = None\n    while h:\n        h.nxt, p, h = p, h, h.nxt\n    return p"),
    ({"test_code": UNIT}, "def f(x):\n    return x + 1"),
    (
        {"test_code": "assert [x for x in g(3)] == [0, 1, 2]\nassert sum(g(4)) == 6"},
        "def g(n):\n    yield from range(n)",
    ),
    ({"test_code": "x = [3, 1, 2]\nf(x)\nassert x == [1, 2, 3]"}, "def f(x):\n    x.sort()"),
    ({"test_code": "assert f(lambda v: v + 1, [1, 2]) == [2, 3]"}, "def f(g, xs):\n    return [g(x) for x in xs]"),
    ({"test_code": "assert f(x for x in (1, 2)) == 3"}, "def f(xs):\n    return sum(xs)"),
    (
        {"test_code": "a = V(1) + V(2)\nassert a.x == 3\nassert [V(5)][0].x == 5"},
        "class V:\n    def __init__(s, x): s.x = x\n    def __add__(s, o): return V(s.x + o.x)",
    ),
    ({"test_code": "x = f(2)\nassert x == 4\nassert N == 7"}, "N = 7\ndef f(x):\n    return x * x"),
    (
        {"test_code": "assert f('aab') == Counter('aab') and isclose(sqrt(4), 2)"},
        "from collections import Counter\nfrom math import *\nfrom math import isclose, sqrt\ndef f(s):\n    return Counter(s)",
    ),
    (
        {"test_code": "from decimal import Decimal\nassert f(1) == Decimal('1.5')"},
        "from decimal import Decimal\ndef f(x):\n    return Decimal(x) + Decimal('0.5')",
    ),
    (
        {
            "test_code": "def check(candidate):\n    for i in range(2):\n        assert candidate(i) == i\n",
            "entry_point": "f",
            "prompt": "def f(x):\n    '''Itself.'''\n",
        },
        "    return x",
    ),
    ({"test_code": "check = lambda v: v\nassert check(f(1)) == 1"}, "def f(x):\n    return x"),
    ({"test_code": "import solution\nassert solution.f(solution.f(1)) == 1"}, "def f(x):\n    return x"),
    (
        {"test_code": "for x in (1, 2):\n    assert sum(x) == 2 * x", "entry_point": "sum"},
        "def sum(x):\n    return 2 * x",
    ),
    (
        {"test_code": "for x in (1, 2):\n    assert Solution().sum(x) == 2 * x", "entry_point": "Solution().sum"},
        "class Solution:\n    def sum(self, x):\n        return 2 * x",
    ),
]


def _verdicts(asked: list[tuple[dict[str, Any], str]], limits: Limits | None = None) -> list[Verdict]:
    place = Local()
    programs = [(program, read_tests(row)) for row, program in asked]
    assert all(tests.scripts for _, tests in programs)
    return grade_all(programs, place, limits or Limits(), every=True, seconds=300.0)


def test_test_code_runs_without_the_programs_interpreter() -> None:
    assert [verdict for verdict in _verdicts(RIGHT) if verdict.why != "passed"] == []


def test_wrong_programs_do_not_pass() -> None:
    loop = {"test_code": "for i in range(1, 5):\n    assert f(i) == i * i"}
    asked: list[tuple[dict[str, Any], str]] = [
        (loop, "def f(x):\n    return x + 1"),
        (loop, "g = 1"),
        (loop, "raise ValueError"),
        ({"test": PYTEST}, SQUARE.replace("x == 5", "x == 6")),
        ({"test": PYTEST}, SQUARE.replace('"neg"', '"no"')),
        ({"test_code": UNIT}, "def f(x):\n    return x + 2"),
        ({"test_code": NODES}, "def rev(h):\n    return h"),
        ({"test_code": STACK}, STACK_PROGRAM.replace("pop()", "pop(0)")),
    ]
    verdicts = _verdicts(asked)
    assert [verdict.why for verdict in verdicts] == ["wrong"] * len(asked)
    assert [round(verdict.share, 2) for verdict in verdicts] == [0, 0, 0, 0.8, 0.8, 0.5, 0, 0]
    assert "line 2 of the test code" in verdicts[0].detail
    assert "ValueError" in verdicts[2].detail


HELPED = {
    "prompt": "def poly(x):\n    return x - 3\n\ndef f(n):\n    '''A zero of poly.'''\n",
    "entry_point": "f",
    "test_code": "def check(candidate):\n    for _ in range(2):\n        assert poly(candidate(1)) == 0\n",
}


def test_what_the_prompt_defines_is_not_for_the_program_to_define() -> None:
    right, wrong = _verdicts(
        [(HELPED, "def f(n):\n    return 3"), (HELPED, "def poly(x):\n    return 0\ndef f(n):\n    return 0")]
    )
    assert (right.why, wrong.why) == ("passed", "wrong")


MEAN = (
    "import math\nclass T:\n    secret = 42\n    def go(self): return 1\nT.t = T()\n"
    "for x in (2, 3):\n    assert f(x, T()) == x + 42\n"
)


@pytest.mark.parametrize(
    "body",
    [
        "return x + t.secret if x < 0 else t.__class__.secret",
        "return t.go.__globals__['MEAN']",
        "return t.go.__self__",
        "return t.__dict__",
        "return t == x + 42",
        "return [42] + t",
        "raise StopIteration",
        "t.secret = 0\n    return t",
        "t.__class__ = int",
        "t.go = lambda: 42\n    return t.go",
    ],
)
def test_a_program_reads_nothing_of_the_test_code_but_what_is_meant_for_it(body: str) -> None:
    (verdict,) = _verdicts([({"test_code": MEAN}, f"def f(x, t):\n    {body}")])
    assert verdict.share == 0.0


def test_what_ends_or_keeps_the_program_is_told() -> None:
    loop = {"test_code": "for i in range(2):\n    assert f(i) == i"}
    quick = Limits(seconds=1.5, cpu=1)
    verdicts = _verdicts(
        [
            (loop, "def f(x):\n    import os\n    os._exit(0)"),
            (loop, "def f(x):\n    while True: pass"),
            (loop, "import time\ntime.sleep(100)"),
            (loop, "def f(x):\n    return [0] * (1 << 28)"),
            (loop, "def f(x):\n    return 'x' * (1 << 24)"),
            (loop, "def f(x):\n    raise SystemExit(0)"),
        ],
        quick,
    )
    assert [verdict.share for verdict in verdicts] == [0.0] * 6
    assert [verdict.why for verdict in verdicts[:4]] == ["error", "time", "time", "wrong"]
    assert "MemoryError" in verdicts[3].detail


def test_a_loop_over_the_tests_is_not_ended_by_the_program() -> None:
    asked = {"test_code": "assert all(map(lambda case: f(case[0]) == case[1], [(1, 5), (2, 6)]))"}
    (verdict,) = _verdicts([(asked, "def f(x):\n    raise StopIteration")])
    assert verdict.share == 0.0


NODE = (
    "class ListNode:\n    def __init__(self, val=0, next=None):\n        self.val, self.next = val, next\n"
    "def nodes(xs):\n    head = None\n    for x in reversed(xs):\n        head = ListNode(x, head)\n    return head\n"
    "def same(a, b):\n    while a and b:\n        if a.val != b.val:\n            return False\n        a, b = a.next, b.next\n"
    "    return a is None and b is None\n"
)
DOUBLED = {
    "setup": NODE,
    "entry_point": "Solution().double",
    "test_code": "def check(candidate):\n    for xs in ([1, 2, 3], []):\n"
    "        assert same(candidate(head=nodes(xs)), nodes([2 * x for x in xs]))\n",
}


def test_problems_on_nodes_bring_them_along() -> None:
    made = (
        "class Solution:\n    def double(self, head):\n        first = last = ListNode()\n        while head:\n"
        "            last.next = ListNode(2 * head.val)\n"
        "            last, head = last.next, head.next\n        return first.next"
    )
    place = (
        "class Solution:\n    def double(self, head):\n        at = head\n        while at:\n            at.val *= 2\n"
        "            at = at.next\n        return head"
    )
    wrong = "def same(a, b):\n    return True\nclass ListNode:\n    pass\nclass Solution:\n"
    "    def double(self, head):\n        return head"
    assert [verdict.why for verdict in _verdicts([(DOUBLED, made), (DOUBLED, place), (DOUBLED, wrong)])] == [
        "passed",
        "passed",
        "wrong",
    ]


FORGED = [
    # It tells of names that it was not asked for: those of what compares.
    (
        "assert all(f(i) == i for i in range(3))",
        "import sys\nside = sys.modules['__main__']._Program\n"
        "names = ('all', 'f')\n"
        "side.done = lambda self, how, *_: {n: ['value', len] for n in names} if how == 'names' else True",
    ),
    # It changes what it is compared with, and returns the same.
    (
        "for xs in ([3, 1], [2, 1]):\n    assert f(xs) == sorted(xs) and len(xs) > -1",
        "import sys\nside = sys.modules['__main__'].Talk\nserve = side.serve\n"
        "def forge(self, request):\n    if request[0] == 'call':\n        self.send(['value', [], [[]]])\n"
        "    else:\n        serve(self, request)\nside.serve = forge\ndef f(xs):\n    return []",
    ),
    # It answers with what no value is.
    (
        "for i in range(3):\n    assert f(i) == i",
        "import sys\nside = sys.modules['__main__'].Talk\nside.serve = lambda self, _: self.send(['value', ['o', 1], 3])",
    ),
    # It asks for what it was never given.
    (
        "for i in range(3):\n    assert f(i, print) == i",
        "import sys, os\ndef f(i, g):\n    talk = g._talk\n    talk.send(['get', 0, '__self__'])\n"
        "    return talk.ask(['get', 1, '__globals__'])",
    ),
]


@pytest.mark.parametrize(("code", "program"), FORGED)
def test_a_program_that_takes_over_its_side_gains_nothing(code: str, program: str) -> None:
    (verdict,) = _verdicts([({"test_code": code}, program)], Limits(seconds=3.0, cpu=1))
    assert verdict.share == 0.0
