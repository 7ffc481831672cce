"""`cohort explain`."""

from __future__ import annotations

from typing import Annotated

import typer


def explain(method: Annotated[str, typer.Argument(metavar="METHODS", help="As in dapo+gdpo.")]) -> None:
    """Say what a method does at each axis: equations, defaults, sources, and what it costs."""
    from cohort.explain import explain as text

    print(text(method))
