"""What becomes of reward components before they are added: gates, ranges, and weights that change over the run.

value_k = otherwise       where a gate of k is closed
        = clip(raw_k)     elsewhere
reward  = sum_k weight_k(step) value_k
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from operator import ge, gt, le, lt

from cohort.errors import UsageError

_NUMBER = r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
_GATE = re.compile(rf"\s*(?P<what>\S+)\s+if\s+(?P<if>\S(?:.*?\S)?)(?:\s+else\s+(?P<else>{_NUMBER}))?\s*")
_CONDITION = re.compile(rf"(?P<not>not\s+)?(?P<name>[^\s<>]+)(?:\s*(?P<sign>[<>]=?)\s*(?P<bound>{_NUMBER}))?")
_CLIP = re.compile(rf"\s*(?P<name>\S+)\s+(?P<low>{_NUMBER})?\.\.(?P<high>{_NUMBER})?\s*")
_POINT = re.compile(rf"(?P<step>\d+):(?P<weight>{_NUMBER})")
_SIGNS: dict[str, Callable[[float, float], bool]] = {">=": ge, ">": gt, "<=": le, "<": lt}
# What stands for every other component.
EVERY = "*"


@dataclass(frozen=True)
class Condition:
    """One comparison of a component: `NAME` is `NAME>=1`, and `not NAME` is `NAME<1`."""

    name: str
    sign: str = ">="
    bound: float = 1.0

    def holds(self, value: float) -> bool:
        """True if it holds of the component's value."""
        return _SIGNS[self.sign](value, self.bound)


@dataclass(frozen=True)
class Gate:
    """A component counts only if all conditions hold; elsewhere it is `otherwise`."""

    name: str
    conditions: tuple[Condition, ...]
    otherwise: float = 0.0

    def open(self, values: Mapping[str, float | None]) -> bool | None:
        """True if all conditions hold of the values; None if one of them does not apply and the others hold."""
        known = [(each, values.get(each.name)) for each in self.conditions]
        if any(value is not None and not each.holds(value) for each, value in known):
            return False
        return None if any(value is None for _, value in known) else True


@dataclass(frozen=True)
class Composition:
    """How the components of a reward are put together.

    Attributes:
        gates: in an order in which a gate comes after those of the components that it reads.
        clips: component -> (low, high), either of them infinite where it is open.
        schedules: component -> (steps, weights), steps ascending.
    """

    gates: tuple[Gate, ...] = ()
    clips: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    schedules: Mapping[str, tuple[tuple[int, ...], tuple[float, ...]]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.gates or self.clips or self.schedules)

    @property
    def changed(self) -> tuple[str, ...]:
        """Components whose value may differ from what their function gave."""
        return tuple(dict.fromkeys([*self.gated, *self.clips]))

    @property
    def gated(self) -> tuple[str, ...]:
        """Components that have a gate."""
        return tuple(dict.fromkeys(gate.name for gate in self.gates))

    def weight(self, name: str, weight: float, step: int | None) -> float:
        """A component's weight in the sum.

        Args:
            weight: of a component without a schedule.
            step: steps completed; None is the end of every schedule.
        """
        if name not in self.schedules:
            return weight
        steps, weights = self.schedules[name]
        if step is None or step >= steps[-1]:
            return weights[-1]
        right = bisect.bisect_right(steps, step)
        if right == 0:
            return weights[0]
        low, high = steps[right - 1], steps[right]
        return weights[right - 1] + (weights[right] - weights[right - 1]) * (step - low) / (high - low)

    def counted(self, raw: Mapping[str, float | None]) -> tuple[dict[str, float | None], set[str]]:
        """(the values that count, the components of which a gate is closed) of one completion.

        A gate reads what the gates before it left, before it is clipped. Where what it reads does not apply (None), the
        component that it guards does not either.
        """
        values, closed = dict(raw), set[str]()
        for gate in self.gates:
            # Where one gate is closed, what another would say no longer matters.
            if values.get(gate.name) is None or gate.name in closed:
                continue
            opened = gate.open(values)
            if opened is False:
                closed.add(gate.name)
                values[gate.name] = gate.otherwise
            elif opened is None:
                values[gate.name] = None
        for name, (low, high) in self.clips.items():
            value = values.get(name)
            if value is not None and name not in closed:
                values[name] = min(max(value, low), high)
        return values, closed


def compose(
    weights: Mapping[str, float], *, gates: Sequence[str] = (), clips: Sequence[str] = (), schedules: Sequence[str] = ()
) -> Composition:
    """A composition from texts: `math if format`, `length 0..0.5`, `length 0:0 100:0.2`.

    Args:
        weights: component -> its weight, in their order.

    Raises:
        UsageError: a text that cannot be read, a name that is no component, gates that read each other in a circle, an empty
            range, steps that do not ascend, or two clips or schedules of one component.
    """
    read = [gate for text in gates for gate in _gates(text, list(weights))]
    return Composition(_ordered(read), _clips(clips, weights), _schedules(schedules, weights))


def _gates(text: str, names: Sequence[str]) -> list[Gate]:
    match = _GATE.fullmatch(text)
    conditions = [] if match is None else [_CONDITION.fullmatch(each) for each in re.split(r"\s+and\s+", match["if"])]
    if match is None or None in conditions:
        raise UsageError(
            f"reward_gate '{text}': write NAME if OTHER, as in math if format, or with a bound, as in length if math>=0.5; "
            "more conditions follow after and, and else VALUE says what counts where they fail (0)"
        )
    found = tuple(_condition(each, names, f"reward_gate '{text}'") for each in conditions if each is not None)
    reads = {each.name for each in found}
    if match["what"] == EVERY:
        guarded = [name for name in names if name not in reads]
    else:
        guarded = [_known(name, names, f"reward_gate '{text}'") for name in match["what"].split(",")]
    if not guarded:
        raise UsageError(f"reward_gate '{text}': there is no other reward that it could guard")
    return [Gate(name, found, float(match["else"] or 0.0)) for name in guarded]


def _condition(match: re.Match[str], names: Collection[str], where: str) -> Condition:
    if match["not"] and match["sign"]:
        raise UsageError(f"{where}: not goes before a name alone; turn the comparison round in its place")
    name = _known(match["name"], names, where)
    if match["sign"]:
        return Condition(name, match["sign"], float(match["bound"]))
    return Condition(name, "<" if match["not"] else ">=")


def _ordered(gates: Sequence[Gate]) -> tuple[Gate, ...]:
    """Gates, each after those of the components that it reads."""
    reads: dict[str, list[str]] = {}
    for gate in gates:
        reads.setdefault(gate.name, []).extend(each.name for each in gate.conditions)
    placed: list[str] = []

    def place(name: str, way: tuple[str, ...]) -> None:
        if name in way:
            circle = " -> ".join([*way[way.index(name) :], name])
            raise UsageError(f"reward_gate: gates read each other in a circle ({circle}): leave one of them out")
        for other in reads.get(name, ()):
            place(other, (*way, name))
        if name not in placed:
            placed.append(name)

    for gate in gates:
        place(gate.name, ())
    return tuple(sorted(gates, key=lambda gate: placed.index(gate.name)))


def _clips(texts: Sequence[str], names: Collection[str]) -> dict[str, tuple[float, float]]:
    found: dict[str, tuple[float, float]] = {}
    for text in texts:
        where, match = f"reward_clip '{text}'", _CLIP.fullmatch(text)
        if match is None or (match["low"] is None and match["high"] is None):
            raise UsageError(f"{where}: write NAME LOW..HIGH, as in length 0..0.5; one end may be left out")
        name = _once(_known(match["name"], names, where), found, where)
        low, high = float(match["low"] or "-inf"), float(match["high"] or "inf")
        if low >= high:
            raise UsageError(f"{where}: the range is empty: its low end must lie below its high end")
        found[name] = (low, high)
    return found


def _schedules(
    texts: Sequence[str], weights: Mapping[str, float]
) -> dict[str, tuple[tuple[int, ...], tuple[float, ...]]]:
    found: dict[str, tuple[tuple[int, ...], tuple[float, ...]]] = {}
    for text in texts:
        where, (first, *rest) = f"reward_schedule '{text}'", text.split() or [""]
        points = [_POINT.fullmatch(each) for each in rest]
        if len(points) < 2 or None in points:
            raise UsageError(
                f"{where}: write NAME STEP:WEIGHT STEP:WEIGHT ..., as in length 0:0 100:0.2, with two points at least"
            )
        name = _once(_known(first, weights, where), found, where)
        if weights[name] != 1.0:
            raise UsageError(
                f"{where}: '{name}' has the weight {weights[name]:g}, too: leave that out, since the schedule says its weights"
            )
        steps = tuple(int(each["step"]) for each in points if each is not None)
        if list(steps) != sorted(set(steps)):
            raise UsageError(f"{where}: the steps must ascend")
        found[name] = (steps, tuple(float(each["weight"]) for each in points if each is not None))
    return found


def _known(name: str, names: Collection[str], where: str) -> str:
    if name not in names:
        close = get_close_matches(name, names, n=1)
        raise UsageError(
            f"{where}: there is no reward '{name}' here (there are: {', '.join(names)})"
            + (f"; did you mean {close[0]}?" if close else "")
        )
    return name


def _once(name: str, found: Collection[str], where: str) -> str:
    if name in found:
        raise UsageError(f"{where}: '{name}' has one already: leave one of them out")
    return name
