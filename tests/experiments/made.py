"""Comparisons that tests make, and what stands in for their training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cohort.experiments.compare import compare
from cohort.experiments.comparison import Comparison
from cohort.training.display import Display
from tests.analysis.comparisons import write_run
from tests.cli.command import run as command

SUMS = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(6) for b in range(6)]
QUIET = Display(quiet=True)


def started(options: dict[str, Any], out: Path, **changes: Any) -> Comparison:
    given = {"seeds": 2, "samples": 2, **changes}
    return compare(["grpo", "dr-grpo"], options=options, out=out, display=QUIET, **given)


def stub(trained: list[tuple[int, str]], fails: dict[int, BaseException] | None = None) -> Callable[..., Any]:
    """Stands in for training: writes what a run leaves, or fails at the calls given."""

    def train(config: Any, **_: Any) -> Any:
        trained.append((config.seed, config.method))
        if fails and len(trained) in fails:
            raise fails[len(trained)]
        write_run(Path(config.out), method=config.method, seed=config.seed)
        (Path(config.out) / "final").mkdir()
        return SimpleNamespace(stopped=False)

    return train


def refused(*arguments: Any) -> str:
    status, _, err = command(*arguments)
    assert status == 2, err
    return err
