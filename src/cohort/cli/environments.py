"""`cohort environments`."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table


def environments(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="List the IDs of one of them.")] = None,
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="Print JSON.")] = False,
) -> None:
    """List what --environment takes: what it is, whether it is installed, how to install it, and an example."""
    from cohort.environments.adapters.known import KNOWN, OWN, ids

    if name is not None:
        found = ids(name.rstrip(":"))
        print(json.dumps(found) if as_json else "\n".join(found))
        return
    rows: list[dict[str, Any]] = [
        {
            "environment": each.form,
            "what": each.what,
            "installed": each.version if each.package else "",
            "install": each.install if each.package and each.version is None else None,
            "example": f"cohort train grpo --environment '{each.example}'",
        }
        for each in (OWN, *KNOWN)
    ]
    if as_json:
        print(json.dumps(rows))
        return
    console = Console() if sys.stdout.isatty() else Console(width=160)
    table = Table("environment", "what", "installed", box=box.SIMPLE)
    for row in rows:
        table.add_row(row["environment"], row["what"], row["installed"] if row["install"] is None else row["install"])
    # IDs and commands hold brackets, which are no markup here.
    console.print(table, markup=False)
    print("For example:\n" + "\n".join(f"  {row['example']}" for row in rows))
    print("\ncohort environments NAME lists the IDs of one of them.")
