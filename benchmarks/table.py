"""cohort against TRL in the cases that have a target, as a table: what `make bench` runs.

    python -m benchmarks.table                 all five; some tens of minutes on two cores
    python -m benchmarks.table --no-longest    without the search for the longest sequence, which takes most of them
    python -m benchmarks.table --json          the last line is one object
    python -m benchmarks.table --keep          a line for each case goes into benchmarks/results.jsonl, with the commit

The machine should do nothing else meanwhile. Ratios of time are TRL's over cohort's, those of memory cohort's over TRL's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.scaling import output_of

RESULTS = Path(__file__).parent / "results.jsonl"
LARGE = ("--hidden=512", "--layers=12", "--vocab=32000")


class Target(NamedTuple):
    """A ratio of a benchmark's last line, and where it is to be."""

    key: str
    text: str
    bound: float
    at_least: bool = True

    def met(self, found: dict[str, Any]) -> bool:
        """True if the figure is on the right side of the bound."""
        return found[self.key] >= self.bound if self.at_least else found[self.key] <= self.bound


class Case(NamedTuple):
    """A row of the table.

    Attributes:
        module: the benchmark; options: of it, beside --json.
    """

    title: str
    module: str
    options: tuple[str, ...]
    targets: tuple[Target, ...]


def steps(speed: float, memory: float) -> tuple[Target, ...]:
    return Target("step_ratio", "seconds a step", speed), Target("memory_ratio", "peak memory", memory, False)


CASES = (
    Case(
        "hidden 256, 6 layers, prompt 70, group 8, 4 prompts, 128 new, mixed lengths",
        "benchmarks.vs_trl",
        ("--prompt-len=70", "--group=8", "--prompts=4", "--max-new=128", "--mixed-lengths"),
        steps(3, 1 / 2),
    ),
    Case(
        "the same, prompt 1,000, group 16, 2 prompts, 64 new",
        "benchmarks.vs_trl",
        ("--prompt-len=1000", "--group=16", "--prompts=2", "--max-new=64"),
        steps(7, 1 / 5),
    ),
    Case(
        "hidden 512, 12 layers, vocabulary 32,000, prompt 256, group 8, 4 prompts, 64 new",
        "benchmarks.vs_trl",
        (*LARGE, "--prompt-len=256", "--group=8", "--prompts=4", "--max-new=64"),
        steps(3, 1 / 3),
    ),
    Case(
        "sampling alone, hidden 256, prompt 512, group 8, 128 new",
        "benchmarks.vs_trl",
        ("--prompt-len=512", "--group=8", "--prompts=4", "--max-new=128"),
        (Target("sample_ratio", "sampled tokens a second", 4),),
    ),
    Case(
        "longest sequence that trains in 4 GB, hidden 512, 12 layers, vocabulary 32,000",
        "benchmarks.longest",
        (*LARGE, "--budget-gb=4", "--contenders=stream,trl"),
        (Target("stream_ratio", "tokens", 4),),
    ),
)


def lines_of(case: Case, found: dict[str, Any]) -> list[str]:
    """Lines of the table: a target each."""
    lines = []
    for place, target in enumerate(case.targets):
        wanted = f"at {'least' if target.at_least else 'most'} {target.bound:.3g}"
        verdict = "met" if target.met(found) else "not met"
        title = case.title if place == 0 else ""
        lines.append(f"| {title} | {target.text} | {found[target.key]:.2f} | {wanted} | {verdict} |")
    return lines


def installed(name: str) -> str | None:
    """Version of a distribution; None if it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def keep(results: Sequence[dict[str, Any]], path: Path = RESULTS) -> None:
    """Append a line for each case: what was found, when, of which commit and on what machine."""
    said = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=path.parent)
    known = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": said.stdout.strip() or None,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        **{name: installed(name) for name in ("torch", "transformers", "trl")},
    }
    with path.open("a", encoding="utf-8") as file:
        for found in results:
            ratios = {name: round(value, 3) for name, value in found.items() if name.endswith("_ratio")}
            file.write(json.dumps({**known, "case": found["case"], **ratios}) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-longest", action="store_true", help="without the search for the longest sequence")
    parser.add_argument("--keep", action="store_true", help=f"append the figures to {RESULTS.name}")
    parser.add_argument("--json", action="store_true", help="end with one object")
    asked = parser.parse_args(arguments)
    lines, results = [], []
    for case in CASES:
        if asked.no_longest and case.module == "benchmarks.longest":
            continue
        print(f"== {case.title}", file=sys.stderr, flush=True)
        found = output_of(case.module, [*case.options, "--json"])
        results.append({"case": case.title, **found, "met": [target.met(found) for target in case.targets]})
        lines += lines_of(case, found)
        print("\n".join(lines_of(case, found)), file=sys.stderr, flush=True)
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("\n".join(["| case | of | TRL to cohort | target | |", "|---|---|---|---|---|", *lines]))
    if asked.keep:
        keep(results)
    if asked.json:
        print(json.dumps({"cases": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
