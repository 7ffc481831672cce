"""A batch dealt to several processes of reward functions, and their replies as one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from cohort.rewards.calling import Reply


def shares(prompts: Sequence[Any], count: int) -> list[list[int]]:
    """Rows of at most `count` shares of about the same size, in their order; neighbours of one prompt stay together."""
    groups = [[row for row, _ in rows] for _, rows in groupby(enumerate(prompts), key=lambda each: each[1])]
    out: list[list[int]] = []
    done = 0
    for group in groups:
        # A group goes to the share that its middle falls into.
        at = min(int(count * (done + len(group) / 2) / len(prompts)), count - 1)
        done += len(group)
        if not out or at >= len(out):
            out.append([])
        out[-1] += group
    return out


def joined(replies: Sequence[Reply], sizes: Sequence[int]) -> Reply:
    """The reply for a batch from those for its shares of these sizes, in their order; the first failure, where there is one."""
    for reply in replies:
        if "values" not in reply:
            return reply
    pairs = list(zip(replies, sizes, strict=True))
    columns = dict.fromkeys(name for reply in replies for name in reply["extra"])
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    metrics: dict[str, list[float]] = {}
    for reply in replies:
        for name, values in reply["metrics"].items():
            metrics.setdefault(name, []).extend(values)
    failed = {
        start + int(row): why
        for reply, start in zip(replies, starts, strict=True)
        for row, why in reply.get("failed", {}).items()
    }
    return {
        "values": [value for reply in replies for value in reply["values"]],
        "extra": {name: [v for reply, n in pairs for v in reply["extra"].get(name, [None] * n)] for name in columns},
        "metrics": metrics,
        "notes": list(dict.fromkeys(note for reply in replies for note in reply["notes"])),
        **({"failed": failed} if failed else {}),
        "changed": sorted({name for reply in replies for name in reply.get("changed", [])}),
    }
