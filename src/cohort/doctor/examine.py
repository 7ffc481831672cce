"""Making all diagnoses of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cohort.analysis.store import Run
from cohort.doctor.finding import SEVERITIES, Diagnosis, Finding, Missing, diagnoses
from cohort.doctor.record import Record, Rollouts

# Steps whose rollouts are read, and rollouts of each: what 1,000 steps take must not be much more than what 20 take.
MOST_STEPS = 16
MOST_ROLLOUTS = 512


@dataclass(frozen=True)
class Report:
    """What came of it.

    Attributes:
        name: of the run, or of the data.
        findings: the worst first.
        missing: diagnosis -> what it lacks.
        made: number of diagnoses that were made.
        problems: what could not be read.
        steps: of the run so far.
    """

    name: str
    findings: tuple[Finding, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    made: int = 0
    problems: tuple[str, ...] = ()
    steps: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: what is no number is None."""
        found: dict[str, Any] = asdict(self)
        for finding in found["findings"]:
            for each in finding["evidence"]:
                each["numbers"] = {k: v if math.isfinite(v) else None for k, v in each["numbers"].items()}
        return found


def examine(run: Run) -> Report:
    """Diagnose a run, whether it is over, goes on, or was cut by a crash."""
    record = record_of(run)
    findings, missing, failures = diagnose(record, diagnoses("run"))
    made = len(diagnoses("run")) - len(missing) - len(failures)
    steps = int(run.metrics[-1]["step"]) if run.metrics else 0
    return Report(run.name, findings, missing, made, (*run.problems, *failures), steps)


def diagnose(record: Any, asked: Sequence[Diagnosis]) -> tuple[tuple[Finding, ...], dict[str, str], tuple[str, ...]]:
    """(findings, the worst first; diagnosis -> what it lacks; what went wrong in a diagnosis)."""
    found: list[Finding] = []
    missing: dict[str, str] = {}
    failures: list[str] = []
    for each in sorted(asked, key=lambda each: not each.cause):
        try:
            finding = each(record)
        except Missing as lacks:
            missing[each.name] = str(lacks)
        except Exception as error:
            # What is stored may be of any kind: one diagnosis that trips must not take the others with it.
            failures.append(f"the diagnosis {each.name} failed: {type(error).__name__}: {error}")
        else:
            found += [finding] if finding is not None else []
    found.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return tuple(found), missing, tuple(failures)


def record_of(run: Run) -> Record:
    """What the diagnoses see of a run."""
    wanted = {name for each in diagnoses("run") for name in each.columns}
    columns = [name for name in wanted if not name.endswith("*")]
    columns += [f"reward/{name}" for name in Record(run.name, run.config).weights]
    stored = run.steps()
    samples, read = [], False
    for step in pick(stored):
        whole = run.rollouts(step, columns)
        read = read or whole is not None
        table = _rewarded(whole)
        if table is not None and table.num_rows:
            samples.append(whole_groups(Rollouts(step, table), MOST_ROLLOUTS))
    why = "needs rollouts, of which the run stored none"
    if stored and not samples:
        why = "needs rollouts with a reward" if read else "needs rollouts, and none of the files could be read"
    return Record(run.name, run.config, run.metrics, run.summary, samples, why)


def _rewarded(table: pa.Table | None) -> pa.Table | None:
    """The rollouts of a group that have a reward: of those that all rewards abstained from there is nothing to diagnose."""
    for name in ("reward", "group"):
        if table is not None and name in table.column_names:
            table = table.filter(pc.invert(pc.is_null(table[name], nan_is_null=True)))
    return table


def pick(steps: Sequence[int], most: int = MOST_STEPS) -> list[int]:
    """Steps to read: the first and last quarter of what may be read lie at the run's ends, the others evenly between."""
    if len(steps) <= most:
        return list(steps)
    ends = most // 4
    inner, count = steps[ends:-ends], most - 2 * ends
    even = [inner[round((i + 0.5) * len(inner) / count - 0.5)] for i in range(count)]
    return sorted({*steps[:ends], *even, *steps[-ends:]})


def whole_groups(rollouts: Rollouts, most: int) -> Rollouts:
    """The rollouts, or the first whole groups of so many of them."""
    if len(rollouts) <= most or "group" not in rollouts:
        return rollouts
    kept: list[int] = []
    for rows in rollouts.groups:
        if kept and len(kept) + len(rows) > most:
            break
        kept += rows.tolist()
    return Rollouts(rollouts.step, rollouts.table.take(sorted(kept)))
