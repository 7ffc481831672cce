"""The factory of environments that live in processes of their own."""

from __future__ import annotations

from collections.abc import Sequence

from cohort.environments.factory import EnvironmentFactory
from cohort.environments.pool import Pool
from cohort.environments.remote import Remote
from cohort.environments.spec import Offer
from cohort.rewards.grader import Grader
from cohort.types import Prompt


class Apart(EnvironmentFactory):
    """Environments in the processes of a pool.

    Args:
        offer: what the pool's `start` gave.
    """

    def __init__(self, grader: Grader, pool: Pool, offer: Offer) -> None:
        self.pool = pool
        self.components, self.turns, self.rewards = offer.components, offer.turns, offer.rewards
        self.finishes, self.lends = offer.finishes, grader.lends
        super().__init__(grader)

    @property
    def names(self) -> tuple[str, ...]:
        """See EnvironmentFactory; none where the environments give no reward."""
        return super().names if self.rewards else ()

    def make(self, prompt: Prompt, n: int) -> Sequence[Remote]:
        """See EnvironmentFactory."""
        return [Remote(self.pool) for _ in range(n)]

    def printed(self) -> str:
        """See EnvironmentFactory."""
        return self.pool.printed()

    def close(self) -> None:
        """End the processes."""
        self.pool.close()
