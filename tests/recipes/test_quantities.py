"""Methods that want something beside right answers get it: the lengths that they write move the way they should.

To see nothing but that, rewards say nothing of the answer: they are 1 for everything, which teaches GRPO nothing at all,
or, for methods that learn from right against wrong, those of a coin.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from tests import micro

REWARDS = Path(micro.__file__).with_name("micro_rewards.py")


class Wish(NamedTuple):
    """What a method is to do to the expected length of a right answer.

    Attributes:
        longer: 1 if it is to grow, -1 if it is to shrink.
        hyper: hyperparameters, as in an expression.
        reward: of tests/micro_rewards.py.
    """

    longer: int
    hyper: str = ""
    reward: str = "always"


# Method -> wish; a method that acts on lengths has its place here. At the start an answer is 4.6 tokens long.
LENGTHS: dict[str, Wish] = {
    "curriculum-length": Wish(-1, "(sentence='', start=2)"),
    "drpo": Wish(-1, reward="coin"),
    "format-length": Wish(-1),
    "grpo-lambda": Wish(-1),
    "otc": Wish(-1, "(call='~')"),
}
# A budget above what is written asks for more.
LONGER = {"curriculum-length": Wish(1, "(sentence='', start=8)")}


def lengths(root: Path, name: str, wish: Wish) -> tuple[float, float]:
    """Expected length of a right answer before and after twelve steps."""
    reward = [f"{REWARDS}:{wish.reward}"]
    with micro.ready(root, name + wish.hyper, thought=True, steps=12, lr=3e-3, reward=reward) as parts:
        policy = parts[0].policy
        before = micro.outcomes(policy)[1]
        micro.train(*parts)
        return before, micro.outcomes(policy)[1]


@pytest.mark.parametrize(
    ("name", "wish"),
    [pytest.param(n, w, id=f"{n}-{w.longer}") for table in (LENGTHS, LONGER) for n, w in table.items()],
)
def test_lengths_move_as_the_method_wants(micro_root: Path, name: str, wish: Wish) -> None:
    before, after = lengths(micro_root, name, wish)
    assert wish.longer * (after - before) > 0.5, f"{before:.2f} -> {after:.2f}"


def test_the_rewards_alone_teach_nothing(micro_root: Path) -> None:
    before, after = lengths(micro_root, "grpo", Wish(0, "(kl_beta=0.0)"))
    assert after == before
