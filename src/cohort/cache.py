"""Where things are kept that were made once on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def folder() -> Path:
    """The user's cache folder: COHORT_CACHE, or cohort/ under XDG_CACHE_HOME or ~/.cache."""
    if os.environ.get("COHORT_CACHE"):
        return Path(os.environ["COHORT_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cohort"
