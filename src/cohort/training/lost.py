"""Steps in which every episode failed: a run that has no environments any more ends, and says why."""

from __future__ import annotations

from dataclasses import dataclass

from cohort.errors import EnvironmentsFailed
from cohort.training.outcome import StepResult

# A server that starts again takes a step or two.
LIMIT = 3


@dataclass
class LostSteps:
    """Counts the last steps in a row whose episodes all failed."""

    count: int = 0

    def see(self, result: StepResult, step: int) -> None:
        """Take in a step.

        Raises:
            EnvironmentsFailed: it is the third in a row without an episode that did not fail.
        """
        lost = bool(result.rollouts) and all(rollout.status == "failed" for rollout in result.rollouts)
        self.count = self.count + 1 if lost else 0
        if self.count >= LIMIT:
            raise EnvironmentsFailed(
                f"every episode of {LIMIT} steps in a row failed, the last at step {step}: {result.rollouts[-1].error}. "
                "Nothing can be learnt without environments: mend them, and continue the run with --resume"
            )
