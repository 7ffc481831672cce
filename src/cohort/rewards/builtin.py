"""The table of the rewards that cohort brings."""

from __future__ import annotations

from cohort.rewards import verifiers
from cohort.rewards.kinds import Kind

KINDS: dict[str, Kind] = {kind.name: kind for kind in (*verifiers.KINDS,)}
FORMS: tuple[str, ...] = tuple(form for kind in KINDS.values() for form in kind.forms)
