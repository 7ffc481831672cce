"""Settings of one method, as a grid or drawn at random, compared like methods."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohort import registry
from cohort.errors import UsageError
from cohort.experiments.compare import default_name
from cohort.experiments.comparison import Comparison
from cohort.experiments.plan import SAMPLES, Arm, checked_transfer, make_plan
from cohort.experiments.queue import run_plan
from cohort.training.config import PLACES, from_python, own_name, takes_text
from cohort.training.display import Display
from cohort.training.folder import check_place
from cohort.training.reading import read_yaml

SEEDS = 3
_RANGE = re.compile(r"(?P<low>[^.\s:]\S*?)\.\.(?P<high>[^:\s]+?)(?P<log>:log)?")


@dataclass(frozen=True)
class Axis:
    """What a parameter is varied over.

    Attributes:
        name: of a hyperparameter of the method, or of a key of the configuration.
        values: the settings; empty for a range.
        low, high: ends of a range; integers if both are.
        log: evenly in the logarithm.
    """

    name: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False

    def draw(self, rng: random.Random) -> Any:
        """A setting at random."""
        if self.values:
            return rng.choice(self.values)
        if self.log:
            value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = rng.uniform(self.low, self.high)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return min(self.high, max(self.low, round(value)))
        return float(f"{value:.4g}")


def parse_axis(text: str) -> Axis:
    """`KEY=V1,V2,...`, or `KEY=LOW..HIGH`, evenly in the logarithm with `:log` after it.

    Raises:
        UsageError: no values, a value twice, or a range that is none.
    """
    name, equals, given = text.partition("=")
    name = name.strip()
    if not equals or not name or not given.strip():
        raise UsageError(f"--grid {text}: write KEY=VALUE,VALUE,... or KEY=LOW..HIGH")
    match = _RANGE.fullmatch(given.strip())
    if match:
        low, high = value_of(match["low"]), value_of(match["high"])
        numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high))
        if not numbers or not low < high or (match["log"] and low <= 0):
            above = ", above 0 for :log" if match["log"] else ""
            raise UsageError(f"--grid {text}: a range goes from a lower number to a higher one{above}")
        return Axis(name, low=low, high=high, log=bool(match["log"]))
    values = tuple(value_of(part) for part in _split(given))
    if any(value in values[:i] for i, value in enumerate(values)):
        raise UsageError(f"--grid {text}: a value stands there twice")
    return Axis(name, values)


def _split(text: str) -> list[str]:
    """Parts between commas that stand in no brackets."""
    parts, depth, start = [], 0, 0
    for i, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [part.strip() for part in [*parts, text[start:]]]


def value_of(text: str) -> Any:
    """A value as YAML reads it; numbers such as 1e-4, which YAML takes for a text, as numbers."""
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return read_yaml(text, f"--grid: {text}")


def arms_of(method: str, axes: Sequence[Axis], draws: int | None, *, seed: int = 0) -> list[Arm]:
    """The settings to run: every combination, or some drawn at random.

    Raises:
        UsageError: unknown parameters, a range without a number of draws, or nothing to vary.
    """
    if not axes:
        raise UsageError("there is nothing to vary: name a parameter with --grid KEY=VALUE,VALUE")
    names = [axis.name for axis in axes]
    own = [own_name(name) for name in names]
    if len(set(own)) < len(own):
        raise UsageError(f"--grid: {next(n for n in own if own.count(n) > 1)} is given twice")
    ranges = [axis.name for axis in axes if not axis.values]
    if draws is None:
        if ranges:
            raise UsageError(f"--grid {ranges[0]}: a range has no end of values; say how many to draw with --random N")
        found = [dict(zip(names, values, strict=True)) for values in itertools.product(*(a.values for a in axes))]
    else:
        if draws < 2:
            raise UsageError(f"--random {draws}: it takes two settings or more to compare")
        rng, found = random.Random(seed), []
        for _ in range(100 * draws):
            drawn = {axis.name: axis.draw(rng) for axis in axes}
            if drawn not in found and len(found) < draws:
                found.append(drawn)
        if len(found) < draws:
            raise UsageError(f"--random {draws}: there are only {len(found)} different settings")
    if len(found) < 2:
        raise UsageError("there is a single setting: give --grid two values or more")
    return [_arm(method, settings) for settings in found]


def _arm(method: str, settings: Mapping[str, Any]) -> Arm:
    parts = registry.parts(method)
    hyper: list[dict[str, Any]] = [{} for _ in parts]
    config: dict[str, Any] = {}
    for name, value in settings.items():
        owner, _, own = name.rpartition(".")
        takers = [
            i for i, part in enumerate(parts) if own in registry.signature(part.name) and owner in ("", part.name)
        ]
        if len(takers) > 1:
            options = " or ".join(f"{parts[i].name}.{own}" for i in takers)
            raise UsageError(f"--grid {name}: several methods of '{method}' have it; write {options}")
        if takers:
            hyper[takers[0]][own] = value
        elif own_name(name) in PLACES:
            config[own_name(name)] = str(value) if takes_text(name) and isinstance(value, int | float) else value
        else:
            known = (*(key for part in parts for key in registry.signature(part.name)), *PLACES)
            raise UsageError(
                f"--grid {name}: neither '{method}' nor the configuration has it; {registry.near(name, known)}"
            )
    expression = "+".join(_written(part, extra) for part, extra in zip(parts, hyper, strict=True))
    label = " ".join(f"{name}={_short(value)}" for name, value in settings.items())
    return Arm(label, expression, dict(settings), config)


def _written(part: registry.Part, extra: Mapping[str, Any]) -> str:
    """The part as an expression, with further hyperparameters."""
    arguments = ", ".join(f"{name}={value!r}" for name, value in {**part.hyper, **extra}.items())
    return part.name + (f"({arguments})" if arguments else "") + (f":{','.join(part.axes)}" if part.axes else "")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def sweep(
    method: str,
    axes: Sequence[Axis],
    *,
    draws: int | None = None,
    options: Mapping[str, Any] | None = None,
    seeds: int = SEEDS,
    tokens: int | None = None,
    samples: int = SAMPLES,
    transfer: Mapping[str, str] | None = None,
    target: float | None = None,
    out: str | Path | None = None,
    display: Display | None = None,
) -> Comparison:
    """Run a method with several settings and compare them; the first setting is what others are compared with.

    Args:
        axes: what is varied, hyperparameters of the method before keys of the configuration of the same name.
        draws: number of settings to draw at random; None takes every combination.
        others: as in `compare`.

    Raises:
        UsageError: what was asked cannot be done; nothing was run.
    """
    registry.method(method)
    options = from_python(options or {}).values
    arms = arms_of(method, axes, draws)
    varied = {name for arm in arms for name in arm.config}
    own = sorted(varied & {"method", "seed", "out"})
    if own:
        raise UsageError(f"--grid {own[0]}: it differs from run to run by itself; --seeds says how many seeds")
    fixed = sorted(varied & set(options))
    if fixed:
        raise UsageError(f"{fixed[0]} is both varied and set")
    folder = (
        Path(out) if out is not None else Path("runs") / default_name([method, *(axis.name for axis in axes)], "sweep")
    )
    check_place(folder)
    checked = checked_transfer(transfer or {})
    return run_plan(make_plan(arms, folder, options, seeds, tokens, samples, checked, target), display or Display())
