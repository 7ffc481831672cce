from __future__ import annotations

import time

import pytest

from cohort.rewards.code.program import completed, defines, program_of


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("print(1)", "print(1)"),
        ("so:\n```python\nprint(1)\n```\nThat is it.", "print(1)\n"),
        ("```\nfirst\n```\n\n```py\nlast\n```", "last\n"),
        ("```python\nprint(1)\n```\nwhich prints\n```text\n1\n```", "print(1)\n"),
        ("```python\nprint(1)\n```\nrun it by\n```bash\npython x.py\n```", "print(1)\n"),
        ("~~~python\nprint('```')\n~~~", "print('```')\n"),
        ("````python\na = '```'\n````", "a = '```'\n"),
        ("cut off:\n```python\nprint(1)\nprint(", "print(1)\nprint("),
        ("```python\nprint(1)```", "print(1)"),
        ("```Python3\r\nprint(1)\r\n```", "print(1)\r\n"),
        ("1. do\n   ```python\n   if x:\n       y\n   ```", "if x:\n    y\n"),
        ("<think>\n```python\nwrong\n```\n</think>\n```python\nright\n```", "right\n"),
        ("<think>\n```python\nnever closed", ""),
        ("", ""),
        ("```python\na = '``'\n```", "a = '``'\n"),
        ("```python\n```", ""),
        ("```text\nx\n```", "```text\nx\n```"),
    ],
)
def test_the_last_block_is_the_program(text: str, program: str) -> None:
    assert program_of(text) == program


def test_what_a_program_defines_is_seen_in_its_lines() -> None:
    assert all(
        defines(source, "f")
        for source in ("def f(x): 1", "async def f(): 1", "class f: 1", "f = len", "f: int = 1", "from a import b, f")
    )
    assert not any(defines(source, "f") for source in ("    def f(x): 1", "def ff(): 1", "g = f", "import f2", ""))


def test_a_program_stands_behind_what_its_prompt_begins() -> None:
    stub = 'from typing import List\n\ndef f(x: List[int]) -> int:\n    """Sum."""\n'
    whole = completed(stub, "def f(x):\n    return sum(x)\n", "f")
    rest = completed(stub, "    return sum(x)\n", "f")
    for source in (whole, rest):
        space: dict[str, object] = {}
        exec(source, space)
        assert space["f"]([1, 2]) == 3  # type: ignore[operator]
    assert completed("", "x", "f") == "x"
    exec(completed("def f(x):", "def f(x):\n    return 1\n", "f"), {})


def test_a_long_completion_is_read_in_no_time() -> None:
    begin = time.perf_counter()
    for text in (
        "```\n" + "`" * 300_000 + "x",
        "`" * 300_000,
        "```\n" * 50_000,
        "~" * 300_000 + "\n",
        "```python\n" + " " * 300_000 + "x",
        "<think>" * 20_000,
    ):
        program_of(text)
    for source in ("from " + "import " * 50_000, "from a import b\n" * 20_000, "def " * 100_000):
        assert not defines(source, "f")
    assert time.perf_counter() - begin < 3.0
