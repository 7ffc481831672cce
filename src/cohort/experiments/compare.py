"""Comparing methods: runs that share everything but the method, each measured the same way, and a report."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cohort import registry
from cohort.errors import UsageError
from cohort.experiments.comparison import Comparison
from cohort.experiments.finished import compare_runs
from cohort.experiments.plan import SAMPLES, SEEDS, Arm, checked_transfer, make_plan
from cohort.experiments.queue import run_plan
from cohort.methods import Method
from cohort.training.config import from_python
from cohort.training.display import Display
from cohort.training.folder import check_place


def compare(
    what: Sequence[str | Path | Method],
    *,
    options: Mapping[str, Any] | None = None,
    seeds: int = SEEDS,
    tokens: int | None = None,
    samples: int = SAMPLES,
    transfer: Mapping[str, str] | None = None,
    target: float | None = None,
    out: str | Path | None = None,
    display: Display | None = None,
) -> Comparison:
    """Run methods and compare them, or compare runs that stand on disk.

    Args:
        what: methods (expressions), or folders of runs or of comparisons, not both.
        options: configuration keys that all runs share.
        seeds: runs of each method.
        tokens: sampled tokens at which each run ends, if it has not made its steps before.
        samples: completions of each evaluation problem; 0 leaves out what is measured of them.
        transfer: name -> further data to measure on.
        target: accuracy for "tokens to target".
        out: folder of the comparison; default: runs/ and a name made of `what`.

    Raises:
        UsageError: what was asked cannot be done; nothing was run.
    """
    display = display or Display()
    options = from_python(options or {}).values
    folders = [each for each in what if _is_folder(each)]
    if folders and len(folders) < len(what):
        others = ", ".join(str(each) for each in what if not _is_folder(each))
        raise UsageError(
            f"finished runs ({', '.join(map(str, folders))}) and methods to run ({others}) cannot be mixed: run the "
            "methods first, then compare all folders"
        )
    folder = Path(out) if out is not None else Path("runs") / default_name(what)
    check_place(folder)
    checked = checked_transfer(transfer or {})
    if folders:
        if options:
            raise UsageError(
                f"finished runs are compared as they are; {', '.join(sorted(options))} cannot be set for them"
            )
        return compare_runs([Path(str(each)) for each in folders], folder, samples, checked, target, display)
    if len(what) < 2:
        raise UsageError(
            "there is nothing to compare one method with: name two or more, or vary its settings with cohort sweep"
        )
    arms = [
        Arm(str(m.name) or "method", m.name, made=m) if isinstance(m, Method) else Arm(str(m), str(m)) for m in what
    ]
    return run_plan(make_plan(arms, folder, options, seeds, tokens, samples, checked, target), display)


def _is_folder(what: str | Path | Method) -> bool:
    """True for a folder, or a path that was meant as one."""
    if isinstance(what, Method):
        return False
    if isinstance(what, Path):
        return True
    if re.search(r"\.py:|\(", what):
        return False
    return "/" in what or (what not in registry.names() and os.path.isdir(what))


def default_name(what: Sequence[object], kind: str = "compare") -> str:
    """A folder name made of what is compared."""
    parts = [each.name if isinstance(each, (Path, Method)) else Path(str(each)).name for each in what]
    return re.sub(r"[^\w.+-]+", "-", "-".join([kind, *parts])).strip("-")[:100]
