"""Runs whose rewards are a judge's."""

import json

import pytest

from cohort.errors import UsageError
from cohort.rewards.calling import RewardError
from cohort.rewards.judges import server as server_module
from cohort.training.config import make_config
from cohort.training.run import train
from tests import micro
from tests.rewards.judges.serving import Serving, serve


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COHORT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(server_module, "PAUSE", 0.02)


@pytest.fixture
def run(tmp_path, micro_root):
    def go(*rewards, name="run", resume=False, **settings):
        given = {
            **micro.CONFIG,
            "model": str(micro.folder(micro_root)),
            "method": "grpo(kl_beta=0.0)",
            "reward": list(rewards),
            "steps": 4,
            "prompts_per_step": 2,
            "group_size": 3,
            "device": "cpu",
            "out": str(tmp_path / name),
            **settings,
        }
        return train(make_config(given), resume=resume)

    return go


def by_text(messages):
    """A score that the answer alone decides, so that every run of the same seed sees the same."""
    said = messages[-1]["content"].split("Answer:\n")[1]
    return f"Score: {1 + sum(map(ord, said.split(chr(10))[1])) % 10}"


def numbers(result):
    return [(m["loss"], m["reward/mean"], m["reward/quality"]) for m in result.metrics]


def test_a_spent_budget_saves_the_run_and_a_larger_one_goes_on_without_paying_again(run, tmp_path) -> None:
    with serve(Serving(answer=by_text)) as serving:
        judge = f"judge:quality@{serving.url}"
        whole = run(judge, name="whole", judge_cache=False)
        asked = len(serving.asked)
        assert whole.metrics[-1]["judge/calls"] == asked > 4
        with pytest.raises(RewardError, match=r"budget of 4 calls \(judge_calls\) is spent") as caught:
            run(judge, judge_calls=4)
        assert any("saved" in note for note in caught.value.__notes__)
        assert len(serving.asked) == asked + 4
        folder = tmp_path / "run"
        assert json.loads((folder / "judges.json").read_text())["calls"] == 4
        with pytest.raises(UsageError, match=r"budget of 4 calls \(judge_calls\) is spent: raise the limit"):
            run(judge, resume=True, judge_calls=4)
        again = run(judge, resume=True, judge_calls=1000)
        # What was answered before the end was not asked again, and the run is the one that was never interrupted.
        distinct = len({body["messages"][-1]["content"] for body in serving.asked})
        assert len(serving.asked) - asked == distinct == json.loads((folder / "judges.json").read_text())["calls"]
        assert numbers(again) == numbers(whole)
        skipping = run(judge, name="skipping", judge_calls=1, judge_on_spent="skip", judge_cache=False)
        assert skipping.metrics[-1]["rollouts/abstained"] == 6


def test_runs_ahead_of_training_have_the_same_judge(run) -> None:
    with serve(Serving(answer=by_text)) as serving:
        judge = f"judge:quality@{serving.url}"
        first = run(judge, name="a", ahead=1)
        asked = len(serving.asked)
        assert numbers(run(judge, name="b", ahead=1)) == numbers(first)
        assert len(serving.asked) == asked
        with pytest.raises(UsageError, match="the policy cannot judge for a method while it draws ahead"):
            run("exact", name="c", ahead=1, method="pref-grpo(judge='better@policy')")


@pytest.mark.parametrize("ahead", [0, 1])
def test_the_policy_judges_itself(run, ahead, tmp_path) -> None:
    short = tmp_path / "short.md"
    short.write_text("---\nanswer: score 0-9\n---\n{completion}")
    settings = {"judge_reply": 3, "ahead": ahead, "eval_data": micro.ROWS, "eval_size": 2, "eval_every": 2}
    rewards = (f"judge:{short}@policy", "exact")
    result = run(*rewards, name="a", **settings)
    assert result.metrics[-1]["judge/calls"] > 0
    # Whatever it replies, it is asked as it is now, and never from the cache.
    assert all(m["judge/short/cached"] == 0 <= m["judge/short/unread"] for m in result.metrics)
    again = run(*rewards, name="b", **settings)
    assert [(m["loss"], m["reward/mean"]) for m in again.metrics] == [
        (m["loss"], m["reward/mean"]) for m in result.metrics
    ]


def test_a_server_that_dies_ends_the_run_saved_or_costs_the_rollouts_their_reward(run) -> None:
    serving = Serving(answer=by_text)
    with serve(serving):
        judge = f"judge:quality@{serving.url}"
        serving.plan = [None] * 4
        serving.forever = 500
        with pytest.raises(
            RewardError, match=r"reward 'quality' failed on .*(500.*judge_timeout|judge_timeout.*500)"
        ) as caught:
            run(judge, name="stop", judge_timeout=0.3)
        assert any("stop" in note for note in caught.value.__notes__)
        result = run(judge, "exact", name="skip", judge_timeout=0.3, on_reward_error="skip")
        assert result.metrics[-1]["rollouts/failed"] > 0


def test_what_is_wrong_is_said_before_a_model_is_loaded(run, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("cohort.training.build.load_policy", lambda *_, **__: pytest.fail("a model was loaded"))
    with serve(Serving()) as serving:
        own = tmp_path / "own.md"
        own.write_text("---\nanswer: verdict\n---\nIs {completion} in the style of {style}?")
        for reward, why in (
            (f"judge:{own}@{serving.url}", r"shows \{style\}, which .* lacks"),
            ("judge:quality@http://127.0.0.1:9", "is not there: it cannot be reached"),
            (f"judge:nowhere.md@{serving.url}", "'nowhere.md' is none of quality"),
            ("judge", "write PROMPT@MODEL"),
            (f"judge:quality@{serving.url}#gpt", "has no model 'gpt': it has judge"),
        ):
            with pytest.raises(UsageError, match=why):
                run(reward, judge_timeout=0.3)
    assert not (tmp_path / "run").exists()


def test_another_prompt_is_another_run(run, tmp_path) -> None:
    own = tmp_path / "own.md"
    own.write_text("---\nanswer: score 1-10\n---\nHow good is {completion}?")
    with serve(Serving(answer=lambda messages: "Score: 5")) as serving:
        judge = f"judge:{own}@{serving.url}"
        run(judge, steps=1)
        own.write_text("---\nanswer: score 1-10\n---\nHow bad is {completion}?")
        with pytest.raises(UsageError, match=r"own.md was edited"):
            run(judge, resume=True, steps=2)
