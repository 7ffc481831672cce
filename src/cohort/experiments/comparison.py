"""What came of a comparison, and the report that says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cohort.analysis.comparing import analyse
from cohort.analysis.findings import Entry, Findings
from cohort.analysis.measure import HELD_OUT
from cohort.analysis.report import write_report
from cohort.errors import UsageError
from cohort.training.display import Display


@dataclass
class Comparison:
    """What came of a comparison.

    Attributes:
        folder: of the comparison, with report.html, results.csv, differences.csv, runs.csv and results.json.
        findings: its numbers and sentences.
        failures: run -> what went wrong.
        stopped: True if it was interrupted; the same call goes on.
    """

    folder: Path
    findings: Findings
    failures: dict[str, str] = field(default_factory=dict)
    stopped: bool = False

    @property
    def report(self) -> Path:
        return self.folder / "report.html"


def reported(
    folder: Path,
    entries: Sequence[Entry],
    transfer: Mapping[str, str],
    target: float | None,
    failures: dict[str, str],
    stopped: bool,
    display: Display,
    notes: Sequence[str] = (),
) -> Comparison:
    """Analyse what ran and write the report.

    Args:
        transfer: name -> further data that was measured on.
        failures: run -> what went wrong; stands among the report's notes.

    Raises:
        UsageError: no run left anything to compare.
    """
    if not entries:
        first = next(iter(failures.items()), None)
        why = f": {first[0]}: {first[1]}" if first else ""
        raise UsageError(f"no run left anything to compare{why}")
    findings = analyse(entries, [HELD_OUT, *transfer], target=target)
    findings.notes = [*notes, *(f"{run}: {what}" for run, what in failures.items()), *findings.notes]
    write_report(folder, findings)
    return Comparison(folder, findings, failures, stopped)
