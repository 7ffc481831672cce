"""A run whose environments all fail ends, and stands saved."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cohort.errors import EnvironmentsFailed
from cohort.training.lost import LIMIT, LostSteps


def step(*statuses: str) -> SimpleNamespace:
    return SimpleNamespace(rollouts=[SimpleNamespace(status=each, error="no server") for each in statuses])


def test_a_run_ends_at_the_third_step_in_a_row_without_an_episode() -> None:
    lost = LostSteps()
    for at in range(1, LIMIT):
        lost.see(step("failed", "failed"), at)
    with pytest.raises(EnvironmentsFailed, match=r"3 steps in a row failed, the last at step 3: no server.*--resume"):
        lost.see(step("failed"), LIMIT)


@pytest.mark.parametrize("between", [step("failed", "finished"), step("truncated"), step()])
def test_a_step_with_an_episode_or_without_any_begins_anew(between: SimpleNamespace) -> None:
    lost = LostSteps()
    for at in range(1, LIMIT):
        lost.see(step("failed"), at)
    lost.see(between, LIMIT)
    for at in range(1, LIMIT):
        lost.see(step("failed"), LIMIT + at)
