"""Sources of a step's rollouts: sampled now, stored in a file, kept from earlier steps, or several of these.

The loop asks its source for the rollouts of a step, and knows nothing else of their origin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch

from cohort.methods import BoundMethod, Method
from cohort.rewards.judge import ask
from cohort.rollouts.keeping import restored, stored
from cohort.rollouts.refill import refill
from cohort.rollouts.store import Store
from cohort.seeds import derive, generator
from cohort.types import Batch, Group, Prompt, Rollout, StepInfo, grouped
from cohort.types.access import Notes, Pool
from cohort.types.declare import State


class Reader(Protocol):
    """Makes the batch that a filter reads of rollouts, and applies the filters before the advantage."""

    def scored(self, method: BoundMethod, rollouts: Sequence[Rollout]) -> Batch:
        """The batch of rollouts with rewards, with the fields that the method makes of them."""
        ...

    def passing(self, method: BoundMethod, batch: Batch, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """The rollouts of such a batch that the filters before the advantage keep."""
        ...


@dataclass(frozen=True)
class Drawn:
    """The rollouts that a source gives for a step.

    Attributes:
        rollouts: all rollouts of the step, those without a reward included.
        chosen: the rollouts with a reward of the groups to train on, `replayed` ones included; the rollouts of one prompt are
            a group.
        states: the method's states, with that of its curriculum advanced.
        auxiliary: completions that are trained on as well, stored ones or what a method's guidance made. They belong to no
            group that is compared: functions that declare so (`auxiliary`) read them.
        tokens: number of tokens that were sampled, those of rollouts that are not among `rollouts` included.
        replayed: rollouts of earlier steps that are trained on again, or of other runs; they are not among `rollouts`, which
            the step is measured and recorded by.
        metrics: name -> what the source reports for the log.
        notes: what the user should know.
        mismatch: mean and largest difference between the engine's log-probabilities and the trainer's for the weights that
            drew, where a source knows it; None leaves it to the first pass over rollouts that the step's own weights drew.
        scored_batch: all `rollouts` with a reward as a batch with the fields of `on_scored`, where a filter needed it already;
            None where it is still to be made.
    """

    rollouts: list[Rollout]
    chosen: list[Rollout]
    states: Mapping[str, State]
    auxiliary: list[Rollout] = field(default_factory=list)
    tokens: int = 0
    replayed: list[Rollout] = field(default_factory=list)
    scored_batch: Batch | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()
    mismatch: tuple[float, float] | None = None

    @property
    def scored(self) -> list[Rollout]:
        """The rollouts with a reward."""
        return [rollout for rollout in self.rollouts if rollout.scored]


class RolloutSource(Protocol):
    """Gives the rollouts of each step."""

    def next(self, info: StepInfo, states: Mapping[str, State]) -> Drawn:
        """The rollouts of a step.

        Args:
            info: where the run stands.
            states: the method's states.
        """
        ...

    def release(self, rollouts: Sequence[Rollout]) -> None:
        """Called when `rollouts` have been trained on and the engine has the new weights."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold so that a resumed run gets the rollouts that it would have got."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        ...


def snapshot(source: RolloutSource) -> Any:
    """What brings a source back to where it is: a snapshot of its own making where it has a method for that, else its state."""
    own: Callable[[], Any] | None = getattr(source, "snapshot", None)
    return source.state_dict() if own is None else own()


def restore(source: RolloutSource, held: Any) -> None:
    """Bring a source back to where it was at a snapshot."""
    own: Callable[[Any], None] | None = getattr(source, "restore", None)
    if own is None:
        source.load_state_dict(held)
    else:
        own(held)


class Draws(Protocol):
    """Gives rollouts of prompts: samples them, or reads them from a store."""

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
        """Rollouts of prompts, those without a reward included; of each prompt as many as `counts` says, where they are
        sampled.

        Args:
            first: how many rollouts each prompt got with this seed before; none by default.
            notes: for each prompt, what its requests carry as `meta`.
            waiting: rollouts of earlier steps that are gone on with first.
        """
        ...

    def states(self, contexts: Sequence[Sequence[int]], *, layer: int = -1) -> list[torch.Tensor]:
        """The policy's hidden states [C, d] of a layer at every token of each context."""
        ...

    def take_tokens(self) -> int:
        """Tokens sampled since the last call."""
        ...


class Stateless:
    """A source without a state: the run's seed and the step fix what it gives."""

    def release(self, rollouts: Sequence[Rollout]) -> None:
        """Does nothing."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Does nothing: there is no state."""


@dataclass
class Sync(Stateless):
    """Rollouts sampled synchronously, of the prompts that the method's curriculum picks.

    Where a filter refills (dynamic sampling), further prompts are picked in place of those whose groups it removed.

    Attributes:
        draws: samples the rollouts, or reads them from a store.
        prompts: the rows of the data set.
        reader: applies the filters between rounds of sampling.
        prompts_per_step, group_size: prompts of a step, and rollouts of each prompt where the budget is equal.
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
        # Groups are filtered here only where another round of sampling can replace those that are removed.
        filters = most > 1 and any(not stage.declared.after_advantage for stage in self.method.filter)
        now = self.method.bind(states, info)
        looked: list[Batch] = []
        apart: list[Rollout] = []
        kept_so_far = 0

        def rounds() -> Iterator[list[Group]]:
            nonlocal now
            number = 0
            while True:
                seed = derive(info.seed, info.step + 1, number)
                pool = self.pool(info, seed)
                rows, states, notes = now.pick(
                    count=self.prompts_per_step - kept_so_far, rng=generator(seed, "curriculum"), pool=pool
                )
                now = now.with_states(states)
                groups, more = self.groups(now, rows, notes, pool, seed)
                apart.extend(more)
                yield groups
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

        share = self.method.refill_share if filters else 1.0
        drawn = refill(rounds(), keep, target=self.prompts_per_step, max_rounds=most, share=share)
        everything = [rollout for groups in drawn.rounds for group in groups for rollout in group.rollouts]
        picked = [drawn.rounds[at][place] for at, place in drawn.chosen]
        chosen = [rollout for group in picked for rollout in group.rollouts if rollout.scored]
        scored_batch = looked[0] if len(looked) == 1 else None
        return Drawn(everything, chosen, now.states, apart, self.draws.take_tokens(), scored_batch=scored_batch)

    def pool(self, info: StepInfo, seed: int) -> Pool:
        """The data set as curriculum and budget see it in a round."""

        def draw(rows: torch.Tensor, count: int) -> list[Rollout]:
            prompts = [self.prompts[row] for row in rows.tolist()]
            plain = Method().bind(info=info)
            drawn = self.draws.collect(plain, prompts, [count] * len(prompts), seed=derive(seed, "pool"))
            return [rollout for rollout in drawn if rollout.scored]

        return Pool(self.prompts, draw, self.draws.states, ask)

    def groups(
        self,
        method: BoundMethod,
        rows: torch.Tensor,
        notes: Notes,
        pool: Pool,
        seed: int,
        waiting: Sequence[Rollout] = (),
    ) -> tuple[list[Group], list[Rollout]]:
        """The groups of a round: rollouts that were waiting, and those of rows [count] of the data set and what was noted of
        each; and the rollouts that belong to none."""
        noted: dict[int, list[Mapping[str, Any]]] = {}
        for row, note in zip(rows.tolist(), notes or [{}] * rows.numel(), strict=True):
            noted.setdefault(row, []).append(note)
        # A prompt drawn twice in a round is one larger group.
        rows, times = torch.unique(rows, return_counts=True)
        prompts = [self.prompts[row] for row in rows.tolist()]
        given = torch.zeros_like(times)
        rollouts: list[Rollout] = []
        while True:
            drawn = {group.prompt.id: group.rollouts for group in grouped(r for r in rollouts if not r.auxiliary)}
            counts, more = method.budget(
                rows,
                group_size=self.group_size,
                pool=pool,
                drawn=[drawn.get(prompt.id, ()) for prompt in prompts],
                given=given,
                total=self.group_size * int(times.sum()),
            )
            # One that hands out rounds knows what it has to give.
            counts = counts if method.in_rounds else counts * times
            if not (waiting or bool(counts.any())):
                return _apart(rollouts)
            added = more or [{}] * len(prompts)
            rollouts += self.draws.collect(
                method,
                prompts,
                counts.tolist(),
                seed=seed,
                first=given.tolist(),
                notes=[[{**n, **extra} for n in noted[row]] for row, extra in zip(rows.tolist(), added, strict=True)],
                waiting=waiting,
            )
            waiting = ()
            given = given + counts
            if not method.in_rounds:
                return _apart(rollouts)


def _apart(rollouts: Sequence[Rollout]) -> tuple[list[Group], list[Rollout]]:
    """The groups of rollouts, and those that belong to none."""
    return grouped(r for r in rollouts if not r.auxiliary), [r for r in rollouts if r.auxiliary]


@dataclass
class Stored(Sync):
    """Stored completions, for offline training, of the prompts that the method's curriculum picks: `draws` reads them."""


@dataclass
class Auxiliary(Stateless):
    """Stored completions that are trained on together with a step's rollouts: those of `count` prompts, each prompt once an
    epoch."""

    store: Store
    count: int

    def next(self, info: StepInfo, states: Mapping[str, State]) -> Drawn:
        """The stored completions of the step; see `RolloutSource.next`."""
        return Drawn([], [], states, auxiliary=self.store.draw(self.count, seed=info.seed, step=info.step + 1))


@dataclass
class Mixed:
    """The rollouts of several sources in one step, those of the first source first."""

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
                whole.auxiliary + drawn.auxiliary,
                whole.tokens + drawn.tokens,
                whole.replayed + drawn.replayed,
                # One source's batch is that of the step where no other source gives rollouts.
                scored_batch=drawn.scored_batch
                if not whole.rollouts
                else whole.scored_batch
                if not drawn.rollouts
                else None,
                metrics={**whole.metrics, **drawn.metrics},
                notes=[*whole.notes, *drawn.notes],
                mismatch=drawn.mismatch or whole.mismatch,
            )
        return whole

    def release(self, rollouts: Sequence[Rollout]) -> None:
        """Passed on to every source."""
        for source in self.sources:
            source.release(rollouts)

    def snapshot(self) -> Any:
        return [snapshot(source) for source in self.sources]

    def restore(self, held: Any) -> None:
        for source, own in zip(self.sources, held, strict=True):
            restore(source, own)

    def state_dict(self) -> dict[str, Any]:
        return {"sources": [source.state_dict() for source in self.sources]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for source, own in zip(self.sources, state.get("sources", ()), strict=False):
            source.load_state_dict(own)


@dataclass
class Replayed:
    """The groups of a source, and some groups of earlier steps: replay from a buffer.

    Replayed rollouts keep the log-probabilities and the versions with which they were sampled, by which a correction weighs
    them. A prompt that the step has sampled anew is not replayed in it.

    Attributes:
        count: groups that are replayed in each step.
        most: size of the buffer in groups; the oldest leave it first.
        prompts: prompt id -> prompt of the data set.
    """

    source: RolloutSource
    count: int
    most: int
    prompts: Mapping[str, Prompt]
    held: list[Group] = field(default_factory=list)
    _drawn: list[Group] = field(default_factory=list)

    def next(self, info: StepInfo, states: Mapping[str, State]) -> Drawn:
        """The groups of the source, then those that are replayed; see `RolloutSource.next`."""
        drawn = self.source.next(info, states)
        fresh = {rollout.prompt.id for rollout in [*drawn.rollouts, *drawn.replayed]}
        others = [group for group in self.held if group.prompt.id not in fresh]
        order = torch.randperm(len(others), generator=generator(info.seed, info.step + 1, "replay"))
        # One group of each prompt.
        picked = list({others[i].prompt.id: others[i] for i in order.tolist()}.values())[: self.count]
        again = [rollout for group in picked for rollout in group.rollouts]
        self._drawn = grouped(drawn.chosen)
        return replace(drawn, chosen=drawn.chosen + again, replayed=drawn.replayed + again)

    def release(self, rollouts: Sequence[Rollout]) -> None:
        """Put the step's own groups into the buffer."""
        self.held = [*self.held, *self._drawn][-self.most :]
        self._drawn = []
        self.source.release(rollouts)

    def snapshot(self) -> Any:
        """What `restore` takes back; it costs nothing, since groups do not change."""
        return self.held, self._drawn, snapshot(self.source)

    def restore(self, held: Any) -> None:
        """Be what the source was at a snapshot."""
        self.held, self._drawn, inner = held
        restore(self.source, inner)

    def state_dict(self) -> dict[str, Any]:
        """The buffer, and the state of the source."""
        return {
            "held": [[stored(rollout) for rollout in group.rollouts] for group in self.held],
            "source": self.source.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the groups whose prompts are still in the data."""
        self.held = [
            Group(
                self.prompts[group[0]["prompt"]], tuple(restored(each, self.prompts[each["prompt"]]) for each in group)
            )
            for group in state.get("held", ())
            if group[0]["prompt"] in self.prompts
        ]
        self.source.load_state_dict(state.get("source", {}))
