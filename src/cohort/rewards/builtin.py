"""The table of the rewards that cohort brings."""

from __future__ import annotations

from cohort.rewards import conclusion, graded, verifiers
from cohort.rewards.kinds import Kind

KINDS: dict[str, Kind] = {kind.name: kind for kind in (*verifiers.KINDS, *conclusion.KINDS, *graded.KINDS)}
FORMS: tuple[str, ...] = tuple(form for kind in KINDS.values() for form in kind.forms)
