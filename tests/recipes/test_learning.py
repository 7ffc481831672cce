"""Every method that can train here trains: the true success rate of a small policy rises."""

from __future__ import annotations

from pathlib import Path

import pytest

from cohort import registry
from tests import micro
from tests.traits import trait

TRAINABLE = [name for name in registry.names() if not registry.method(name).requires]
# With learning rate 0 the rate stays where it is, to the bit; a random walk of the size of these updates moves it by
# less than half of this margin (see test_noise_does_not_pass).
MARGIN = 0.2


@pytest.mark.parametrize("name", [name for name in TRAINABLE if not trait(name, "ELSEWHERE")])
def test_success_rises(micro_root: Path, name: str) -> None:
    with micro.method_ready(micro_root, name) as (setup, optimizer, progress):
        before = micro.success(setup.policy)
        micro.train(setup, optimizer, progress)
        after = micro.success(setup.policy)
    assert after - before > MARGIN, f"{before:.3f} -> {after:.3f}"


@pytest.mark.parametrize("seed", range(4))
def test_noise_does_not_pass(micro_root: Path, tmp_path: Path, seed: int) -> None:
    """The same run with rewards of a coin stays far below the margin."""
    coin = tmp_path / "coin.py"
    coin.write_text(
        f"import random\n\nrng = random.Random({seed})\n\n\n"
        "def coin(prompts, completions, **columns):\n    return [float(rng.random() < 0.5) for _ in completions]\n"
    )
    with micro.ready(micro_root, "grpo", reward=[f"{coin}:coin"], seed=seed) as (setup, optimizer, progress):
        before = micro.success(setup.policy)
        micro.train(setup, optimizer, progress)
        assert micro.success(setup.policy) - before < MARGIN / 2
