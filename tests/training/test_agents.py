"""Two policies that play together are trained together, saved and resumed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import cohort
from cohort.environments import EnvironmentFactory, Observation, Step
from cohort.environments.team import Team
from cohort.errors import UsageError
from cohort.training.config import make_config
from cohort.training.models import agent_models
from cohort.training.trace import unheard_agents
from cohort.types import Prompt, Turn
from tests import micro
from tests.helpers import request_of, rollout_of


class Consult:
    """The main agent asks; a sub-agent is called as often as the seed says; then the main agent answers."""

    def reset(self, row: Any, seed: int) -> Observation:
        self.row, self.calls, self.turn = row, 1 + seed % 2, 0
        return Observation(row["prompt"], agent="main")

    def step(self, message: Any) -> Step:
        right, turn = float(message["content"].strip() == self.row["answer"]), self.turn
        self.turn += 1
        if turn > self.calls:
            return Step(reward=right, done=True)
        who = {"agent": "sub", "conversation": str(turn)} if turn < self.calls else {"agent": "main"}
        return Step(Observation(self.row["prompt"], **who), reward=right)

    def close(self) -> None: ...


class Consulting(EnvironmentFactory):
    def make(self, prompt: Prompt, n: int) -> Sequence[Any]:
        return [Consult() for _ in range(n)]


class Pair(Team):
    """Who is right itself is of use to the other."""

    def collaborated(self, agent: str) -> bool:
        return self.said[agent][-1] == self.right


class Teams(EnvironmentFactory):
    def make(self, prompt: Prompt, n: int) -> Sequence[Any]:
        return [Pair(("one", "two"), rounds=1) for _ in range(n)]


def options(root: Path, out: Path, **changes: Any) -> dict[str, Any]:
    folder = str(micro.folder(root))
    return {
        **{key: value for key, value in micro.CONFIG.items() if key not in ("reward", "show_every")},
        "model": folder,
        "out": str(out),
        "max_new_tokens": 16,
        "prompts_per_step": 8,
        "group_size": 8,
        "quiet": True,
        **changes,
    }


def rewards(out: Path) -> list[dict[str, float]]:
    """By agent, the mean reward of each step."""
    import pyarrow.parquet as pq

    found = []
    for path in sorted((out / "rollouts").glob("*.parquet")):
        table = pq.read_table(path, columns=["agent", "reward"]).to_pylist()
        agents = sorted({row["agent"] for row in table})
        found.append(
            {
                agent: sum(r["reward"] or 0.0 for r in table if r["agent"] == agent)
                / sum(r["agent"] == agent for r in table)
                for agent in agents
            }
        )
    return found


@pytest.mark.parametrize(
    ("method", "environment", "agents", "size", "steps"),
    [
        ("m-grpo(slots=2)", Consulting, ("main", "sub"), 16, 10),
        ("videochat-m1(kl_beta=0.01)", Teams, ("one", "two"), 8, 14),
    ],
)
def test_two_policies_learn(
    micro_root: Path, tmp_path: Path, method: str, environment: Any, agents: tuple[str, str], size: int, steps: int
) -> None:
    own, folder = agents[1], str(micro.folder(micro_root))
    how = {"environment": environment, "group_size": size, "steps": steps}
    given = options(micro_root, tmp_path / "run", agent_models=[f"{own}={folder}"], **how)
    cohort.train(method, **given)
    found = rewards(tmp_path / "run")
    for agent in agents:
        early, late = (sum(step[agent] for step in part) / len(part) for part in (found[:3], found[-3:]))
        assert late > early + 0.1, (agent, early, late)
    # Each has weights of its own now.
    from cohort.policies.causal_lm import CausalLM

    final = tmp_path / "run" / "final"
    a, b, start = (CausalLM.load(str(path)).trainable() for path in (final, final / "agents" / own, folder))
    assert not all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    for each in (a, b):
        assert not all(torch.equal(x, y) for x, y in zip(each, start, strict=True))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert max(row["mismatch_max"] for row in rows) < 1e-3


def test_a_resumed_run_of_two_policies_ends_as_if_it_had_not_stopped(micro_root: Path, tmp_path: Path) -> None:
    folder = str(micro.folder(micro_root))
    given = {"agent_models": f"sub={folder}", "environment": Consulting, "group_size": 4, "checkpoint.every": 2}
    cohort.train("m-grpo", **options(micro_root, tmp_path / "whole", steps=4, **given))
    cohort.train("m-grpo", **options(micro_root, tmp_path / "parts", steps=2, **given))
    cohort.train("m-grpo", **options(micro_root, tmp_path / "parts", steps=4, resume=True, **given))
    for part in ("model.safetensors", "agents/sub/model.safetensors"):
        whole, parts = ((tmp_path / name / "final" / part).read_bytes() for name in ("whole", "parts"))
        assert whole == parts


class Match:
    """Two sides name a digit each; the larger one wins the point of the other."""

    def reset(self, row: Any, seed: int) -> Observation:
        self.row, self.named = row, []  # type: ignore[var-annotated]
        return Observation(row["prompt"], agent="first")

    def step(self, message: Any) -> Step:
        said = message["content"].strip()
        self.named.append(int(said) if said.isdigit() else -1)
        if len(self.named) == 1:
            return Step(Observation(self.row["prompt"], agent="second"))
        won = float(self.named[0] > self.named[1]) - float(self.named[0] < self.named[1])
        return Step(done=True, rewards={"first": won, "second": -won})

    def close(self) -> None: ...


class Matches(EnvironmentFactory):
    def make(self, prompt: Prompt, n: int) -> Sequence[Any]:
        return [Match() for _ in range(n)]


def test_one_policy_plays_itself(micro_root: Path, tmp_path: Path) -> None:
    given = options(micro_root, tmp_path / "run", environment=Matches, steps=2, group_size=4)
    cohort.train("rae", **given)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        assert row["rollouts/trained"] > 0
        # What one side wins the other loses, where both came to an end.
        assert abs(row["reward/mean"]) <= max(abs(row["agent/first/reward"]), abs(row["agent/second/reward"])) + 1e-6
    assert not (tmp_path / "run" / "final" / "agents").exists()


def test_agents_may_have_names_of_several_words() -> None:
    config = make_config({"environment": "textarena:TicTacToe-v0", "agent_models": ["player 1=toy"]})
    assert agent_models(config) == {"player 1": "toy"}


def test_an_agent_that_has_a_model_and_does_not_speak_is_told() -> None:
    asked = request_of(Prompt("a", "a", (1,), "a"))
    both = [rollout_of(replace(asked, agent=name), [5]).replace(turns=(Turn(0, 1),)) for name in ("main", "sub")]
    assert unheard_agents(["sub"], both) == []
    (said,) = unheard_agents(["sub", "sbu"], both)
    assert "gives 'sbu' a model" in said
    assert "there were main, sub" in said
    assert unheard_agents(["sub"], [both[0].replace(turns=())]) == []


@pytest.mark.parametrize(
    ("models", "says"),
    [
        (["sub="], "should be AGENT=MODEL"),
        ([" sub=toy"], "should be AGENT=MODEL"),
        (["sub"], "should be AGENT=MODEL"),
        (["../x=toy"], "should be AGENT=MODEL"),
        (["sub=toy", "sub=toy"], "each agent once"),
    ],
)
def test_models_of_agents_are_named_well(micro_root: Path, tmp_path: Path, models: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        cohort.train("grpo", **options(micro_root, tmp_path / "run", agent_models=models, environment=Consulting))
    with pytest.raises(UsageError, match="name one with environment"):
        cohort.train("grpo", **options(micro_root, tmp_path / "run", agent_models=["sub=toy"], reward=["exact"]))
