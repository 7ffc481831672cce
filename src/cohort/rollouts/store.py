"""Stored completions as rollouts, for offline training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from cohort.data.pairs import Preference
from cohort.errors import UsageError
from cohort.methods import BoundMethod
from cohort.seeds import generator
from cohort.types import Context, Prompt, Request, Rollout, Segment
from cohort.types.access import Notes

# The reward of a stored completion: its label.
LABEL = "label"
# Fields that only the policy's own sampling knows.
SAMPLED = frozenset({"sampler_logp", "old_entropy"})


@dataclass(frozen=True)
class Store:
    """Stored completions by the identity of their prompt."""

    preferences: Mapping[str, Preference]

    @classmethod
    def of(cls, preferences: Sequence[Preference]) -> Store:
        return cls({preference.prompt.id: preference for preference in preferences})

    @property
    def prompts(self) -> list[Prompt]:
        return [preference.prompt for preference in self.preferences.values()]

    def only(self, prompts: Sequence[Prompt]) -> Store:
        """Those of some prompts."""
        return Store({prompt.id: self.preferences[prompt.id] for prompt in prompts})

    @property
    def longest(self) -> int:
        """Tokens of the longest completion."""
        return max(len(each.tokens) for stored in self.preferences.values() for each in stored.completions)

    def rollouts(self, prompts: Sequence[Prompt]) -> list[Rollout]:
        """Their completions as rollouts of reward 1 or 0. They were not sampled: log-probabilities and entropies are NaN.

        The field `preference` is 1 for a good one and -1 for a bad one.
        """
        out = []
        for prompt in prompts:
            for place, written in enumerate(self.preferences[prompt.id].completions):
                request = Request(prompt, Context(prompt.tokens), 0, len(written.tokens))
                out.append(
                    Rollout(
                        request,
                        (Segment(tuple(written.tokens)),),
                        text=written.text,
                        id=f"{prompt.id}/{place}",
                        components={LABEL: written.label},
                        reward=written.label,
                        accuracy=written.label,
                        fields={"preference": 2 * written.label - 1},
                    )
                )
        return out

    def draw(self, count: int, *, seed: int, step: int) -> list[Rollout]:
        """The completions of a step (1, 2, ...), of `count` prompts: each once an epoch, in an order shuffled anew.

        It depends on seed and step alone, so that a run that is continued draws what it would have drawn.
        """
        prompts, size = self.prompts, len(self.preferences)
        places = range((step - 1) * count, step * count)
        orders = {
            epoch: torch.randperm(size, generator=generator(seed, "pairs", epoch)).tolist()
            for epoch in {place // size for place in places}
        }
        rows = dict.fromkeys(orders[place // size][place % size] for place in places)
        return self.rollouts([prompts[row] for row in rows])

    def collect(
        self,
        method: BoundMethod,
        prompts: Sequence[Prompt],
        counts: Sequence[int],
        *,
        seed: int,
        first: Sequence[int] = (),
        notes: Sequence[Notes] = (),
        waiting: Sequence[Rollout] = (),
    ) -> list[Rollout]:
        """All stored completions of the prompts, however many were asked for; none where they were given before."""
        return [] if any(first) else self.rollouts(prompts)

    def states(self, contexts: Sequence[Sequence[int]], *, layer: int = -1) -> list[torch.Tensor]:
        """Raises UsageError: there is no policy behind stored completions."""
        raise UsageError(
            "the method chooses prompts by the policy's hidden states, and offline training samples nothing"
        )

    def take_tokens(self) -> int:
        """None are sampled."""
        return 0
