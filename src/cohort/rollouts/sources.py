"""Where a step's rollouts come from: sampled now, stored by somebody, kept from earlier steps, or several of these.

The loop asks its source for the rollouts of a step and knows no more of where they come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch

from cohort.methods import BoundMethod, Method
from cohort.rollouts.keeping import restored, stored
from cohort.rollouts.refill import refill
from cohort.rollouts.store import Store
from cohort.seeds import derive, generator
from cohort.types import Batch, Group, Prompt, Rollout, StepInfo, grouped
from cohort.types.declare import State


class Reader(Protocol):
    """Makes of rollouts what a filter reads, and says which it leaves."""

    def scored(self, method: BoundMethod, rollouts: Sequence[Rollout]) -> Batch:
        """The batch of rollouts with rewards, with the fields that the method makes of them."""
        ...

    def passing(self, method: BoundMethod, batch: Batch, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """Of the rollouts of such a batch, those that the filters before the advantage leave."""
        ...


@dataclass(frozen=True)
class Drawn:
    """What a source gives for a step.

    Attributes:
        rollouts: all that there are, those without a reward included.
        chosen: those with a reward, of the groups to train on; rollouts of one prompt are a group.
        states: of the method, with its curriculum's advanced.
        beside: completions to train on that are compared with nothing: the method's objective reads their labels.
        tokens: that were sampled for it, those of rollouts that are not among these included.
        replayed: how many of `rollouts`, the last ones, were drawn at earlier steps.
        seen: the batch of all rollouts with a reward, where a filter has already looked at them in a single round.
    """

    rollouts: list[Rollout]
    chosen: list[Rollout]
    states: Mapping[str, State]
    beside: list[Rollout] = field(default_factory=list)
    tokens: int = 0
    replayed: int = 0
    seen: Batch | None = None

    @property
    def scored(self) -> list[Rollout]:
        """Those with a reward."""
        return [rollout for rollout in self.rollouts if rollout.scored]


class RolloutSource(Protocol):
    """Gives the rollouts of each step."""

    def next(self, info: StepInfo, states: Mapping[str, State]) -> Drawn:
        """The rollouts of a step.

        Args:
            info: of the step that begins.
            states: of the method.
        """
        ...

    def release(self, rollouts: Sequence[Rollout]) -> None:
        """The rollouts have been trained on, and the weights published: others may take their place."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold so that the source goes on as it would have."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        ...


class Draws(Protocol):
    """Draws or finds rollouts of prompts."""

    def collect(
        self, method: BoundMethod, prompts: Sequence[Prompt], counts: Sequence[int], *, seed: int
    ) -> list[Rollout]:
        """Rollouts of prompts, with those without a reward; `counts` of each where they are drawn."""
        ...

    def take_tokens(self) -> int:
        """Tokens sampled since the last call."""
        ...


class Stateless:
    """A source that goes on from seed and step alone."""

    def release(self, rollouts: Sequence[Rollout]) -> None:
        """Nothing waits for it."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """There is nothing to take over."""


@dataclass
class Sync(Stateless):
    """Rollouts that are drawn while the step waits, of the prompts that the method's curriculum picks.

    Where a filter refills, prompts are picked again in place of those whose groups it removed.

    Attributes:
        draws: draws rollouts, or has them in store.
        prompts: rows of the data set.
        reader: asked where a filter refills.
        prompts_per_step, group_size: how many prompts a step, and rollouts of each where the budget is equal.
    """

    method: Method
    draws: Draws
    prompts: Sequence[Prompt]
    reader: Reader
    prompts_per_step: int
    group_size: int

    def next(self, info: StepInfo, states: Mapping[str, State]) -> Drawn:
        """The groups of the step; see `RolloutSource.next`."""
        most = self.method.refill_rounds
        # Without a second round there is nothing to decide yet.
        filters = most > 1 and any(not stage.declared.after_advantage for stage in self.method.filter)
        now = self.method.bind(states, info)
        looked: list[Batch] = []
        kept_so_far = 0

        def rounds() -> Iterator[list[Group]]:
            nonlocal now
            number = 0
            while True:
                seed = derive(info.seed, info.step + 1, number)
                rows, states = now.pick(count=self.prompts_per_step - kept_so_far, rng=generator(seed, "curriculum"))
                now = self.method.bind(states, info)
                yield self._groups(now, rows, seed)
                number += 1

        def keep(groups: Sequence[Group]) -> list[bool]:
            nonlocal kept_so_far
            if not filters:
                return [True] * len(groups)
            scored = [rollout for group in groups for rollout in group.rollouts if rollout.scored]
            looked.append(self.reader.scored(now, scored))
            wanted = {rollout.prompt.id for rollout in self.reader.passing(now, looked[-1], scored)}
            flags = [group.prompt.id in wanted for group in groups]
            kept_so_far += sum(flags)
            return flags

        drawn = refill(rounds(), keep, target=self.prompts_per_step, max_rounds=most)
        everything = [rollout for groups in drawn.rounds for group in groups for rollout in group.rollouts]
        picked = [drawn.rounds[at][place] for at, place in drawn.chosen]
        chosen = [rollout for group in picked for rollout in group.rollouts if rollout.scored]
        seen = looked[0] if len(looked) == 1 else None
        return Drawn(everything, chosen, now.states, tokens=self.draws.take_tokens(), seen=seen)

    def _groups(self, method: BoundMethod, rows: torch.Tensor, seed: int) -> list[Group]:
        """The groups of a round, of rows [count] of the data set."""
        # A prompt drawn twice in a round is one larger group.
        rows, times = torch.unique(rows, return_counts=True)
        counts = method.budget(rows, group_size=self.group_size) * times
        prompts = [self.prompts[row] for row in rows.tolist()]
        return grouped(self.draws.collect(method, prompts, counts.tolist(), seed=seed))


@dataclass
class Stored(Sync):
    """Completions that somebody else wrote, of the prompts that the method's curriculum picks: `draws` has them in store."""


@dataclass
class Beside(Stateless):
    """Stored completions that stand beside a step's rollouts: of `count` prompts, each once an epoch."""

    store: Store
    count: int

    def next(self, info: StepInfo, states: Mapping[str, State]) -> Drawn:
        """The completions of the step; see `RolloutSource.next`."""
        return Drawn([], [], states, beside=self.store.draw(self.count, seed=info.seed, step=info.step + 1))


@dataclass
class Mixed:
    """The rollouts of several sources in one step, those of the first in front."""

    sources: Sequence[RolloutSource]

    def next(self, info: StepInfo, states: Mapping[str, State]) -> Drawn:
        """The rollouts of all of them; see `RolloutSource.next`."""
        whole = Drawn([], [], states)
        for source in self.sources:
            drawn = source.next(info, whole.states)
            whole = Drawn(
                whole.rollouts + drawn.rollouts,
                whole.chosen + drawn.chosen,
                drawn.states,
                whole.beside + drawn.beside,
                whole.tokens + drawn.tokens,
                whole.replayed + drawn.replayed,
                # What a filter saw is all that there is where the other sources give nothing to compare.
                seen=drawn.seen if not whole.rollouts else whole.seen if not drawn.rollouts else None,
            )
        return whole

    def release(self, rollouts: Sequence[Rollout]) -> None:
        """Told to all of them."""
        for source in self.sources:
            source.release(rollouts)

    def state_dict(self) -> dict[str, Any]:
        return {"sources": [source.state_dict() for source in self.sources]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for source, own in zip(self.sources, state.get("sources", ()), strict=False):
            source.load_state_dict(own)


@dataclass
class Replayed:
    """The groups of a source, and some of earlier steps once more, as they were drawn: their segments say by which weights.

    Groups of prompts that the step has drawn anew are not repeated in it.

    Attributes:
        count: groups of earlier steps in each step.
        most: groups that are kept; the oldest leave.
        prompts: of the data set, by identity.
    """

    source: RolloutSource
    count: int
    most: int
    prompts: Mapping[str, Prompt]
    held: list[Group] = field(default_factory=list)
    _drawn: list[Group] = field(default_factory=list)

    def next(self, info: StepInfo, states: Mapping[str, State]) -> Drawn:
        """The groups of the source, then those that are repeated; see `RolloutSource.next`."""
        drawn = self.source.next(info, states)
        fresh = {rollout.prompt.id for rollout in drawn.rollouts}
        others = [group for group in self.held if group.prompt.id not in fresh]
        order = torch.randperm(len(others), generator=generator(info.seed, info.step + 1, "replay"))
        # Of a prompt that is kept twice, one.
        picked = list({others[i].prompt.id: others[i] for i in order.tolist()}.values())[: self.count]
        again = [rollout for group in picked for rollout in group.rollouts]
        self._drawn = grouped(drawn.chosen)
        return replace(
            drawn,
            rollouts=drawn.rollouts + again,
            chosen=drawn.chosen + again,
            replayed=drawn.replayed + len(again),
            seen=None if again else drawn.seen,
        )

    def release(self, rollouts: Sequence[Rollout]) -> None:
        """Keep the step's own groups."""
        self.held = [*self.held, *self._drawn][-self.most :]
        self._drawn = []
        self.source.release(rollouts)

    def state_dict(self) -> dict[str, Any]:
        """The groups that are kept."""
        return {
            "held": [[stored(rollout) for rollout in group.rollouts] for group in self.held],
            "source": self.source.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over groups whose prompts are still in the data."""
        self.held = [
            Group(
                self.prompts[group[0]["prompt"]], tuple(restored(each, self.prompts[each["prompt"]]) for each in group)
            )
            for group in state.get("held", ())
            if group[0]["prompt"] in self.prompts
        ]
        self.source.load_state_dict(state.get("source", {}))
