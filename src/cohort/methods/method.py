"""A method fills axes of the training step with functions; methods compose.

    method("dapo") | method("gdpo") | method("sage")

On an axis that takes many functions they append; on an axis that takes one, two different fillings are a conflict that
names the axis and both methods. An axis left alone keeps its default; the defaults together are
GRPO without a KL term.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cohort.methods.axis import AXES, MANY, ONE, Slots
from cohort.methods.execution import BoundMethod
from cohort.methods.requirements import Requirements
from cohort.methods.stage import ConflictError, MethodError, Stage
from cohort.types import StepInfo
from cohort.types.declare import State


def default_of(axis: str) -> Stage:
    """The default function of an axis.

    Raises:
        MethodError: the axis has none.
    """
    default = AXES[axis].default
    if default is None:
        raise MethodError(f"the axis '{axis}' has no default")
    return default


def _same_as_default(axis: str, stage: Stage) -> bool:
    default = AXES[axis].default
    return default is not None and stage.fn is default.fn and stage.all_hyper == default.all_hyper


@dataclass(frozen=True)
class Method(Slots, Requirements):
    """Functions for the axes of the training step; None or () leaves an axis at its default.

    Attributes:
        name: how it was asked for, as in "dapo+gdpo".
        requires: what the method needs that is not built yet ("sampling", "vision"); such a method refuses to train.
    """

    name: str = ""
    requires: str = ""

    def __post_init__(self) -> None:
        for axis in ONE:
            stage = getattr(self, axis)
            if isinstance(stage, (list, tuple)) or not (stage is None or isinstance(stage, Stage)):
                raise MethodError(f"axis '{axis}' takes one function, as use(function, ...); got {stage!r}")
        for axis in MANY:
            stages = getattr(self, axis)
            if isinstance(stages, Stage) or not all(isinstance(s, Stage) for s in stages):
                raise MethodError(f"axis '{axis}' takes a tuple of functions, as (use(function, ...),); got {stages!r}")
            object.__setattr__(self, axis, tuple(stages))
        if self.objective is not None:
            for axis in ("ratio", "surrogate"):
                if getattr(self, axis) is not None:
                    raise MethodError(f"an objective replaces ratio and surrogate, but '{axis}' is filled as well")
            if self.correction:
                raise MethodError(
                    f"a correction ({self.correction[0].name}) weighs token losses, but an objective "
                    f"({self.objective.name}) has none: leave the axis 'correction' or the 'objective' alone"
                )

    # composition ---------------------------------------------------------------------------------------------------

    def named(self, name: str) -> Method:
        """The same method under a name, which its functions carry as their source."""
        changes: dict[str, Any] = {"name": name}
        for axis in AXES:
            value = getattr(self, axis)
            if isinstance(value, Stage):
                changes[axis] = replace(value, source=name)
            elif value:
                changes[axis] = tuple(replace(stage, source=name) for stage in value)
        return replace(self, **changes)

    @property
    def filled(self) -> tuple[str, ...]:
        """The axes that the method fills with something else than the default."""
        return tuple(
            axis
            for axis in AXES
            if (stage := getattr(self, axis)) and not (isinstance(stage, Stage) and _same_as_default(axis, stage))
        )

    def __or__(self, other: Method) -> Method:
        """Compose: 'many' axes append, 'one' axes must not be filled twice.

        Raises:
            ConflictError: names the axis and both methods, and how to pick one.
        """
        changes: dict[str, Any] = {}
        for axis in ONE:
            mine, theirs = getattr(self, axis), getattr(other, axis)
            if theirs is None or mine == theirs or (mine is not None and _same_as_default(axis, theirs)):
                changes[axis] = mine
            elif mine is None or _same_as_default(axis, mine):
                changes[axis] = theirs
            else:
                raise _conflict(axis, mine, theirs)
        for axis in MANY:
            changes[axis] = _union(getattr(self, axis) + getattr(other, axis))
        if changes["objective"] is not None:
            for axis in ("ratio", "surrogate"):
                stage = changes[axis]
                if stage is not None and not _same_as_default(axis, stage):
                    raise _conflict("objective", changes["objective"], stage, replaced=axis)
                changes[axis] = None
            if changes["correction"]:
                raise _conflict("objective", changes["objective"], changes["correction"][0], replaced="correction")
        name = "+".join(n for n in (self.name, other.name) if n)
        requires = ", ".join(_union(tuple(x for x in (self.requires, other.requires) if x)))
        return Method(**changes, name=name, requires=requires)

    def only(self, axes: Iterable[str]) -> Method:
        """The method with all other axes left alone.

        Raises:
            MethodError: no such axis, or the method does not fill it.
        """
        axes = tuple(axes)
        for axis in axes:
            if axis not in AXES:
                raise MethodError(f"there is no axis '{axis}' (axes: {', '.join(AXES)})")
            if not getattr(self, axis):
                raise MethodError(f"'{self.name}' does not fill the axis '{axis}' (it fills: {', '.join(self.filled)})")
        return Method(**{axis: getattr(self, axis) for axis in axes}, name=f"{self.name}:{','.join(axes)}")

    def without(self, axes: Iterable[str]) -> Method:
        """The method with some axes left alone."""
        axes = tuple(axes)
        unknown = [axis for axis in axes if axis not in AXES]
        if unknown:
            raise MethodError(f"there is no axis '{unknown[0]}' (axes: {', '.join(AXES)})")
        kept = {axis: getattr(self, axis) for axis in AXES if axis not in axes}
        return Method(**kept, name=f"{self.name}:{','.join('-' + axis for axis in axes)}", requires=self.requires)

    def over(self, host: Method) -> Method:
        """The method with the axes that it leaves alone taken from `host`."""
        taken = {axis: getattr(self, axis) or getattr(host, axis) for axis in AXES}
        if self.objective is not None:
            taken["ratio"] = taken["surrogate"] = None
            taken["correction"] = ()
        elif self.ratio is not None or self.surrogate is not None or self.correction:
            taken["objective"] = None
        return Method(**taken, name=self.name, requires=self.requires)

    # at work -------------------------------------------------------------------------------------------------------

    def bind(self, states: Mapping[str, State] | None = None, info: StepInfo | None = None) -> BoundMethod:
        """The method with states (as `init` makes them), at a step of a run."""
        return BoundMethod(self, states or {}, info or StepInfo())

    # the functions of the step -------------------------------------------------------------------------------------

    def stage(self, axis: str) -> Stage:
        """The function of a 'one' axis; the default if the method leaves it alone."""
        stage = getattr(self, axis)
        return stage if stage is not None else default_of(axis)

    def stages(self) -> list[tuple[str, Stage]]:
        """(axis, function) of everything that runs in a step, defaults included, in the order of the step."""
        out: list[tuple[str, Stage]] = []
        for axis in AXES:
            if axis in MANY:
                out += [(axis, stage) for stage in getattr(self, axis)]
            elif AXES[axis].default is None:
                out += [(axis, stage)] if (stage := getattr(self, axis)) is not None else []
            elif self.objective is None or axis not in ("ratio", "surrogate"):
                out.append((axis, self.stage(axis)))
        return out


def _union(items: tuple[Any, ...]) -> tuple[Any, ...]:
    out: list[Any] = []
    for item in items:
        if item not in out:
            out.append(item)
    return tuple(out)


def _conflict(axis: str, mine: Stage, theirs: Stage, replaced: str = "") -> ConflictError:
    first, second = mine.source or "the first method", theirs.source or "the second method"
    if replaced:
        what = f"'{first}' has an objective of its own ({mine.name}), which replaces the {replaced} of '{second}'"
    else:
        what = f"'{first}' ({mine.name}) and '{second}' ({theirs.name}) both fill the axis '{axis}', which takes one"
    axis2 = replaced or axis
    return ConflictError(
        f"conflict on the axis '{axis}': {what}. Leave it out of one of them: "
        f"'{first}:-{axis}+{second}' or '{first}+{second}:-{axis2}'"
    )
