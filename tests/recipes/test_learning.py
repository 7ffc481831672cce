"""Every method that can train here trains: the true success rate of a small policy rises."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from cohort import registry
from cohort.training.build import Setup
from cohort.training.loop import one_step
from cohort.training.precision import MasterWeights
from cohort.training.progress import Progress
from tests import micro
from tests.stepping import run_of
from tests.traits import trait


def chosen(names: list[str]) -> list[Any]:
    """The first of the methods that fill the same axes; the others, which go the same ways, in the long sweep."""
    seen: set[frozenset[str]] = set()
    out: list[Any] = []
    for name in names:
        filled = frozenset(registry.method(name).filled)
        out.append(pytest.param(name, marks=pytest.mark.exhaustive) if filled in seen else name)
        seen.add(filled)
    return out


TRAINABLE = [name for name in registry.names() if not registry.method(name).requires]
# With learning rate 0 the rate stays where it is, to the bit; a random walk of the size of these updates moves it at no
# time by more than half of this margin (see test_noise_does_not_pass).
MARGIN = 0.2
# Steps between two looks at the rate.
LOOK = 5


def rises(parts: tuple[Setup, MasterWeights, Progress], enough: float = math.inf) -> list[float]:
    """By how much the true success rate has risen, look by look, to the run's end, or until it was enough twice in a row."""
    setup = parts[0]
    before, found = micro.success(setup.policy), list[float]()
    run = run_of(*parts)
    for step in range(1, setup.config.optimisation.steps + 1):
        one_step(run)
        if step % LOOK == 0 or step == setup.config.optimisation.steps:
            found.append(micro.success(setup.policy) - before)
            if min(found[-2:]) > enough and len(found) > 1:
                break
    return found


@pytest.mark.parametrize("name", chosen([name for name in TRAINABLE if not trait(name, "ELSEWHERE")]))
def test_success_rises(micro_root: Path, name: str) -> None:
    with micro.method_ready(micro_root, name) as parts:
        found = rises(parts, enough=MARGIN)
    assert found[-1] > MARGIN, found


@pytest.mark.parametrize("seed", range(4))
def test_noise_does_not_pass(micro_root: Path, tmp_path: Path, seed: int) -> None:
    """The same run with rewards of a coin stays far below the margin, whenever one looks."""
    coin = tmp_path / "coin.py"
    coin.write_text(
        f"import random\n\nrng = random.Random({seed})\n\n\n"
        "def coin(prompts, completions, **columns):\n    return [float(rng.random() < 0.5) for _ in completions]\n"
    )
    with micro.ready(micro_root, "grpo", reward=[f"{coin}:coin"], seed=seed) as parts:
        found = rises(parts)
    assert max(found) < MARGIN / 2, found
