"""A run's saved configuration, in whichever form a version of cohort wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Sections whose keys go by their own names; those of `checkpoint` do not.
SECTIONS = frozenset(
    {
        "policy",
        "dataset",
        "rewards",
        "episodes",
        "evaluation",
        "sampling",
        "sharing",
        "inference",
        "optimisation",
        "machine",
        "output",
    }
)
# Models under the names that they once had.
RENAMED = {"nursery": "toy"}
# Names of the models that come with cohort.
EMBEDDED = ("toy", "toy-tools")


def flat(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration by its keys' own names: {"sampling": {"top_p": 0.9}} -> {"top_p": 0.9}. One from before there were
    sections is so already."""
    out: dict[str, Any] = {}
    for key, value in stored.items():
        out |= value if key in SECTIONS and isinstance(value, Mapping) else {key: value}
    if isinstance(out.get("model"), str):
        out["model"] = RENAMED.get(out["model"], out["model"])
    return out
