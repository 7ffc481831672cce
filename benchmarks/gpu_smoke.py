"""Whether cohort works on this GPU: every path that a CPU cannot show, in ten minutes at most. What to run first on a new one.

    python -m benchmarks.gpu_smoke                      on the GPU; what there is none of is reported as "not here"
    python -m benchmarks.gpu_smoke --device cpu         what can run without one: shows that the script itself works
    python -m benchmarks.gpu_smoke --only graphs flash  some parts
    python -m benchmarks.gpu_smoke --list               the parts, and what each shows

Each part runs in a process of its own with a limit of time, so that one which crashes or hangs does not end the others. The
table at the end has a line for each: pass, fail with the end of its error, or not here and why. `--json FILE` writes the same
with the figures of each part. The status is 1 if a part failed. How fast the GPU is, `benchmarks.gpu` measures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu import Shape, make_model
from benchmarks.smoke_parts import PARTS, Part
from benchmarks.smoke_place import NotHere, Place

MODEL = Shape(512, 4, 8, 4, 1024, 8192, prompts=8, group=8, prompt_len=128, max_new=64)
SMALL = Shape(64, 2, 2, 1, 128, 160, prompts=2, group=4, prompt_len=8, max_new=12)
# Of what a part says, when it fails: its last lines.
END = 25
# What the line with a part's report begins with.
MARK = "gpu_smoke: "


@dataclass
class Report:
    """What became of a part: "pass", "fail" or "not here"; why; and its figures."""

    name: str
    status: str
    seconds: float = 0.0
    why: str = ""
    figures: dict[str, Any] = field(default_factory=dict)


def perform(name: str, place: Place) -> int:
    """A part, in this process: its report is a line of what is printed, after which libraries may write on as they end."""
    try:
        report = Report(name, "pass", figures=PARTS[name].run(place))
    except NotHere as error:
        report = Report(name, "not here", why=str(error))
    print(f"{MARK}{json.dumps(vars(report))}", flush=True)
    return 0


def start(name: str, place: Place, limit: float, module: str = "benchmarks.gpu_smoke") -> Report:
    """A part in a process of its own (`-m module --part=...`), which is ended with all that it has started when its time is
    over."""
    began = time.monotonic()
    command = [sys.executable, "-W", "ignore", "-m", module, f"--part={name}"]
    command += [f"--device={place.device}", f"--folder={place.folder}"]
    with tempfile.TemporaryFile("w+", errors="replace") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            process.wait(limit)
            why = ""
        except subprocess.TimeoutExpired:
            why = f"it took longer than {limit:.0f} s"
        finally:
            end(process)
        out.seek(0)
        said = out.read().strip().splitlines()
    seconds = time.monotonic() - began
    told = [line.removeprefix(MARK) for line in said if line.startswith(MARK)]
    if not why and process.returncode == 0 and told:
        found = Report(**json.loads(told[-1]))
        found.seconds = seconds
        return found
    code = process.returncode
    why = why or (f"killed by signal {-code}" if code and code < 0 else f"ended with status {code}")
    return Report(name, "fail", seconds, "\n".join([why, *said[-END:]]))


def end(process: subprocess.Popen[str]) -> None:
    """End a process and all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def missing(part: Part, device: str, gpus: int) -> str:
    """What a part needs that is not here; nothing if all is."""
    if device == "cpu":
        return "" if part.cpu else "it needs a GPU"
    if not gpus:
        return "torch sees no GPU"
    return "" if gpus >= part.gpus else f"it needs {part.gpus} GPUs, torch sees {gpus}"


def table(reports: Sequence[Report]) -> str:
    """A line a part, and the end of each error below."""
    lines = []
    for each in reports:
        first = each.why.splitlines()[0] if each.why else ""
        figures = "  ".join(f"{key} {_short(value)}" for key, value in each.figures.items())
        lines.append(f"{each.name:14}{each.status:10}{each.seconds:6.0f} s  {first or figures}".rstrip())
    for each in reports:
        if each.status == "fail":
            lines += ["", f"== {each.name} ({PARTS[each.name].shows})", each.why]
    return "\n".join(lines)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def parse(arguments: Sequence[str] | None = None) -> Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), metavar="PART", help="these parts alone")
    parser.add_argument("--minutes", type=float, default=10.0, help="time for all parts (10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the reports there")
    parser.add_argument("--list", action="store_true", help="say what the parts are, and end")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts and report."""
    asked = parse(arguments)
    if asked.list:
        print("\n".join(f"{name:14}{part.shows}" for name, part in PARTS.items()))
        return 0
    shape = SMALL if asked.device == "cpu" else MODEL
    if asked.part:
        return perform(asked.part, Place(asked.device, asked.folder, shape))
    import torch

    gpus = torch.cuda.device_count() if asked.device != "cpu" else 0
    reports = []
    over = time.monotonic() + 60 * asked.minutes
    with tempfile.TemporaryDirectory() as folder:
        place = Place(asked.device, Path(folder), shape)
        make_model(place.model, shape)
        for name in asked.only or PARTS:
            left = over - time.monotonic()
            why = missing(PARTS[name], asked.device, gpus)
            why = why or (f"the {asked.minutes:g} minutes are over" if left < 1 else "")
            if why:
                reports.append(Report(name, "not here", why=why))
                continue
            print(f"{name}: {PARTS[name].shows} ...", flush=True)
            reports.append(start(name, place, min(left, PARTS[name].seconds)))
            print(f"   {reports[-1].status} after {reports[-1].seconds:.0f} s", flush=True)
    print(f"\n{table(reports)}")
    if asked.json:
        asked.json.write_text(json.dumps({"device": asked.device, "parts": [vars(each) for each in reports]}, indent=1))
    return int(any(each.status == "fail" for each in reports))


if __name__ == "__main__":
    sys.exit(main())
