"""The doctor beside a run that goes on: what metrics alone can tell, told once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cohort.doctor.examine import diagnose
from cohort.doctor.finding import Finding, diagnoses
from cohort.doctor.record import Record
from cohort.training.config import TrainConfig
from cohort.training.observer import MakeObserver

EVERY = 10  # steps; more often in a run that has fewer than five times as many
SHARE = 0.01  # of the run's time that looking may take
_WAITING = "needs rollouts, which are not read while the run goes on"


def observers(config: TrainConfig) -> Sequence[MakeObserver]:
    """The doctor, for a run whose configuration has not switched it off."""
    return (Watch,) if config.output.doctor else ()


class Watch:
    """Makes the diagnoses that need no rollouts, every few steps, and tells each finding when it first appears.

    Args:
        name: of the run.
        config: of the run, as in config.yaml.
        rows: metrics of steps that came before, where a run is continued; what they show was said then.
        clock: seconds.
    """

    def __init__(
        self,
        name: str,
        config: Mapping[str, Any],
        rows: Sequence[Mapping[str, Any]] = (),
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.name, self.config, self.rows, self.clock = name, config, list(rows), clock
        self.said: set[str] = set()
        self.began, self.spent = clock(), 0.0
        if self.rows:
            self._look()

    def step(self, row: Mapping[str, Any]) -> list[str]:
        """What to say after a step: a line for each finding that is new, or for a diagnosis that failed for the first time.

        Looks every tenth step (five times in a short run), and less often where looking would take more than 1 % of the
        run's time; at the last step in any case.
        """
        self.rows.append(row)
        now, steps = self.clock(), self.config.get("steps")
        last = isinstance(steps, int) and int(row["step"]) == steps
        every = max(1, min(EVERY, steps // 5)) if isinstance(steps, int) else EVERY
        if not last and (int(row["step"]) % every or self.spent > SHARE * (now - self.began)):
            return []
        lines = self._look()
        self.spent += self.clock() - now
        return lines

    def _look(self) -> list[str]:
        record = Record(self.name, self.config, self.rows, why_no_rollouts=_WAITING)
        findings, _, failures = diagnose(record, diagnoses("run"))
        new = [(finding.name, line(finding)) for finding in findings] + [(text, text) for text in failures]
        new = [(key, text) for key, text in new if key not in self.said]
        self.said |= {key for key, _ in new}
        return [f"doctor: {text}" for _, text in new]


def line(finding: Finding) -> str:
    """A finding in one line."""
    return f"{finding.severity}: {finding.what} [{finding.name}]; `cohort doctor` says more"
