"""How long each method's maths takes without the model: from rewards to the gradient with respect to log-probabilities.

    python -m benchmarks.methods                 every method, 256 rollouts of up to 2,048 tokens
    python -m benchmarks.methods dapo gdpo       some of them
    python -m benchmarks.methods --json out.json

Each method is timed next to GRPO in the same round, so that what else the machine does touches both; the table gives the
median over rounds of the ratio. A method may take 3 times GRPO's time, and 10 times where a sort or a comparison of pairs
over tokens is in the maths (`SORTS` in its adapter says which).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tests.traits import batch_for, gradients, trait, with_leaves

from cohort import registry
from cohort.methods import Method

GROUPS = (8,) * 32
WIDTH = 2048


def prepared(name: str) -> tuple[Method, Any]:
    """The method and a batch for it, as the loop would have it after scoring."""
    return registry.method(name), batch_for(name, seed=0, groups=GROUPS, width=WIDTH, dtype=torch.float32)


def seconds(method: Method, batch: Any) -> float:
    """Time of one pass through every stage of the update and back."""
    states = method.init(size=len(GROUPS))
    given, leaves = with_leaves(method, batch)
    # The fields are read once before the clock starts: cleaning them is not the method's work.
    for each in given.names:
        given[each]
    start = time.perf_counter()
    states = method.bind(states).on_rollouts(given, [])
    ready = method.bind(states).prepare(given).batch
    gradients(method.bind(states).loss(ready).total, leaves)
    return time.perf_counter() - start


def main() -> int:
    """Print the table; 1 if a method is slower than it may be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="methods; all if none is named")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the median over them is reported")
    parser.add_argument("--json", type=Path, help="write the table as JSON")
    asked = parser.parse_args()
    host, host_batch = prepared("grpo")
    seconds(host, host_batch)
    rows: list[dict[str, Any]] = []
    for name in asked.names or registry.names():
        method, batch = prepared(name)
        seconds(method, batch)
        pairs = [(seconds(method, batch), seconds(host, host_batch)) for _ in range(asked.rounds)]
        ratio = statistics.median(own / reference for own, reference in pairs)
        limit = 10.0 if trait(name, "SORTS") else 3.0
        own = statistics.median(own for own, _ in pairs)
        rows.append({"method": name, "ms": 1e3 * own, "ratio": ratio, "limit": limit, "within": ratio <= limit})
        mark = "" if ratio <= limit else "   slower than it may be"
        print(f"{name:24} {1e3 * own:8.1f} ms   {ratio:6.2f} x grpo   (limit {limit:.0f}){mark}", flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0 if all(row["within"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
