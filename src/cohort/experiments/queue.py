"""Running a plan: one run after the other, each measured, and a report of all.

All methods with a seed go before any with the next, so that an interruption leaves a balanced set. Whatever is finished stands
on disk; the same call goes on after it.
"""

from __future__ import annotations

import time
from pathlib import Path

from cohort.analysis.findings import HEADLINE, Entry
from cohort.analysis.measure import HELD_OUT
from cohort.analysis.store import is_run, open_run
from cohort.doctor.watch import observers
from cohort.errors import UsageError
from cohort.experiments.comparison import Comparison, reported
from cohort.experiments.measuring import evaluate_run, is_finished, lacking
from cohort.experiments.plan import PLAN, Arm, Plan
from cohort.training import toy
from cohort.training.display import Display, clock
from cohort.training.folder import LOCK, Claim, contents
from cohort.training.interrupt import ended_by_signals
from cohort.training.run import train


class _RunDisplay(Display):
    """A run's progress as a bar that goes away; what it says goes to the comparison's log."""

    def __init__(self, outer: Display, label: str, path: Path) -> None:
        super().__init__(quiet=outer.quiet or not outer.console.is_terminal, console=outer.console)
        self.label, self.path = label, path

    def log(self, text: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{self.label}: {text}\n")

    def begin(self, what: str, total: int, done: int = 0) -> None:
        super().begin(f"{self.label} {what}", total, done)


def run_plan(plan: Plan, display: Display) -> Comparison:
    """Run what is not finished yet, measure it, and write the report.

    Raises:
        UsageError: another process is at it, or the first run cannot begin.
    """
    claim = Claim(plan.folder)
    try:
        with ended_by_signals():
            return _run_plan(plan, display)
    finally:
        claim.release()


def _run_plan(plan: Plan, display: Display) -> Comparison:
    if plan.seeds == 1:
        display.log(
            "one seed: intervals will be over problems alone, and say nothing of what another seed would change"
        )
    if (model := plan.base.get("model", "toy")) in toy.EXAMPLES:
        toy.folder(display.log, name=model)
    queue = [(arm, seed) for seed in range(plan.seeds) for arm in plan.arms]
    todo = [each for each in queue if not _complete(plan, *each)]
    if len(todo) < len(queue):
        display.log(f"{len(queue) - len(todo)} of {len(queue)} runs stand there already")
    failures: dict[str, str] = {}
    began, stopped = time.monotonic(), False
    for number, (arm, seed) in enumerate(todo):
        label = f"{arm.name} seed {seed}"
        start = time.monotonic()
        try:
            said = _one(plan, arm, seed, _RunDisplay(display, label, plan.folder / "log.txt"))
            stopped = said is None
        except KeyboardInterrupt:
            stopped = True
        except Exception as error:
            runs = plan.folder / "runs"
            if isinstance(error, UsageError) and not (runs.exists() and any(runs.iterdir())):
                # What is wrong with the first run before it began is wrong with what was asked.
                _forget(plan.folder)
                raise
            # Whatever else a run dies of, the others have nothing to do with it.
            said = f"failed: {type(error).__name__}: {str(error).strip() or 'no message'}"
            failures[label] = said.removeprefix("failed: ")
        if stopped:
            display.log(f"stopped after {number} of {len(todo)} runs; the same command goes on")
            break
        took, spent = time.monotonic() - start, time.monotonic() - began
        left = spent / (number + 1) * (len(todo) - number - 1)
        display.log(f"run {number + 1}/{len(todo)}  {label}  {said}  took {clock(took)}  left {clock(left)}")
    entries = []
    for arm in plan.arms:
        made = {s: plan.run_folder(arm, s) for s in range(plan.seeds)}
        entries.append(Entry(arm.name, {s: open_run(f) for s, f in made.items() if is_run(f)}, arm.settings))
    return reported(
        plan.folder, [entry for entry in entries if entry.runs], plan.transfer, plan.target, failures, stopped, display
    )


def _forget(folder: Path) -> None:
    """Remove what a plan has written, and its folder if nothing else stands in it."""
    for name in (PLAN, "data.jsonl", "eval_data.jsonl", "held-out.jsonl", "log.txt", LOCK):
        (folder / name).unlink(missing_ok=True)
    if (folder / "runs").is_dir() and not any((folder / "runs").iterdir()):
        (folder / "runs").rmdir()
    if not contents(folder):
        folder.rmdir()


def _complete(plan: Plan, arm: Arm, seed: int) -> bool:
    folder = plan.run_folder(arm, seed)
    return is_finished(folder) and not lacking(folder, plan.config(arm, seed), plan.samples, plan.transfer)


def _one(plan: Plan, arm: Arm, seed: int, display: Display) -> str | None:
    """Train and measure one run. What to say of it; None if it was interrupted."""
    folder, config = plan.run_folder(arm, seed), plan.config(arm, seed)
    if not is_finished(folder):
        result = train(config, method=arm.made, resume=True, display=display, observers=observers(config))
        if result.stopped:
            return None
    measured = evaluate_run(folder, config, plan.samples, plan.transfer, display.log)
    return f"{HEADLINE} {measured[HELD_OUT]:.1%}" if HELD_OUT in measured else "finished"
