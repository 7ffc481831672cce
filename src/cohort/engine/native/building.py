"""C code that is compiled on the machine it runs on, once: what was compiled is kept in the user's cache folder."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from cohort import cache

# For this very processor. Threads are those of torch, whose OpenMP has been loaded before the code is.
FLAGS = ("-O2", "-march=native", "-std=gnu11", "-fno-math-errno", "-ffp-contract=off", "-fopenmp", "-fPIC", "-shared")
PROCESSOR = Path("/proc/cpuinfo")


class Unavailable(RuntimeError):
    """Code cannot be compiled or loaded here; the message says why."""


def library(source: Path) -> ctypes.CDLL:
    """The code of a file of C, compiled unless it was before.

    Raises:
        Unavailable: it cannot be compiled or loaded here.
    """
    found = _attempt(source, os.environ.get("CC", ""), FLAGS)
    if isinstance(found, str):
        raise Unavailable(found)
    return found


@functools.cache
def _attempt(source: Path, asked: str, flags: tuple[str, ...]) -> ctypes.CDLL | str:
    """The code, or why there is none."""
    try:
        command = _compiler(asked)
        version = _run([*command, "--version"])
        if "clang" in version:
            raise Unavailable(
                f"{command[0]} is clang, whose threads are not those of torch: install gcc, or name it with CC"
            )
        recipe = (source.read_text(encoding="utf-8"), *command, version, *flags, _processor())
        path = cache.folder() / f"{source.stem}-{hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]}.so"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Aside and renamed: another process may be doing the same, or this one be killed.
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as aside:
                made = Path(aside) / path.name
                _run([*command, *flags, str(source), "-o", str(made), "-lm"])
                made.rename(path)
        return ctypes.CDLL(str(path))
    except OSError as error:
        return f"{error} (COHORT_CACHE names the folder)"
    except Unavailable as error:
        return str(error)


def _compiler(asked: str) -> list[str]:
    """The command of the compiler: CC, or gcc, or cc."""
    for command in [shlex.split(asked)] if asked else [["gcc"], ["cc"]]:
        if command and shutil.which(command[0]):
            return command
    raise Unavailable(f"there is no C compiler ({asked or 'gcc or cc'}): install gcc")


def _processor() -> str:
    """What tells processors apart that do not run the same code."""
    lines = PROCESSOR.read_text(encoding="utf-8").splitlines()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags"))}))


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "error:" in line] or [f"status {done.returncode}"]
        raise Unavailable(f"{command[0]}: {said[0].strip()}")
    return done.stdout
