"""Comparing runs that stand on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cohort.analysis.findings import Entry
from cohort.analysis.store import Run, find_runs, is_run, open_run
from cohort.errors import UsageError
from cohort.experiments.comparison import Comparison, reported
from cohort.experiments.measuring import evaluate_run, is_finished
from cohort.training.config import make_config
from cohort.training.continuing import RESUMABLE
from cohort.training.display import Display
from cohort.training.folder import contents

# Keys that runs may differ in and still be seeds of one thing.
BESIDE = (RESUMABLE - {"max_tokens_sampled"}) | {"seed", "out"}


def compare_runs(
    folders: Sequence[Path],
    out: Path,
    samples: int,
    transfer: Mapping[str, str],
    target: float | None,
    display: Display,
) -> Comparison:
    """Compare finished runs, those of one method and configuration as seeds of one entry."""
    runs = []
    for folder in folders:
        inside = [] if is_run(folder) else find_runs(folder)
        runs += [open_run(each) for each in inside or [folder]]
    runs = list({run.folder.resolve(): run for run in runs}.values())
    entries, notes = grouped(runs)
    if len(runs) < 2:
        raise UsageError(f"{runs[0].folder} is one run: name another one to compare it with")
    if contents(out) and not _holds_report(out):
        raise UsageError(f"{out} already holds something else: name another folder with --out")
    failures: dict[str, str] = {}
    for run in runs:
        why = _unmeasurable(run)
        if why and samples:
            notes.append(f"{run.folder} cannot be measured on its evaluation problems: {why}")
        elif samples:
            try:
                keys = {key: value for key, value in run.config.items() if value is not None}
                evaluate_run(run.folder, make_config(keys), samples, transfer, display.log)
            except Exception as error:
                # A run that cannot be measured is shown with what it has.
                failures[str(run.folder)] = f"{type(error).__name__}: {error}"
    out.mkdir(parents=True, exist_ok=True)
    return reported(out, entries, transfer, target, failures, False, display, notes)


def _holds_report(folder: Path) -> bool:
    """True if a comparison of runs was written there."""
    try:
        stored = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(stored, dict) and {"entries", "results"} <= set(stored) and (folder / "report.html").is_file()


def _unmeasurable(run: Run) -> str | None:
    if not is_finished(run.folder):
        return "it has no final model"
    if run.config.get("eval_data") is None:
        return "it was trained without eval_data"
    rewards = run.config.get("reward")
    given = [run.config.get("eval_data"), *(rewards if isinstance(rewards, list) else [])]
    if any(str(value).startswith("<") for value in given):
        return "its rewards or its data were given from Python"
    return None


def grouped(runs: Sequence[Run]) -> tuple[list[Entry], list[str]]:
    """Runs that differ in their seed alone as one entry, named by the method and by what else tells it apart."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        keys = {k: v for k, v in run.config.items() if k not in BESIDE}
        groups.setdefault(json.dumps(keys or str(run.folder), sort_keys=True, default=str), []).append(run)
    found = list(groups.values())
    notes: list[str] = []
    entries: list[Entry] = []
    for members in found:
        first = members[0].config
        name = str(first.get("method", members[0].name))
        same = [each[0].config for each in found if str(each[0].config.get("method", each[0].name)) == name]
        apart = [k for k in first if k not in BESIDE and any(c.get(k, first[k]) != first[k] for c in same)]
        if apart:
            name += f" ({', '.join(f'{key}={_short(first[key])}' for key in apart)})"
        elif len(same) > 1:
            name += f" ({members[0].folder})"
        seeds: dict[int, Run] = {}
        for run in members:
            seed = run.config.get("seed")
            seed = seed if isinstance(seed, int) else 0
            if seed in seeds:
                notes.append(f"{run.folder} repeats {seeds[seed].folder} (same configuration and seed) and is left out")
            seeds.setdefault(seed, run)
        entries.append(Entry(name, dict(sorted(seeds.items()))))
    return entries, notes


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:18]}...{text[-18:]}"
