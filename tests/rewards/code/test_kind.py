from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from cohort.cli import app
from cohort.data.rows import Row
from cohort.errors import UsageError
from cohort.rewards.calling import TIME, Logs
from cohort.rewards.code import kind, sandbox, seccomp
from cohort.rewards.code.grading import Verdict
from cohort.rewards.scorer import Scorer
from cohort.rewards.spec import parse
from tests.rewards.code.places import needs_sandbox

CASES = {"entry_point": "f", "cases": [[[1], 2], [[5], 10]]}
RIGHT, HALF, WRONG = "def f(x):\n    return 2 * x", "def f(x):\n    return 2", "def f(x):\n    return 0"


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test looks anew where programs can run."""
    monkeypatch.delenv(kind.SERVER, raising=False)
    for known in (kind._place, sandbox._command, sandbox._interpreter, sandbox.check):
        known.cache_clear()
    yield
    for known in (kind._place, sandbox._command, sandbox._interpreter, sandbox.check):
        known.cache_clear()


def _columns(*rows: dict[str, Any]) -> dict[str, list[Any]]:
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}


@needs_sandbox
def test_all_or_nothing_and_graded() -> None:
    rows = _columns(CASES, CASES, CASES, {"answer": "5"})
    completions = [RIGHT, f"So:\n```python\n{HALF}\n```", [{"role": "assistant", "content": WRONG}], "x"]
    logs = Logs()
    whole = kind.make("")(completions, prompts=["p"] * 4, log_extra=logs.log_extra, log_metric=logs.log_metric, **rows)
    assert whole == [1.0, 0.0, 0.0, None]
    assert logs.extra["code_verdict"] == ["passed", "wrong", "wrong", None]
    assert logs.extra["code_detail"][1] == "test 2 of 2: f returned 2 ('cases[2]')"
    assert not logs.metrics
    assert kind.make("partial")(completions, **rows) == [1.0, 0.5, 0.0, None]


@needs_sandbox
def test_code_of_the_prompt_stands_before_the_program() -> None:
    prompt = 'from typing import List\n\ndef f(xs: List[int]) -> int:\n    """Their sum."""\n'
    row = {"entry_point": "f", "test": "def check(candidate):\n    assert candidate([1, 2]) == 3\n"}
    completions = ["    return sum(xs)", "def f(xs: List[int]):\n    return sum(xs)", "    return 0"]
    chat = [{"role": "user", "content": f"Complete this.\n```python\n{prompt}```"}]
    for asked in (prompt, f"Complete:\n```python\n{prompt}```", chat):
        assert kind.make("")(completions, prompts=[asked] * 3, **_columns(row, row, row)) == [1.0, 1.0, 0.0]


def test_other_forms_are_refused() -> None:
    for text in ("code:all", "code:@", "code:partial@", "code:Partial"):
        with pytest.raises(UsageError, match="there is no reward"):
            parse([text])[0].load()


def test_programs_never_run_without_a_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    for call in (lambda: kind.make(""), lambda: kind.check("", [("row 1", CASES)])):
        with pytest.raises(
            UsageError, match=r"there is no bwrap on the path\. Install bubblewrap .* never run without"
        ):
            call()


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo 'bwrap: setting up uid map: Permission denied' >&2; exit 1", "user namespaces may be switched off"),
        ("exit 0", "bwrap does not run Python here"),
        ('echo "Killed" >&2; kill -9 $$', "does not run Python here"),
    ],
)
def test_a_bubblewrap_that_does_not_work_is_told(
    script: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bwrap = tmp_path / "bwrap"
    bwrap.write_text(f"#!/bin/sh\n{script}\n")
    bwrap.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(UsageError, match=says):
        kind.make("")


def test_no_filter_means_no_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str | None = None, **_: Any) -> Any:
        raise OSError(name)

    monkeypatch.setattr(seccomp.ctypes, "CDLL", absent)
    seccomp.filters.cache_clear()
    try:
        with pytest.raises(UsageError, match="needs libseccomp, which is not on this machine: install it"):
            seccomp.filters()
    finally:
        seccomp.filters.cache_clear()


def test_an_interpreter_that_does_not_run_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for chosen in (str(tmp_path / "none"), "/bin/false"):
        monkeypatch.setenv(sandbox.PYTHON, chosen)
        sandbox._interpreter.cache_clear()
        with pytest.raises(UsageError, match=f"{sandbox.PYTHON}={chosen}: it does not run"):
            sandbox._interpreter()


@needs_sandbox
@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"answer": "5"}, r"no row has any \(line 1 has: answer\)"),
        (
            {"tests": [{"input": "1", "output": 5}]},
            r"line 1: no program can pass its tests: tests\[1\]: the output must be",
        ),
        ({"test_code": "assert f(1"}, "line 1: no program can pass its tests: 'test_code' is no Python, line 1"),
        ({**CASES, "solution": WRONG}, r"line 1: its own solution does not pass its tests \(test 1 of 2: f returned 0"),
        ({**CASES, "canonical_solution": "import nothing"}, "ModuleNotFoundError"),
        (
            {
                "entry_point": "f",
                "test": "def check(candidate):\n    assert candidate(1) == 3",
                "canonical_solution": "    return 2",
                "prompt": "def f(x):\n",
            },
            "f returned 2",
        ),
    ],
)
def test_rows_that_cannot_be_passed_are_told_before_a_run(row: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        kind.check("", [("line 1", row)])


@needs_sandbox
def test_rows_that_can_be_passed_are_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("line 1", Row({**CASES, "solution": RIGHT}, "line 1")), ("line 2", Row({"answer": "5"}, "line 2"))]
    kind.check("", rows)
    tried: list[int] = []
    grade = kind.grade_all
    monkeypatch.setattr(
        kind, "grade_all", lambda programs, *a, **k: tried.append(len(programs)) or grade(programs, *a, **k)
    )
    kind.check("partial", rows)
    assert tried == [0]
    spec = parse(["code"])[0]
    assert spec.verifies
    (text,) = spec.inapplicable([row for _, row in rows], "data.jsonl")
    assert text == "data.jsonl: 1 of 2 rows have no tests (line 2): the reward 'code' does not apply to them"


@needs_sandbox
def test_a_batch_of_slow_programs_ends_within_reward_timeout() -> None:
    """The worker is not ended by the time limit of the batch, and quick programs beside slow ones are right."""
    slow = "import time\ndef f(x):\n    time.sleep(100)"
    with Scorer(parse(["code"]), timeout=6.0) as scorer:
        begin = time.monotonic()
        scores = scorer.grade(["p"] * 8, [slow] * 4 + [RIGHT] * 4, None, _columns(*[CASES] * 8))
        assert time.monotonic() - begin < 6.0
        assert scores.components["code"] == [0.0] * 4 + [1.0] * 4
        assert scores.extra["code_verdict"] == ["time"] * 4 + ["passed"] * 4
        assert scores.metrics["code_cut_short"] == [0.5]
        assert not scores.messages
        worker = scorer._workers[0].process.pid  # type: ignore[union-attr]
        inside = {each.pid for each in psutil.Process(worker).children(recursive=True)}
        assert inside
    until = time.monotonic() + 10
    while any(map(psutil.pid_exists, inside)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(psutil.pid_exists, inside))


@needs_sandbox
def test_the_time_of_a_batch_is_told_by_the_worker() -> None:
    seen: list[float] = []

    def record(programs: Any, place: Any, limits: Any, *, every: bool, seconds: float) -> list[Any]:
        seen.append(seconds)
        return [Verdict(1.0) for _ in programs]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "grade_all", record)
        reward = kind.make("")
        token = TIME.set(20.0)
        reward([RIGHT], **_columns(CASES))
        TIME.reset(token)
        reward([RIGHT], **_columns(CASES))
    assert seen == [15.0, 45.0]


@needs_sandbox
def test_the_command_scores_programs(tmp_path: Path) -> None:
    data = tmp_path / "problems.jsonl"
    rows = [
        {"prompt": "double", **CASES, "completion": [RIGHT, HALF, WRONG]},
        {"prompt": "echo", "tests": [{"input": "a\n", "output": "a"}], "completion": ["print(input())"]},
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    args = ["score", "--data", str(data), "--reward", "code", "--reward", "0*partial=code:partial"]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.output
    found = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert [row["code"] for row in found] == [1.0, 0.0, 0.0, 1.0]
    assert [row["partial"] for row in found] == [1.0, 0.5, 0.0, 1.0]
    assert [row["code_verdict"] for row in found] == ["passed", "wrong", "wrong", "passed"]
