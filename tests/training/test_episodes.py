"""A run whose prompts are tasks of an environment: what is trained on, and what is recorded of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cohort.training.build import prepare
from cohort.training.config import make_config
from cohort.training.display import Display
from cohort.training.loop import one_step
from cohort.training.run import train
from cohort.training.table import rollout_table
from tests.environments.worlds import Guess, Worlds
from tests.helpers import tiny_policy
from tests.rollouts.test_runner import Broken
from tests.stepping import run_of


@pytest.fixture
def base(tmp_path: Path) -> dict[str, Any]:
    tiny_policy().save(tmp_path / "model")
    return {
        "model": str(tmp_path / "model"),
        "data": [{"prompt": f"guess {name}", "answer": "1"} for name in "abcd"],
        "reward": "0.5*format:1",
        "prompts_per_step": 2,
        "group_size": 4,
        "max_new_tokens": 60,
        "logit_bias": {1: 4.0},
        "method": "grpo(kl_beta=0.0)",
    }


@pytest.mark.parametrize("method", ["grpo", "gdpo"])
def test_an_environment_and_reward_functions_reward_together(base: dict[str, Any], method: str) -> None:
    setup = prepare(make_config({**base, "method": method}), log=lambda _: None)
    try:
        setup.collector.environments = Worlds(of=setup.collector.grader)
        assert (setup.reward_names, setup.reward_weights(0)) == (("format", "environment", "turns"), (0.5, 1.0, 0.0))
        run = run_of(setup)
        for _ in range(2):
            result = one_step(run)
            assert max(len(rollout.turns) for rollout in result.rollouts) > 1
            for rollout in result.rollouts:
                assert rollout.reward == pytest.approx(
                    0.5 * (rollout.components["format"] or 0) + (rollout.components["environment"] or 0)
                )
            # What the engine says of later turns is what the trainer says.
            assert result.metrics["mismatch_max"] < 1e-3
            table = rollout_table(result).to_pydict()
            assert table["reward/environment"] == pytest.approx(
                [rollout.components["environment"] for rollout in result.rollouts]
            )
            assert table["tokens"] == [rollout.tokens for rollout in result.rollouts]
            assert table["mask"] == [rollout.mask for rollout in result.rollouts]
    finally:
        setup.close()


@pytest.mark.parametrize(
    "more",
    [
        {"method": "grpo(kl_beta=0.1)", "old_logp": "score", "updates": 2},
        {"method": "ppo", "activations": "stream", "micro_tokens": 64},
        {"method": "grpo(kl_beta=0.0)", "replay_groups": 2, "correction": "off"},
        {"method": "grpo-care"},
        {"method": "dcpo"},
        {"method": "mdpo(kl='full')"},
        {"method": "capo-curvature"},
        {"method": "grpo-vps"},
        {"method": "r2vpo"},
        {"method": "gspo", "lora": 2},
    ],
    ids=lambda more: str(more["method"]),
)
def test_methods_train_on_turns_in_contexts_of_their_own(base: dict[str, Any], more: dict[str, Any]) -> None:
    """Every pass sees each turn where it was sampled: the engine's log-probabilities are the trainer's."""
    digits = dict.fromkeys(range(6, 16), 3.0)
    how = {"history": "rebuild", "max_new_tokens": 100, "logit_bias": {**digits, 1: 4.0}, **more}
    setup = prepare(make_config({**base, **how}), log=lambda _: None)
    try:
        setup.collector.environments = Worlds(of=setup.collector.grader)
        run, norms = run_of(setup), []
        for _ in range(2):
            result = one_step(run)
            assert max(len(rollout.turns) for rollout in result.rollouts) > 1
            for rollout in result.rollouts:
                assert all((turn.context is None) == (turn.start == 0) for turn in rollout.turns)
                assert {segment.writer for segment in rollout.segments} == {"policy"}
            assert result.metrics["mismatch_max"] < 1e-3
            norms.append(result.metrics["grad_norm"])
            turns, pieces = (result.metrics[f"episode/{name}_mean"] for name in ("turns", "pieces"))
            assert turns == pieces > 1
            table = rollout_table(result, pieces=setup.policy.renderer.pieces).to_pydict()
            for rollout, turns in zip(result.rollouts, table["turns"], strict=True):
                for own, told in zip(rollout.turns, turns, strict=True):
                    shown = None if own.context is None else setup.policy.renderer.whole(own.context)
                    assert told["context"] == shown
        assert max(norms) > 0
    finally:
        setup.close()


WORLD = """
import random
from cohort.environments import Observation, Step


class World:
    def reset(self, row, seed):
        self.digit, self.turn = random.Random(seed).randrange(10), 0
        return row["prompt"]

    def step(self, message):
        self.turn += 1
        right = str(self.digit) in message["content"]
        return Step(Observation(f"no ({self.turn})", fresh=self.turn == 2), float(right), done=right or self.turn == 4)
"""


def test_a_run_of_pieces_goes_on_bit_for_bit(base: dict[str, Any], tmp_path: Path) -> None:
    """Rollouts of pieces are kept for replays, the source's and the method's, and come back from a checkpoint."""
    (tmp_path / "world.py").write_text(WORLD)
    keys = {
        **base,
        "reward": [],
        "method": "r2vpo",
        "steps": 4,
        "lr": 1e-2,
        "environment": f"{tmp_path / 'world.py'}:World",
        "environment_processes": 1,
        "history": "rebuild",
        "max_new_tokens": 100,
        "logit_bias": {**dict.fromkeys(range(6, 16), 3.0), 1: 4.0},
        "checkpoint": {"every": 2, "keep": 2},
        "replay_groups": 1,
        "correction": "off",
    }
    whole = train(make_config({**keys, "out": str(tmp_path / "whole")}), display=Display(quiet=True))
    half = {**keys, "out": str(tmp_path / "half")}
    train(make_config({**half, "steps": 2}), display=Display(quiet=True))
    resumed = train(make_config(half), resume=True, display=Display(quiet=True))
    first, second = (Path(r.folder, "final", "model.safetensors").read_bytes() for r in (whole, resumed))
    assert first == second
    for folder in (whole.folder, resumed.folder):
        turns = pq.read_table(folder / "rollouts" / "step-000004.parquet")["turns"].to_pylist()
        assert any(turn["context"] for each in turns for turn in each)
    assert [row["reward/mean"] for row in whole.metrics] == [row["reward/mean"] for row in resumed.metrics]


def test_a_step_goes_on_without_the_episodes_that_failed(base: dict[str, Any]) -> None:
    setup = prepare(make_config(base), log=lambda _: None)
    try:
        broken = Worlds(lambda k: Broken("step", KeyError("x")) if k % 4 == 3 else Guess(), setup.collector.grader)
        setup.collector.environments = broken
        result = one_step(run_of(setup))
        failed = [rollout.status == "failed" for rollout in result.rollouts]
        assert 0 < sum(failed) < len(failed) == 8
        kept = rollout_table(result).to_pydict()["kept"]
        assert [why == "left out: its environment failed" for why in kept] == failed
        assert result.batch is not None
        assert any("KeyError" in said for said in setup.collector.grader.failures)
        setup.collector.environments = Worlds(lambda k: Broken("reset", OSError("no disk")), setup.collector.grader)
        nothing = one_step(run_of(setup))
        assert nothing.batch is None
        assert any("the environment of 8 failed" in said for said in nothing.warnings)
    finally:
        setup.close()
