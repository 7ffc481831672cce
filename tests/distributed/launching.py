"""Scripts that run on several processes of this machine, started once for the tests of a module."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

# Of a whole script, in seconds, and of one with every combination: a hang is a failure, and says so.
LIMIT, LONG = 240, 1800


def run_on_ranks(module: str, folder: Path, *arguments: str, ranks: int = 2, limit: int = LIMIT) -> dict[str, Any]:
    """What a module's `report` (below) has written, name -> value, once torchrun has run it on this many processes.

    Raises:
        AssertionError: a process failed, or did not end in time, with what it said.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command += ["-m", module, str(folder), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=environment, check=False)
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"{module} did not end within {limit} s: {_tail(error.stderr)}") from error
    assert done.returncode == 0, _tail(done.stderr)
    return json.loads((folder / "report.json").read_text())


def _tail(text: Any) -> str:
    """What a process failed of, without the notes of those that failed since it did and of torchrun."""
    said = "" if text is None else text.decode() if isinstance(text, bytes) else str(text)
    return said[max(0, said.find("Traceback")) :][:6000]
