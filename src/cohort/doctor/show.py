"""A report on screen."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from cohort.doctor.examine import Report
from cohort.doctor.finding import SEVERITIES, Finding

STYLES = {"alarm": "bold red", "warning": "bold yellow", "note": "bold cyan"}


def show(report: Report, console: Console) -> None:
    """Print a report: findings with their evidence, the worst first, and what could not be looked at."""
    console.print(Text(summary(report), style="bold"))
    for finding in report.findings:
        console.print()
        _finding(finding, console)
    if report.missing:
        console.print()
        console.print(Text(f"Not looked at ({len(report.missing)}):"))
        for name, lacks in sorted(report.missing.items()):
            console.print(Padding(Text(f"{name}: {lacks}"), (0, 0, 0, 2), expand=False))
    if report.problems:
        console.print()
        console.print(Text("What went wrong on the way:"))
        for problem in report.problems:
            console.print(Padding(Text(problem), (0, 0, 0, 2), expand=False))


def summary(report: Report) -> str:
    """One line: what was looked at, and how much was found."""
    counts = [(len([f for f in report.findings if f.severity == severity]), severity) for severity in SEVERITIES]
    found = (
        ", ".join(f"{count} {severity}{'s' * (count > 1)}" for count, severity in counts if count) or "nothing found"
    )
    over = f" after {report.steps} steps" if report.steps else ""
    return f"{report.name}{over}: {found}; {report.made} diagnoses made"


def _finding(finding: Finding, console: Console) -> None:
    head = Text(f"{finding.severity.upper()}  ", style=STYLES[finding.severity])
    console.print(head + Text(f"{finding.what}", style="bold") + Text(f"  [{finding.name}]", style="dim"))
    for each in finding.evidence:
        console.print(Padding(Text(f"- {each.text}"), (0, 0, 0, 2), expand=False))
        if each.where:
            console.print(Padding(Text(each.where, style="dim"), (0, 0, 0, 4), expand=False))
    console.print(Padding(Text(f"Meaning: {finding.meaning}"), (0, 0, 0, 2), expand=False))
    console.print(Padding(Text("Try:"), (0, 0, 0, 2), expand=False))
    for attempt in finding.tries:
        console.print(Padding(Text(f"- {attempt}"), (0, 0, 0, 4), expand=False))
    console.print(Padding(Text(f"Source: {finding.source}", style="dim"), (0, 0, 0, 2), expand=False))
