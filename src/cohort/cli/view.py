"""`cohort view`."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Annotated

import typer

from cohort.cli.console import log


def view(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="RUN", help="Folders of runs, or folders with runs; else runs/.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 takes any free one.  \\[default: 8642 or the next]")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; anything but the loopback lets the network read.")
    ] = "127.0.0.1",
    no_browser: Annotated[bool, typer.Option("--no-browser", metavar="", help="Do not open a browser.")] = False,
) -> None:
    """Show runs in the browser: live curves, rollouts, and every token of them. Stops with Ctrl-C."""
    from cohort.viewer.server import view as show

    show(runs or [], host=host, port=port, browser=not no_browser, log=log)
    # Python would look through all of torch for garbage before it ends: most of a second after Ctrl-C.
    gc.freeze()
