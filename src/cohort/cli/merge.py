"""`cohort merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cohort.cli.console import free, log
from cohort.cli.options import Options, resolved, with_options


@with_options(only={"trust_remote_code"})
def merge(
    options: Options,
    adapter: Annotated[
        Path, typer.Argument(metavar="ADAPTER", help="Folder of a LoRA adapter, such as a run's final/.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the whole model is written.")],
) -> None:
    """Make a whole model of a LoRA adapter and the model it was trained on."""
    from cohort.policies.loading import merge_adapter

    free(out)
    merge_adapter(adapter, out, trust_remote_code=resolved(options).policy.trust_remote_code)
    log(f"the model: {out}")
