"""`cohort eval`: how good a trained model is."""

from __future__ import annotations

import json

import pytest

from tests.cli.command import everything, run, write
from tests.environments import hostile


def test_eval_measures_a_trained_model(done, monkeypatch):
    folder, _, _ = done
    monkeypatch.chdir(folder.parent.parent)
    command = ["eval", folder / "final", "--samples", "2", "--json", "--device", "cpu", "--limit", "5"]
    status, out, err = run(*command, "--data", "sums.jsonl", "--reward", "number", "--max-new-tokens", "8")
    assert status == 0, err
    result = json.loads(out)
    assert (result["problems"], result["samples"]) == (5, 2)
    assert {"pass@1", "pass@2", "reward/mean", "reward/number", "completion/length_mean"} <= set(result["metrics"])
    for entry in result["metrics"].values():
        assert entry["low"] <= entry["value"] <= entry["high"]
    # The configuration of the run says the same.
    assert json.loads(run(*command, "--config", folder / "config.yaml")[1]) == result


def test_eval_shows_and_saves_completions(done, monkeypatch, tmp_path):
    folder, _, _ = done
    monkeypatch.chdir(folder.parent.parent)
    command = ["eval", folder / "final", "--config", folder / "config.yaml", "--samples", "2", "--limit", "3"]
    status, out, err = run(*command, "--show", "2", "--out", tmp_path / "out.jsonl")
    assert status == 0, err
    saved = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(each["problem"], each["sample"]) for each in saved] == [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)]
    assert [f"prompt {each['problem']}: {each['question']}" in out for each in saved] == [True] * 4 + [False] * 2
    assert f"(answer: {saved[0]['answer']})" in out
    assert json.loads(run(*command, "--json")[1])["completions"] == saved
    status, _, err = run(*command, "--out", tmp_path)
    assert (status, "--out" in err, "name a file" in err) == (2, True, True)


def test_eval_prints_a_table(done, monkeypatch):
    folder, _, _ = done
    monkeypatch.chdir(folder.parent.parent)
    status, out, _ = run("eval", folder / "final", "--config", folder / "config.yaml", "--limit", "3")
    assert status == 0
    assert "3 problems, 1 completions each" in out
    assert "pass@1" in out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "no data was given: --data takes a file"),
        (["--data", "gone.jsonl", "--reward", "number"], "there is no file gone.jsonl"),
        (["--data", "sums.jsonl"], "no reward was given"),
        (["--data", "sums.jsonl", "--reward", "task"], "'task' is the verifier of reasoning_gym data"),
    ],
)
def test_eval_refuses_with_status_2(here, model, options, says):
    status, out, err = run("eval", model, "--device", "cpu", "--max-new-tokens", "8", *options)
    assert (status, out) == (2, "")
    assert says in err
    assert everything(here) == ["sums.jsonl"]


def test_eval_measures_with_an_environment(done, monkeypatch, tmp_path):
    folder, _, _ = done
    monkeypatch.chdir(tmp_path)
    data = write(tmp_path / "tasks.jsonl", [{"prompt": "1+1=", "do": "fine"}, {"prompt": "1+2=", "do": "raise"}])
    command = ["eval", folder / "final", "--environment", f"{hostile.__file__}:Hostile", "--data", data, "--show", "2"]
    sizes = ["--max-new-tokens", "60", "--samples", "4", "--device", "cpu", "--set", "logit_bias={1: 4.0}"]
    status, out, err = run(*command, *sizes, "--out", "out.jsonl")
    assert status == 0, err
    assert "episode/turns_mean" in out
    for each in map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines()):
        turns = f"in {len(each['turns'])} turn{'' if len(each['turns']) == 1 else 's'}"
        how = {"done": "", "tokens": ", out of tokens", "failed": ", its environment failed"}[each["end"]]
        reward = "no reward" if each["reward"] is None else f"reward {each['reward']:.3g}"
        assert f"{reward}, {each['tokens']} tokens {turns}{how}\n" in out
    status, _, err = run(*command[:3], "nowhere.py:World", *command[4:], *sizes)
    assert (status, "there is no file nowhere.py" in err) == (2, True)


def test_eval_searches_with_a_value_model_that_it_trains_first(done, monkeypatch, tmp_path):
    folder, _, _ = done
    monkeypatch.chdir(folder.parent.parent)
    command = ["eval", folder / "final", "--device", "cpu", "--data", "sums.jsonl", "--reward", "number"]
    command += ["--max-new-tokens", "8", "--limit", "3", "--json", "--search", "2", "--value", tmp_path / "value.pt"]
    status, _, err = run(*command)
    assert (status, "there is no value model" in err) == (2, True)
    status, out, err = run(*command, "--value-data", "sums.jsonl", "--value-limit", "2", "--value-rounds", "2")
    assert status == 0, err
    assert "searching 2 prompts with rewards" in err
    result = json.loads(out)
    assert (result["problems"], result["samples"]) == (3, 1)
    assert len(result["completions"]) == 3
    # The value model that was written finds the same.
    assert json.loads(run(*command)[1]) == result


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--search", "2"], "--search needs --value FILE"),
        (["--search", "2", "--value", "v.pt", "--samples", "4"], "one answer to each prompt"),
        (["--value", "v.pt"], "belong to --search ROUNDS"),
    ],
)
def test_a_search_is_refused_where_it_lacks_something(here, model, options, says):
    command = ["eval", model, "--device", "cpu", "--max-new-tokens", "8", "--data", "sums.jsonl", "--reward", "number"]
    status, out, err = run(*command, *options)
    assert (status, out) == (2, "")
    assert says in err
