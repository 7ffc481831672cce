"""What a comparison says, on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cohort.analysis.findings import HEADLINE
from cohort.analysis.measure import about
from cohort.analysis.report import cell, columns
from cohort.experiments.comparison import Comparison

# As many as fit beside names on an ordinary terminal; the report has them all.
SHOWN = ("pass@1", "pass@16", "maj@16", "entropy", "length", "tokens_to", "seconds")


def show(found: Comparison, console: Console) -> None:
    """Print the main measures, a sentence for each difference, notes, and where the report is."""
    findings = found.findings
    for data in findings.data:
        results = {(r.entry, r.measure): r for r in findings.results if r.data == data}
        measures = [name for name in columns(findings, data) if name in SHOWN]
        if not measures:
            continue
        heads = [f"{about(n).title}{f', {about(n).unit}' if about(n).unit else ''}" for n in measures]
        table = Table("", *heads, title=f"{data}, with 95 % intervals" if HEADLINE in measures else None)
        for entry in findings.entries:
            cells = [cell(results[entry, n]) if (entry, n) in results else ("-", "") for n in measures]
            table.add_row(Text(entry), *(Text(f"{value}\n{under}".strip()) for value, under in cells))
        console.print(table)
        for contrast in findings.contrasts:
            if contrast.measure == HEADLINE and contrast.data == data:
                said = f"{contrast.entry} against {contrast.reference}, {HEADLINE}: {contrast.sentence}"
                console.print(Text(said), soft_wrap=True)
    for note in findings.notes:
        console.print(Text(f"note: {note}"), soft_wrap=True)
    console.print(Text(f"the report: {found.report}"), soft_wrap=True)
