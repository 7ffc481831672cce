"""The command as tests run it, and small files for it."""

from __future__ import annotations

import contextlib
import io
import json
import sys

import pytest

from cohort import cli

SUMS = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(4) for b in range(4)]


def run(*arguments):
    """Status, standard output and standard error of the command."""
    out, err = io.StringIO(), io.StringIO()
    status = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["cohort", *map(str, arguments)])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main()
            except SystemExit as stop:
                status = stop.code or 0
    return status, out.getvalue(), err.getvalue()


def with_sums(folder):
    write(folder / "sums.jsonl", SUMS)
    return folder


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts)


SMALL = ["--prompts-per-step", "2", "--group-size", "2", "--max-new-tokens", "8", "--device", "cpu", "--lr", "1e-3"]
