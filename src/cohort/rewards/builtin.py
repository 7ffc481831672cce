"""The table of the rewards that cohort brings."""

from __future__ import annotations

from cohort.rewards import (
    choices,
    conclusion,
    equivalent,
    formulas,
    graded,
    information,
    judged,
    listed,
    overlap,
    patterns,
    reward_models,
    spatial,
    structured,
    tagged,
    texts,
    verifiers,
)
from cohort.rewards.code import kind as code
from cohort.rewards.kinds import Kind
from cohort.rewards.plots import kind as plots

MODULES = (
    verifiers,
    conclusion,
    graded,
    spatial,
    overlap,
    tagged,
    patterns,
    texts,
    structured,
    listed,
    reward_models,
    code,
    judged,
    information,
    choices,
    formulas,
    plots,
    equivalent,
)
KINDS: dict[str, Kind] = {kind.name: kind for module in MODULES for kind in module.KINDS}
FORMS: tuple[str, ...] = tuple(form for kind in KINDS.values() for form in kind.forms)
