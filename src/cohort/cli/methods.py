"""`cohort methods`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table


def methods(as_json: Annotated[bool, typer.Option("--json", metavar="", help="Print JSON.")] = False) -> None:
    """List the methods: name, paper, axes they fill, and how exact their specification is."""
    from cohort.catalogue import overview

    rows = overview()
    if as_json:
        print(json.dumps(rows))
        return
    console = Console() if sys.stdout.isatty() else Console(width=140)
    # On paper and in narrow windows a line a method; cells that wrap would be harder to read than no table.
    wide = console.width >= 160
    table = Table("method", "paper", "axes", "specification", *(["idea"] if wide else []), box=box.SIMPLE)
    for row in rows:
        requires = f" (needs: {row['requires']})" if row["requires"] else ""
        idea = [row["idea"]] if wide else []
        table.add_row(row["name"] + requires, row["paper"].replace("arXiv:", ""), row["axes"], row["confidence"], *idea)
    console.print(table)
