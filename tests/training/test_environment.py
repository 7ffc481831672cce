"""Runs whose prompts are tasks of an environment that is named in the configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import cohort
from cohort.errors import UsageError
from cohort.methods.method import Method
from cohort.rewards.grader import Grader
from cohort.training.build import Setup, prepare
from cohort.training.config import make_config
from cohort.training.diagnostics import of_episodes
from cohort.training.inputs import answering, functions_of
from cohort.training.loop import one_step
from cohort.types import Context, Prompt, Request, Rollout, Segment, Turn
from tests.environments import hostile
from tests.environments.worlds import Worlds
from tests.stepping import run_of

FILE = Path(hostile.__file__)
DO = ("fine", "raise", "cannot be sent", "nan", "large", "print", "exit", "a text")


@pytest.fixture
def keys(base: dict[str, Any]) -> dict[str, Any]:
    del base["reward"]
    return {
        **base,
        "environment": f"{FILE}:Hostile",
        "data": [{"prompt": f"task {i}", "do": do} for i, do in enumerate(DO)],
        "method": "grpo(kl_beta=0.0)",
        "prompts_per_step": 8,
        "max_new_tokens": 60,
        "logit_bias": {1: 4.0},
        "environment_processes": 1,
    }


@contextmanager
def ready(keys: dict[str, Any], **changes: Any) -> Iterator[Setup]:
    setup = prepare(make_config({**keys, **changes}), log=lambda _: None)
    try:
        yield setup
    finally:
        setup.close()


def test_a_run_goes_on_whatever_its_environments_do(keys: dict[str, Any], tmp_path: Path) -> None:
    result = cohort.train(**{**keys, "steps": 2, "eval_data": keys["data"][:1]}, quiet=True)
    row = result.metrics[-1]
    assert 0 < row["episode/failed"] < 1
    ends = ("done", "out_of_turns", "out_of_tokens", "out_of_time", "unparseable", "failed")
    assert sum(row[f"episode/{end}"] for end in ends) == pytest.approx(1)
    assert row["rollouts/failed"] == 32 * row["episode/failed"]
    assert 1 < row["episode/turns_mean"] <= 2
    assert 0 <= row["time/idle"] <= row["time/sample"]
    table = pq.read_table(result.folder / "rollouts" / "step-000002.parquet").to_pylist()
    assert {each["kept"] for each in table if each["end"] == "failed"} == {"left out: its environment failed"}
    first = pq.read_table(result.folder / "rollouts" / "step-000001.parquet").to_pylist()
    errors = " ".join(each["error"] or "" for each in [*first, *table])
    for part in ("no such room", "it holds _thread.lock", "asked to end the process", "not str ('no step')"):
        assert part in errors
    for each in table:
        for turn in each["turns"]:
            assert all(each["mask"][turn["start"] : turn["end"]])
            said_, *answered = json.loads(turn["messages"])
            assert (said_["role"], said_["content"] in each["completion"]) == ("assistant", True)
            assert [message["role"] for message in answered] in ([], ["user"])
        if each["end"] == "done":
            assert [turn["reward"] for turn in each["turns"]] == [0.5, 1.0]
    # What is printed is kept with the run.
    assert "a line of its own\nwritten past Python" in (result.folder / "environments.log").read_text()
    assert result.after is not None
    assert result.after.metrics["episode/failed"] == 0.0
    assert result.summary["verdict"] == "environment>=1"


def test_a_run_goes_on_when_processes_die(keys: dict[str, Any]) -> None:
    rows = [{"prompt": f"task {i}", "do": "fine" if i else "end the process"} for i in range(8)]
    with ready(keys, data=rows, environment_processes=2) as setup:
        run = run_of(setup)
        ends: set[str] = set()
        for _ in range(3):
            result = one_step(run)
            for rollout in result.rollouts:
                if rollout.status == "failed":
                    assert "its process died (exit status 7)" in rollout.error
                elif rollout.end == "done":
                    assert [turn.reward for turn in rollout.turns] == [0.5, 1.0]
            ends |= {rollout.end for rollout in result.rollouts}
    # Which episodes are awaited when their process dies is chance.
    assert {"failed", "done"} <= ends


@pytest.mark.parametrize("how", ["drop", "redraw"])
def test_a_group_that_failures_leave_too_small_is_dropped_or_drawn_again(keys: dict[str, Any], how: str) -> None:
    rows = [{"prompt": f"task {i}", "do": "fine"} for i in range(2)]
    with ready(
        keys, environment=f"{FILE}:Fragile", data=rows, prompts_per_step=2, group_size=3, failed_episodes=how
    ) as setup:
        run = run_of(setup)
        for _ in range(6):
            result = one_step(run)
            failed = [rollout for rollout in result.rollouts if rollout.status == "failed"]
            if failed:
                break
        assert len(failed) % 3 == 0
        sampled = result.metrics["rollouts/sampled"]
        assert result.metrics["groups/too_small"] == (len(failed) // 3 if how == "drop" else 0)
        assert sampled == (6 - len(failed) if how == "drop" else 6)
        # No two of a step have a name in common.
        assert len({rollout.id for rollout in result.rollouts}) == len(result.rollouts)


def test_rows_with_one_prompt_are_tasks_of_their_own(keys: dict[str, Any]) -> None:
    rows = [{"prompt": "the same", "do": "fine", "size": size} for size in (1, 2, 2)]
    with ready(keys, data=rows) as setup:
        assert [prompt.row["size"] for prompt in setup.prompts] == [1, 2]
        assert len({prompt.id for prompt in setup.prompts}) == 2


def test_an_environment_may_bring_its_data(keys: dict[str, Any]) -> None:
    own = {**keys, "environment": f"{FILE}:OwnRows", "data": None}
    with ready(own) as setup:
        assert [prompt.text for prompt in setup.prompts] == [f"<|user|>task {i}<|assistant|>" for i in range(4)]
        assert [prompt.row["prompt"] for prompt in setup.eval_prompts] == ["held out"]
        assert setup.reward_names == ("environment", "style")
    with pytest.raises(UsageError, match="the environment has no rows of its own"), ready({**keys, "data": None}):
        pass


def test_a_factory_from_python_runs_here(keys: dict[str, Any]) -> None:
    class Here(Worlds):
        def __init__(self, grader: Grader) -> None:
            super().__init__(of=grader)

    with ready(keys, environment=Here, reward="format:1") as setup:
        result = one_step(run_of(setup))
        assert {"format", "environment", "turns"} == set(result.rollouts[0].components)
        assert len(setup.collector.environments.made) == 32  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"environment": "nowhere.py:World"}, "there is no file nowhere.py"),
        ({"environment": f"{FILE}:Worlds"}, "has no class 'Worlds'"),
        ({"environment": f"{FILE}:NoStep"}, r"has no step\(message\)"),
        ({"environment": f"{FILE}:Unmade"}, "no disk"),
        ({"environment": f"{FILE}:fails"}, "no server"),
        ({"environment": f"{FILE}:Unrewarding"}, r"gives no reward .* name one with reward="),
        ({"environment": None, "max_turns": 3, "reward": "format:1"}, "max_turns limits episodes, but nothing answers"),
        ({"pairs": [{"prompt": "a", "completion": "b", "label": 1}], "data": None, "method": "nft"}, "give data= too"),
        ({"method": "grpo+fapo"}, "reads the reward"),
        ({"accuracy": "style"}, r"names no reward of this run \(environment\)"),
        ({"reward": f"{FILE}:environment"}, "has no function 'environment'"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_sampled(
    keys: dict[str, Any], changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        cohort.train(**{**keys, **changes}, quiet=True)
    assert not (tmp_path / "run").exists()


def test_an_environment_without_rewards_is_judged_by_functions(keys: dict[str, Any]) -> None:
    with ready(keys, environment=f"{FILE}:Unrewarding", reward="format:1") as setup:
        assert (setup.reward_names, setup.collector.grader.accuracy) == (("format",), "format")
        result = one_step(run_of(setup))
        assert {rollout.end for rollout in result.rollouts} <= {"done", "tokens"}
        assert all(set(rollout.components) == {"format"} for rollout in result.rollouts)


def test_an_edited_environment_is_another_run(keys: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "world.py"
    file.write_text(FILE.read_text())
    run = {**keys, "environment": f"{file}:Hostile?wait=0.0", "data": [{"prompt": "p", "do": "fine"}], "quiet": True}
    cohort.train(**{**run, "steps": 1})
    file.write_text(file.read_text() + "# edited\n")
    with pytest.raises(UsageError, match=r"world.py was edited"):
        cohort.train(**{**run, "steps": 2}, resume=True)
    with pytest.raises(UsageError, match="another configuration: environment"):
        cohort.train(**{**run, "environment": f"{file}:Hostile", "steps": 2}, resume=True)
    assert cohort.train(**{**run, "steps": 2}, resume=True, accept_changes=True).metrics[-1]["step"] == 2


def test_the_file_of_one_of_several_environments_is_part_of_the_run(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.py").write_text(FILE.read_text())
    config = make_config({"environment": f"one={tmp_path}/a.py:Hostile?wait=0.0,two={tmp_path}/b.py:Hostile"})
    found = functions_of(Method(), "grpo", [], answering(config))
    assert {str(tmp_path / "a.py"), str(tmp_path / "b.py")} <= set(found)


def test_evaluation_tells_how_episodes_went(keys: dict[str, Any]) -> None:
    found = cohort.evaluate(
        keys["model"],
        environment=f"{FILE}:Hostile",
        data=[{"prompt": f"p{i}", "do": do} for i, do in enumerate(["fine", "raise"])],
        samples=4,
        max_new_tokens=60,
        logit_bias={1: 4.0},
        environment_processes=1,
    )
    assert 0 < found.metrics["episode/failed"] <= 0.5
    assert found.metrics["episode/turns_mean"] > 1
    for each in found.completions():
        assert (each["end"] == "failed") == ("error" in each) == (each["correct"] is None)
        assert len(each["turns"]) == 2 or each["end"] != "done"
        assert each["tokens"] <= 60


def test_an_episode_of_several_agents_counts_once() -> None:
    prompt = Prompt("p", "p", (1,), "p")

    def part(name: str, end: str, turns: int, agent: str = "", episode: str = "") -> Rollout:
        request = Request(prompt, Context((1,)), 0, 9, agent=agent)
        segments = (Segment((3, 4)), Segment((5,), "environment"))
        return Rollout(request, segments, id=name, turns=(Turn(0, 2),) * turns, end=end, episode=episode)

    rollouts = [
        part("a", "done", 2, "white", "a"),
        part("b", "done", 1, "black", "a"),
        part("c", "failed", 7),
        part("d", "tokens", 1),
    ]
    found = of_episodes(rollouts)
    assert found["episode/turns_mean"] == 2.0
    assert (found["episode/done"], found["episode/failed"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert found["episode/answers_share"] == pytest.approx(1 / 3)
    assert of_episodes([part("e", "", 1)]) == {}
