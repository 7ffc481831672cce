"""The command with --pairs: a run from a file of preferences, and how it refuses."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from cohort.analysis.configuration import flat
from tests.cli.command import SUMS, everything, run, write

PAIRS = [{"prompt": f"{a}+{b}=", "chosen": str(a + b), "rejected": str(a + b + 1)} for a in range(3) for b in range(3)]
SMALL = ["--steps", "2", "--prompts-per-step", "3", "--device", "cpu", "--lr", "1e-3", "--max-new-tokens", "8"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder that the command is run in, with the files pairs.jsonl and sums.jsonl."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "pairs.jsonl", PAIRS)
    write(tmp_path / "sums.jsonl", SUMS)
    return tmp_path


def lines(text):
    return lambda here: (here / "pairs.jsonl").write_text(text)


def test_pairs_alone_train_a_model_without_a_reward(here, model):
    status, out, err = run("train", "dpo", "--model", model, "--pairs", "pairs.jsonl", *SMALL)
    assert status == 0, err
    folder = here / "runs" / "dpo-tiny-1"
    stored = flat(yaml.safe_load((folder / "config.yaml").read_text()))
    assert (stored["pairs"], stored["data"], stored["reward"]) == ("pairs.jsonl", None, [])
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["rollouts/sampled"] for row in rows] == [6, 6]
    assert rows[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert (folder / "final" / "model.safetensors").is_file()
    # What is not known is not shown, and nothing is proposed that has no data to run on.
    assert "nan" not in err
    assert re.search(r"step 2/2  loss 0\.\d+  margin -?\d", err)
    assert "2 steps, 0 tokens sampled" in out
    assert "what next" not in out


def test_single_completions_with_labels_train_a_model(here, model):
    """No prompt has two of them: what learns from single ones must not wait for a group to compare."""
    write(
        here / "labelled.jsonl",
        [{"prompt": f"{a}+1=", "completion": str(a + a % 2), "label": a % 2 == 1} for a in range(8)],
    )
    data = ["--model", model, "--pairs", "labelled.jsonl", "--out", "run"]
    status, _, err = run("train", "kto", *data, *SMALL, "--prompts-per-step", "4")
    assert status == 0, err
    assert "nothing was trained on" not in err
    rows = [json.loads(line) for line in (here / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(row["loss"] > 0 and row["grad_norm"] > 0 for row in rows)


def test_held_out_data_is_evaluated_with_a_reward(here, model):
    data = ["--pairs", "pairs.jsonl", "--eval-data", "sums.jsonl", "--reward", "number"]
    write(here / "pairs.jsonl", [*PAIRS, {"prompt": "3*3=", "chosen": "9", "rejected": "6"}])
    status, out, err = run("train", "kto", "--model", model, *data, "--out", "run", *SMALL)
    assert status == 0, err
    assert "9 training prompts are also in eval_data and were left out of training" in err
    assert "before training: accuracy" in err
    assert "accuracy on 16 unseen problems" in out
    status, out, err = run("eval", "run/final", "--config", "run/config.yaml", "--device", "cpu", "--json")
    assert status == 0, err
    assert json.loads(out)["problems"] == 16


def test_rollouts_and_pairs_in_one_run(here, model):
    data = ["--data", "sums.jsonl", "--reward", "format:[0-4]", "--pairs", "pairs.jsonl", "--group-size", "3"]
    status, _, err = run("train", "f-hal", "--model", model, *data, "--out", "run", *SMALL)
    assert status == 0, err
    rows = [json.loads(line) for line in (here / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["rollouts/sampled"] for row in rows] == [9, 9]
    assert all(row["mismatch_max"] < 1e-4 for row in rows)


def test_a_stopped_command_goes_on(here, model):
    command = ["train", "dpo", "--model", model, "--pairs", "pairs.jsonl", "--out", "run", *SMALL, "--quiet"]
    assert run(*command)[0] == 0
    status, _, err = run(*command, "--resume", "--set", "steps=4")
    assert status == 0, err
    rows = [json.loads(line) for line in (here / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    status, _, err = run(*command, "--resume", "--pairs", "others.jsonl")
    assert (status, "pairs (was 'pairs.jsonl', now 'others.jsonl')" in err) == (2, True)


class Bad:
    """A command that must be refused: options that replace or add to those of a command that works."""

    def __init__(self, *options, says, method="dpo", prepare=lambda here: None, **replaced):
        self.options, self.says, self.method, self.prepare, self.replaced = options, says, method, prepare, replaced

    def command(self, model):
        named = {"model": model, "pairs": "pairs.jsonl", **self.replaced}
        given = [x for name, value in named.items() if value is not None for x in (f"--{name}", value)]
        return ["train", self.method, *given, *SMALL, *self.options]


BAD = {
    "missing pairs": Bad(pairs="gone.jsonl", says=["there is no file gone.jsonl"]),
    "pairs of an unknown kind": Bad(
        pairs="runs", prepare=lambda here: (here / "runs").mkdir(), says=["is a folder: name"]
    ),
    "empty pairs": Bad(prepare=lines(""), says=["pairs.jsonl has no rows"]),
    "malformed line": Bad(
        prepare=lines('{"prompt": "a", "chosen": "1", "rejected": "2"}\n{"prompt": \n'),
        says=["pairs.jsonl, line 2: malformed JSON: Expecting value (column"],
    ),
    "no rejected": Bad(
        prepare=lines('{"prompt": "a", "chosen": "1"}\n'),
        says=[
            "pairs.jsonl, line 1: there is no column 'rejected' (it has: prompt, chosen)",
            "'completion' and its 'label'",
        ],
    ),
    "no prompt": Bad(
        prepare=lines('{"question": "a", "chosen": "1", "rejected": "2"}\n'),
        says=[
            "pairs.jsonl, line 1: there is no column 'prompt' (it has: question, chosen, rejected)",
            "--prompt-field",
        ],
    ),
    "completion of a wrong kind": Bad(
        prepare=lines('{"prompt": "a", "chosen": {"text": "1"}, "rejected": "2"}\n'),
        says=["pairs.jsonl, line 1: 'chosen' must be a text, or a list of messages that ends with the assistant's"],
    ),
    "wrong label": Bad(
        method="kto",
        prepare=lines('{"prompt": "a", "completion": "1", "label": "yes"}\n'),
        says=["pairs.jsonl, line 1: 'label' must be true or false (1 or 0), not 'yes'"],
    ),
    "completion too long": Bad(
        prepare=lines(json.dumps(PAIRS[0]) + "\n" + json.dumps({**PAIRS[0], "chosen": "x" * 150}) + "\n"),
        says=["pairs.jsonl, line 2: prompt and completion have ", "the model's context of 128", "leave the row out"],
    ),
    "single completions": Bad(
        prepare=lines('{"prompt": "a", "completion": "1", "label": true}\n'),
        says=[
            "'dpo' compares completions of one prompt, but no prompt of pairs.jsonl has a good and a bad one",
            "(kto",
        ],
    ),
    "method of rollouts": Bad(
        method="gspo",
        says=["'gspo' learns from rollouts of its own", "(--pairs)", "name prompts with --data", "dpo, ", "kto"],
    ),
    "method of both without data": Bad(
        method="f-hal", says=["'f-hal' draws rollouts as well: name their prompts with --data"]
    ),
    "method of both without pairs": Bad(
        "--data",
        "sums.jsonl",
        "--reward",
        "number",
        method="f-hal",
        pairs=None,
        says=["'f-hal' learns from a preference batch in addition to its rollouts: name its file with --pairs"],
    ),
    "method of one with both": Bad(
        "--data", "sums.jsonl", "--reward", "number", says=["both --data and --pairs were given: leave one out"]
    ),
    "rollouts without a reward": Bad("--data", "sums.jsonl", method="f-hal", says=["no reward was given"]),
    "sampling without effect": Bad(
        method="dpo+knapsack", says=["fills the axis 'budget' (knapsack_budget)", "'NAME:-budget'"]
    ),
    "what was never sampled": Bad(
        method="dpo+gtpo:credit",
        says=["(conflict_credit) reads 'old_entropy'", "not known of the completions of --pairs"],
    ),
    "sampler's log-probabilities": Bad("--set", "old_logp=sampler", says=["old_logp = sampler", "use auto or score"]),
    "a judge's reward": Bad(
        method="trpa(format='kept')", says=["none but their label: leave that part of the method out"]
    ),
    "no column": Bad(
        method="group-robust-po",
        says=[
            "'group-robust-po' (worst_group) reads the column 'labeller', which line 1 of the pairs lacks (it has: prompt"
        ],
    ),
    "held-out data without a reward": Bad("--eval-data", "sums.jsonl", says=["no reward to measure it with: name one"]),
    "held-out data without answers": Bad(
        "--eval-data",
        "held.jsonl",
        "--reward",
        "number",
        prepare=lambda here: write(here / "held.jsonl", [{"prompt": "1*1="}]),
        says=["the reward 'number' compares with the column 'answer', which line 1 of the held-out data lacks"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_train_refuses_what_cannot_be_done_and_leaves_nothing_behind(here, model, name):
    bad = BAD[name]
    bad.prepare(here)
    before = everything(here)
    status, out, err = run(*bad.command(model))
    assert (status, out) == (2, "")
    assert err.startswith("cohort: ")
    assert err.count("\n") == 1
    for part in bad.says:
        assert part in err
    assert everything(here) == before
