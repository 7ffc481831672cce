"""Where a run stands at a step."""

from __future__ import annotations

import pytest

from cohort.types import StepInfo, generation_budget


def test_the_generation_budget_is_known_or_asked_for() -> None:
    assert generation_budget(StepInfo(max_new_tokens=12)) == 12
    with pytest.raises(KeyError, match="max_tokens"):
        generation_budget(StepInfo())
