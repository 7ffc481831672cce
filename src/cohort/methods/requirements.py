"""What a method needs of the run: fields, columns, rewards, functions of the user's, models in roles, groups."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from cohort.methods.axis import AXES, DRAWING_AXES, LOSS_AXES
from cohort.methods.stage import Stage, parameters
from cohort.types.declare import State


class Requirements(ABC):
    """What follows from the declarations of a method's functions."""

    @cached_property
    def keyed(self) -> tuple[tuple[str, str, Stage], ...]:
        """(key of its state, axis, function) of everything that runs in a step."""
        seen: dict[str, int] = {}
        out = []
        for axis, stage in self.stages():
            key = f"{axis}/{stage.name}"
            seen[key] = seen.get(key, 0) + 1
            out.append((key if seen[key] == 1 else f"{key}/{seen[key]}", axis, stage))
        return tuple(out)

    def init(self, *, size: int, steps: int = 1, rows: Sequence[Mapping[str, Any]] = ()) -> dict[str, State]:
        """States at the start of a run of `steps` steps on a data set of `size` prompts, whose columns `rows` holds."""
        return {
            key: stage.bind_hook("init", size=size, steps=steps, rows=rows)()
            for key, _, stage in self.keyed
            if stage.declared.init is not None
        }

    @property
    def by_prompt(self) -> frozenset[str]:
        """Keys of the states that are made for the rows of a data set."""
        inits = {key: stage.declared.init for key, _, stage in self.keyed}
        return frozenset(
            key for key, init in inits.items() if init is not None and {"size", "rows"} & {*parameters(init)}
        )

    @property
    def refill_rounds(self) -> int:
        """Most rounds of sampling a step."""
        return max((stage.refill_rounds for axis, stage in self.stages() if axis == "filter"), default=1)

    @property
    def refill_share(self) -> float:
        """Share of a step's groups that the filters have to leave before sampling ends; 1 unless what they remove fills up."""
        shares = [stage.refill_share for axis, stage in self.stages() if axis == "filter" and stage.declared.refill]
        known = [share for share in shares if share is not None]
        return max(known) if known and len(known) == len(shares) else 1.0

    @abstractmethod
    def stages(self) -> list[tuple[str, Stage]]:
        """(axis, function) of everything that runs in a step, defaults included, in the order of the step."""

    @property
    @abstractmethod
    def filled(self) -> tuple[str, ...]:
        """The axes that the method fills with something else than the default."""

    def needs(self, *, loss: bool) -> frozenset[str]:
        """Fields that the functions read: those of the loss axes, or those of the axes before the update."""
        here = [(axis, stage) for axis, stage in self.stages() if (axis in LOSS_AXES) == loss]
        return frozenset(n for axis, stage in here for n in AXES[axis].needs | stage.needs)

    @property
    def couples(self) -> bool:
        """True if the loss of a minibatch is not the sum of the losses of its rollouts."""
        return any(axis == "objective" or stage.declared.couples for axis, stage in self.stages())

    @property
    def provides(self) -> frozenset[str]:
        """Fields that the method makes for itself: in its rollouts, or with an `on_scored` hook."""
        return frozenset(name for _, stage in self.stages() for name in stage.declared.provides)

    @property
    def drawn(self) -> frozenset[str]:
        """Fields that the method's sampling or guidance puts into its rollouts."""
        drawing = (stage for axis, stage in self.stages() if axis in DRAWING_AXES)
        return frozenset(name for stage in drawing for name in stage.declared.provides)

    @property
    def columns(self) -> dict[str, str]:
        """Columns that every row of the data set must have -> the function that reads it."""
        return self._named("columns")

    @property
    def sparse_columns(self) -> dict[str, str]:
        """Columns that some row of the data set must have -> the function that reads it."""
        return self._named("sparse_columns")

    @property
    def components(self) -> dict[str, str]:
        """Rewards that the run must have -> the function that reads it."""
        return self._named("components")

    def _named(self, kind: str) -> dict[str, str]:
        """What the hyperparameters that are declared as such name -> the function that has the hyperparameter."""
        stages = [stage for _, stage in self.stages()]
        named = ((stage.all_hyper[key], stage.name) for stage in stages for key in getattr(stage.declared, kind))
        several = ((each if isinstance(each, tuple) else (each,), reader) for each, reader in named)
        return {str(name): reader for names, reader in several for name in names if name is not None}

    @property
    def functions(self) -> list[tuple[str, str, str, Any]]:
        """(axis function, hyperparameter, how it is called, its value) of what the user writes for the method."""
        return [
            (stage.name, name, call, stage.hyper.get(name))
            for _, stage in self.stages()
            for name, call in stage.declared.functions.items()
            if stage.hyper.get(name) is not None or not stage.has_default(name)
        ]

    @property
    def offline(self) -> bool:
        """True if the method can learn from stored completions."""
        return any(stage.declared.offline for _, stage in self.stages())

    def on_policy(self, *, corrected: bool) -> list[tuple[str, str, str]]:
        """(method that it came with, function, why) of what needs rollouts that the weights which are updated drew.

        Args:
            corrected: token losses are weighted from the policy that drew to the one that is trained.
        """
        asked = [stage for axis, stage in self.stages() if axis != "ratio" or not corrected]
        return [(stage.source, stage.name, stage.declared.on_policy) for stage in asked if stage.declared.on_policy]

    @property
    def waits(self) -> bool:
        """True if its sampling may leave rollouts that go on in a later step."""
        return any(stage.declared.waits for _, stage in self.stages())

    @property
    def teacher(self) -> Mapping[str, Any] | None:
        """Hyperparameters of the slowly moving copy of the policy that the method needs; None if it needs none."""
        stage = next((stage for _, stage in self.stages() if stage.declared.teacher), None)
        return None if stage is None else stage.all_hyper

    @property
    def group_size(self) -> int:
        """The smallest group with which the method makes sense."""
        return self.least_group(AXES)

    def least_group(self, axes: Iterable[str]) -> int:
        """The smallest group with which the functions of some axes make sense.

        An objective takes no advantage that the method does not fill, so the default advantage then asks for no group.
        """
        stages = self.stages()
        unread = {"advantage"} - {*self.filled} if any(axis == "objective" for axis, _ in stages) else set()
        return max(stage.group_size for axis, stage in stages if axis in axes and axis not in unread)
