"""Rollouts that are drawn in windows: what is not over when a step's window is, goes on in the next step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from cohort.rollouts.keeping import restored, stored
from cohort.rollouts.sources import Drawn, Sync
from cohort.seeds import derive, generator
from cohort.types import Rollout, StepInfo
from cohort.types.access import Notes
from cohort.types.declare import State


@dataclass
class Rolling(Sync):
    """A rolling batch: rollouts that wait go on, and prompts that the curriculum picks begin where there is room for them.

    There are `prompts_per_step` times `group_size` slots; a prompt begins when there is room for all its rollouts.

    Attributes:
        waiting: rollouts that go on in the next step.
    """

    waiting: list[Rollout] = field(default_factory=list)
    _drawn: list[Rollout] = field(default_factory=list)

    def next(self, info: StepInfo, states: Mapping[str, State]) -> Drawn:
        """The rollouts of the step's window; see `RolloutSource.next`."""
        method, seed = self.method.bind(states, info), derive(info.seed, info.step + 1, 0)
        pool = self.pool(info, seed)
        rows: torch.Tensor = torch.empty(0, dtype=torch.int64)
        notes: Notes = ()
        count = (self.prompts_per_step * self.group_size - len(self.waiting)) // self.group_size
        if count:
            rows, states, notes = method.pick(count=count, rng=generator(seed, "curriculum"), pool=pool)
            method = method.with_states(states)
        groups, apart = self.groups(method, rows, notes, pool, seed, self.waiting)
        everything = [rollout for group in groups for rollout in group.rollouts]
        self._drawn = [rollout for rollout in everything if rollout.waits]
        chosen = [rollout for rollout in everything if rollout.scored]
        return Drawn(everything, chosen, method.states, apart, self.draws.take_tokens())

    def release(self, rollouts: Sequence[Rollout]) -> None:
        """The step is over: what waits in it goes on in the next one."""
        self.waiting, self._drawn = self._drawn, []

    def snapshot(self) -> Any:
        """What `restore` takes back; it costs nothing, since rollouts do not change."""
        return self.waiting, self._drawn

    def restore(self, held: Any) -> None:
        """Be what the source was at a snapshot."""
        self.waiting, self._drawn = held

    def state_dict(self) -> dict[str, Any]:
        """The rollouts that wait."""
        return {"waiting": [stored(rollout) for rollout in self.waiting]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over those of prompts that are still in the data."""
        prompts = {prompt.id: prompt for prompt in self.prompts}
        held = [each for each in state.get("waiting", ()) if each["prompt"] in prompts]
        self.waiting = [restored(each, prompts[each["prompt"]]) for each in held]
