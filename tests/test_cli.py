"""The command `cohort`: what it prints, what it writes, and how it refuses."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
import yaml

import cohort
from cohort import cli, registry
from cohort.analysis.configuration import flat
from tests.helpers import tiny_policy

SUMS = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(4) for b in range(4)]


def run(*arguments):
    """Status, standard output and standard error of the command."""
    out, err = io.StringIO(), io.StringIO()
    status = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["cohort", *map(str, arguments)])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main()
            except SystemExit as stop:
                status = stop.code or 0
    return status, out.getvalue(), err.getvalue()


@pytest.fixture(autouse=True)
def _no_warm_start(monkeypatch):
    """The default model takes a minute to make: no test of the command may ask for it."""

    def folder(*_):
        raise AssertionError("a test asked for the default model")

    monkeypatch.setattr("cohort.training.toy.folder", folder)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A model folder of a few thousand parameters."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    tiny_policy().save(path)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder that the command is run in, with the file sums.jsonl."""
    monkeypatch.chdir(tmp_path)
    return with_sums(tmp_path)


def with_sums(folder):
    write(folder / "sums.jsonl", SUMS)
    return folder


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# what it knows -----------------------------------------------------------------------------------------------------


def test_version():
    assert run("--version") == (0, f"cohort {cohort.__version__}\n", "")


def test_without_a_command_it_shows_help():
    _, out, err = run()
    for command in ("train", "eval", "score", "sft", "methods", "explain", "merge"):
        assert command in out + err


def test_methods_lists_every_method():
    status, out, err = run("methods")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    for name in registry.names():
        paper = registry.recipe(name).paper.replace("arXiv:", "")
        assert any(line.split()[:1] == [name] and paper in line for line in lines), name


def test_methods_as_json():
    status, out, err = run("methods", "--json")
    assert (status, err) == (0, "")
    rows = json.loads(out)
    assert [row["name"] for row in rows] == list(registry.names())
    assert all(set(row) == {"name", "paper", "axes", "confidence", "idea", "requires"} for row in rows)
    assert all(row["paper"] and row["axes"] and row["confidence"] and row["idea"] for row in rows)


def test_explain_says_what_a_composition_does_and_where_it_comes_from():
    status, out, err = run("explain", "dapo+gdpo")
    assert (status, err) == (0, "")
    for part in ("dapo+gdpo", "## dapo", "## gdpo", "arXiv:2503.14476", "arXiv:2601.05242", "## What it costs"):
        assert part in out
    # Axis by axis, each with the method that fills it.
    for stage, source in (
        ("ppo_clip", "dapo"),
        ("decoupled", "gdpo"),
        ("mixed_accuracy", "dapo"),
        ("adamw", "default"),
    ):
        (line,) = [line for line in out.splitlines() if line.strip().startswith(stage)]
        assert line.endswith(f"[{source}]")
    assert "high=0.28" in out


def test_explain_refuses_an_unknown_method_and_names_near_ones():
    status, out, err = run("explain", "dapoo")
    assert (status, out) == (2, "")
    assert "there is no method 'dapoo'; did you mean 'dapo'" in err


# score -------------------------------------------------------------------------------------------------------------

COMPLETED = [
    {"prompt": "2+2=", "completion": "4", "answer": "4"},
    {"prompt": "2+3=", "completion": ["5", "2+3=5", "6"], "answer": "5"},
    {"prompt": "2+4=", "completion": [{"role": "assistant", "content": "it is 7"}], "answer": "6"},
    {"prompt": "?", "completion": "7", "answer": "none"},
]


def test_score_prints_an_object_a_completion(here):
    data = write(here / "done.jsonl", COMPLETED)
    status, out, err = run("score", "--data", data, "--reward", "number", "--reward", "0.5*format:=")
    assert status == 0
    assert [json.loads(line) for line in out.splitlines()] == [
        {"row": 1, "sample": 0, "reward": 1.0, "number": 1.0, "format": 0.0},
        {"row": 2, "sample": 0, "reward": 1.0, "number": 1.0, "format": 0.0},
        {"row": 2, "sample": 1, "reward": 1.5, "number": 1.0, "format": 1.0},
        {"row": 2, "sample": 2, "reward": 0.0, "number": 0.0, "format": 0.0},
        {"row": 3, "sample": 0, "reward": 0.0, "number": 0.0, "format": 0.0},
        {"row": 4, "sample": 0, "reward": 0.0, "number": None, "format": 0.0},
    ]
    assert err.splitlines() == [
        f"{data}: 1 of 4 rows have an answer that is no number (line 4): the reward 'number' does not apply to them",
        "6 completions; mean reward 0.5833, number 0.6, format 0.1667",
    ]


def test_score_writes_a_file(here):
    data = write(here / "done.jsonl", COMPLETED[:2])
    status, out, _ = run("score", "--data", data, "--reward", "exact", "--json", here / "scores.jsonl")
    assert (status, out) == (0, "")
    rows = [json.loads(line) for line in (here / "scores.jsonl").read_text().splitlines()]
    assert [row["exact"] for row in rows] == [1.0, 1.0, 0.0, 0.0]


def test_score_takes_other_columns_and_well_known_data(here):
    data = write(here / "a.jsonl", [{"question": "q", "answer": "I count.\n#### 2", "said": "2"}])
    status, out, _ = run("score", "--data", data, "--reward", "exact", "--completion-field", "said")
    assert (status, json.loads(out)["exact"]) == (0, 1.0)
    data = write(here / "b.jsonl", [{"task": "q", "gold": "2", "completion": "2"}])
    fields = ["--prompt-field", "task", "--answer-field", "gold"]
    status, out, _ = run("score", "--data", data, "--reward", "exact", *fields)
    assert (status, json.loads(out)["exact"]) == (0, 1.0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--completion-field", "said"], "done.jsonl, line 1: there is no column 'said' (it has prompt, completion"),
        (["--answer-field", "gold"], "done.jsonl, line 1: there is no column 'gold' (it has prompt, completion"),
        (["--prompt-field", "task"], "done.jsonl, line 1: there is no column 'task'"),
        (["--reward", "numbr"], "there is no reward 'numbr'"),
        (["--on-reward-error", "ignore"], "--on-reward-error ignore: Input should be 'stop', 'zero' or 'skip'"),
        (["--data", "gone.jsonl"], "there is no file gone.jsonl"),
    ],
)
def test_score_refuses_with_status_2(here, options, says):
    write(here / "done.jsonl", COMPLETED)
    status, out, err = run("score", "--data", "done.jsonl", "--reward", "number", *options)
    assert (status, out) == (2, "")
    assert err.startswith("cohort: ")
    assert says in err
    assert "Traceback" not in err


def test_score_refuses_what_is_no_completion_and_rows_without_answers(here):
    for completion in (None, 5, {"content": "x"}, ["x", 5]):
        data = write(here / "odd.jsonl", [COMPLETED[0], {"completion": completion, "answer": "1"}])
        status, out, err = run("score", "--data", data, "--reward", "number")
        assert (status, out) == (2, "")
        assert "odd.jsonl, line 2: a completion must be a text or messages, not" in err
    data = write(here / "bare.jsonl", [{"completion": "1"}])
    status, _, err = run("score", "--data", data, "--reward", "number")
    assert status == 2
    assert "the reward 'number' compares with the column 'answer'" in err


def test_score_does_with_failures_as_asked(here):
    (here / "mine.py").write_text("def picky(completions):\n    return [1 / (c != 'bad') for c in completions]\n")
    write(here / "done.jsonl", [{"completion": ["good", "bad", "good"]}])
    command = ["score", "--data", "done.jsonl", "--reward", "mine.py:picky"]
    for choice, value in (("zero", 0.0), ("skip", None)):
        status, out, _ = run(*command, "--on-reward-error", choice)
        assert status == 0
        assert [json.loads(line)["picky"] for line in out.splitlines()] == [1.0, value, 1.0]
    status, out, err = run(*command)
    assert (status, out) == (3, "")
    assert "reward 'picky' failed on done.jsonl, line 1 (prompt '', completion 'bad'): ZeroDivisionError" in err


# train: what it refuses --------------------------------------------------------------------------------------------


class Bad:
    """A command that must be refused: options that replace or add to those of a command that works."""

    def __init__(self, *options, says, method="grpo", prepare=lambda here: None, **replaced):
        self.options, self.says, self.method, self.prepare, self.replaced = options, says, method, prepare, replaced

    def command(self, model):
        options = {"model": model, "data": "sums.jsonl", "reward": "number", **self.replaced}
        named = [x for name, value in options.items() if value is not None for x in (f"--{name}", value)]
        sizes = ["--steps", "1", "--max-new-tokens", "8", "--device", "cpu"]
        return ["train", self.method, *named, *sizes, *self.options]


def lines(text):
    return lambda here: (here / "sums.jsonl").write_text(text)


def folder_with(name, *files):
    def prepare(here):
        for file in files:
            path = here / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")

    return prepare


BAD = {
    "missing data": Bad(data="gone.jsonl", says=["there is no file gone.jsonl"]),
    "data of an unknown kind": Bad(
        data="sums.txt",
        prepare=folder_with(".", "sums.txt"),
        says=["sums.txt is no file of a known kind", ".jsonl, .json, .csv, .tsv, .parquet"],
    ),
    "no data": Bad(data=None, says=["no data was given: --data takes"]),
    "malformed line": Bad(
        prepare=lines('{"prompt": "a"}\n{"prompt": \n'),
        says=["sums.jsonl, line 2: malformed JSON: Expecting value (column"],
    ),
    "row without prompt": Bad(
        prepare=lines('{"prompt": "a", "answer": 1}\n{"text": "b"}\n'),
        says=["sums.jsonl, line 2: there is no column 'prompt' (it has: text)", "--prompt-field", "--template"],
    ),
    "prompt of a wrong kind": Bad(
        prepare=lines('{"prompt": 5, "answer": 1}\n'), says=["sums.jsonl, line 1: the prompt must be a text or a list"]
    ),
    "empty data": Bad(prepare=lines(""), says=["sums.jsonl has no rows"]),
    "no answers": Bad(
        prepare=lines('{"prompt": "a"}\n'), says=["'number' compares with the column 'answer'", "--answer-field"]
    ),
    "missing held-out data": Bad("--eval-data", "held.jsonl", says=["there is no file held.jsonl"]),
    "unknown task": Bad(data="reasoning_gym:chain_sun", says=["has no task 'chain_sun'; did you mean chain_sum"]),
    "unknown field": Bad(
        "--prompt-field", "task", says=["line 1: there is no column 'task' (--prompt-field); it has prompt"]
    ),
    "template without fields": Bad("--template", "Go!", says=["line 1: the template uses none of the row's fields"]),
    "unknown method": Bad(method="dappo", says=["there is no method 'dappo'; did you mean 'dapo'", "cohort methods"]),
    "unknown hyperparameter": Bad(method="dapo(clip=1)", says=["'dapo' has no hyperparameter 'clip'", "clip_low"]),
    "no expression": Bad(method="dapo+", says=["'dapo+' is no method expression: write names joined by +"]),
    "conflict": Bad(
        method="dapo+etr",
        says=["conflict on the axis 'surrogate': 'dapo' (ppo_clip) and 'etr' (elastic_clip)", "'dapo:-surrogate+etr'"],
    ),
    "unknown axis": Bad(method="dapo:advantag", says=["there is no axis 'advantag' (axes: curriculum, ", "advantage"]),
    "missing method file": Bad(method="gone.py:mine", says=["there is no file gone.py"]),
    "unknown reward": Bad(reward="numbr", says=["there is no reward 'numbr': builtin are exact, number", "file.py"]),
    "unknown record": Bad("--record", "all", says=["--record all: Input should be 'none', 'rollouts', 'sampled' or"]),
    "no reward": Bad(reward=None, says=["no reward was given; builtin are exact, number"]),
    "missing reward file": Bad(reward="gone.py:mine", says=["reward 'gone.py:mine': there is no file gone.py"]),
    "bad expression": Bad(reward="format:(", says=["reward 'format:(': no regular expression"]),
    "verifier of other data": Bad(
        reward="task", says=["'task' is the verifier of reasoning_gym data", "number or math"]
    ),
    "unknown accuracy": Bad(
        "--set", "accuracy=exact", says=["accuracy = 'exact' names no reward of this run (number)"]
    ),
    "unknown key": Bad("--set", "group_sise=4", says=["there is no key 'group_sise'; did you mean group_size"]),
    "unknown key of a section": Bad(
        "--set", "checkpoint.keeps=4", says=["'checkpoint.keeps'; did you mean checkpoint.keep"]
    ),
    "wrong type": Bad("--set", "steps=many", says=["--set steps=many: Input should be a valid integer"]),
    "out of range": Bad("--top-p", "2", says=["--top-p 2: Input should be less than or equal to 1"]),
    "minimum above the limit": Bad("--min-new-tokens", "9", says=["min_new_tokens is 9", "ends at max_new_tokens = 8"]),
    "empty stop": Bad("--stop", "", says=["stop: an empty text would end every rollout at its first token"]),
    "unknown stop token": Bad(
        "--set", "stop_token_ids=[102]", says=["there is no token 102; the model has token ids 0 to"]
    ),
    "bias of many tokens": Bad("--set", "logit_bias={ab: 1}", says=["logit_bias: 'ab' is 2 tokens (", "give the ids"]),
    "bias of no token": Bad("--set", "logit_bias={200: 1}", says=["logit_bias: there is no token 200"]),
    "bias without bound": Bad(
        "--set", "logit_bias={a: -.inf}", says=["'a' has -inf, which is no number; -100 is enough"]
    ),
    "unknown choice": Bad("--dtype", "float16", says=["--dtype float16: Input should be 'auto', 'float32' or"]),
    "no equals sign": Bad("--set", "steps", says=["--set steps: write KEY=VALUE"]),
    "missing configuration": Bad("--config", "gone.yaml", says=["--config: gone.yaml cannot be read: No such file"]),
    "configuration without keys": Bad(
        "--config", "c.yaml", prepare=folder_with(".", "c.yaml"), says=["--config: c.yaml holds no keys"]
    ),
    "groups of one": Bad(
        "--group-size", "1", says=["group_size is 1, but 'grpo' compares rollouts", "set group_size to 2 or more"]
    ),
    "folder in use": Bad(
        "--out",
        "old",
        prepare=folder_with("old", "config.yaml"),
        says=["old already holds something", "--out", "--resume"],
    ),
    "unknown device": Bad("--device", "gpu", says=["--device gpu: no such kind of device; use cpu, cuda or cuda:N"]),
    "missing model": Bad(model="absent", says=["model 'absent': no such folder, and no hub id"]),
    "no tokenizer": Bad(
        model="made",
        prepare=folder_with("made", "config.json", "model.safetensors"),
        says=["made has no tokenizer (tokenizer.json)", "tokenizer.save_pretrained"],
    ),
    "pickled weights": Bad(
        model="made",
        prepare=folder_with("made", "config.json", "pytorch_model.bin", "tokenizer.json"),
        says=["made holds its weights as a pickle (pytorch_model.bin)", "convert it to safetensors"],
    ),
    "no weights": Bad(
        model="made", prepare=folder_with("made", "config.json", "tokenizer.json"), says=["made has no weights"]
    ),
    "no model configuration": Bad(
        model="made",
        prepare=folder_with("made", "model.safetensors", "tokenizer.json"),
        says=["made is no model folder: it has no config.json"],
    ),
    "adapter": Bad(
        model="made",
        prepare=folder_with("made", "adapter_config.json", "adapter_model.safetensors"),
        says=["made holds a LoRA adapter; make a whole model of it with 'cohort merge made'"],
    ),
    "no beginning of sequence": Bad("--bos", says=["--bos: the tokenizer of", "has no beginning-of-sequence token"]),
    "no solutions": Bad(
        method="sage",
        says=["'sage' (hint_search) reads the column 'solution', which line 1 of the training data lacks (it has: "],
    ),
    "prompt too long": Bad(
        prepare=lines(json.dumps(SUMS[0]) + "\n" + json.dumps({"prompt": "x" * 150, "answer": "1"}) + "\n"),
        says=["sums.jsonl, line 2: the prompt has 152 tokens", "max_new_tokens=8", "context of 128: shorten it"],
    ),
    "completion too long": Bad(
        "--max-new-tokens", "128", says=["sums.jsonl, line 1: the prompt has 6 tokens", "lower max"]
    ),
}


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts)


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


def test_train_refuses_where_there_is_no_room(here, model, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6 - 10, 10))
    before = everything(here)
    status, out, err = run(*Bad("--out", "far/away", says=[]).command(model))
    assert (status, out) == (2, "")
    assert err.startswith(f"cohort: {Path('.')} has 0.0 GB free, but 3 checkpoints need ")
    assert "lower checkpoint.keep, or put the run elsewhere with --out" in err
    assert everything(here) == before


@pytest.mark.parametrize("option", [["--lr", "fast"], ["--stepps", "3"], ["--steps"]])
def test_train_refuses_a_malformed_command_line(here, model, option):
    status, _, err = run(*Bad(*option, says=[]).command(model))
    assert status == 2
    assert option[0] in err
    assert "Traceback" not in err
    assert everything(here) == ["sums.jsonl"]


# train, eval, merge ------------------------------------------------------------------------------------------------

SMALL = ["--prompts-per-step", "2", "--group-size", "2", "--max-new-tokens", "8", "--device", "cpu", "--lr", "1e-3"]


@pytest.fixture(scope="module")
def done(model, tmp_path_factory):
    """A run of two steps: its folder, and what the command printed."""
    folder = with_sums(tmp_path_factory.mktemp("work"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        command = ["train", "grpo", "--model", model, "--data", "sums.jsonl", "--reward", "number", "--steps", "2"]
        status, out, err = run(*command, *SMALL)
    assert status == 0, err
    return folder / "runs" / "grpo-tiny-1", out, err


def test_a_run_has_a_folder_with_everything(done):
    folder, out, err = done
    stored = flat(yaml.safe_load((folder / "config.yaml").read_text()))
    assert (stored["method"], stored["steps"], stored["reward"]) == ("grpo", 2, ["number"])
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics] == [1, 2]
    assert all({"loss", "grad_norm", "reward/mean", "reward/number", "time/step"} <= set(row) for row in metrics)
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["method"], summary["steps"], summary["stopped"]) == ("grpo", 2, False)
    assert summary["sampled_tokens"] > 0
    for step in (1, 2):
        table = pyarrow.parquet.read_table(folder / "rollouts" / f"step-{step:06d}.parquet").to_pydict()
        assert len(table["completion"]) == 4
        assert set(table["prompt"]) <= {f"<|user|>{row['prompt']}<|assistant|>" for row in SUMS}
        assert all(len(t) == len(m) <= 8 for t, m in zip(table["tokens"], table["mask"], strict=True))
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-000002"]
    assert (folder / "tensorboard").is_dir()
    assert "step 2/2" in err
    assert "2 steps, " in out
    assert "the model: runs/grpo-tiny-1/final" in out


def test_the_trained_model_is_loaded_by_transformers(done):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, _, _ = done
    tokenizer = AutoTokenizer.from_pretrained(folder / "final")
    model = AutoModelForCausalLM.from_pretrained(folder / "final")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "1+1="}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<|user|>1+1=<|assistant|>"
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    assert ids.shape == (1, 6)
    assert model(ids).logits.isfinite().all()


def test_the_next_run_has_the_next_number_and_a_configuration_file_repeats_a_run(done, monkeypatch):
    folder, _, _ = done
    monkeypatch.chdir(folder.parent.parent)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    del config["out"]
    Path("again.yaml").write_text(yaml.safe_dump(config))
    status, out, err = run("train", "--config", "again.yaml", "--set", "record_every=0", "--quiet")
    assert (status, out, err) == (0, "", "")
    again = folder.parent / "grpo-tiny-2"
    assert not (again / "rollouts").exists()

    def numbers(path):
        rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]

    assert numbers(again) == numbers(folder)


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


def test_train_says_the_accuracies_that_were_sampled_and_the_greedy_ones(done):
    folder, out, _ = done
    summary = json.loads((folder / "summary.json").read_text())
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    first, last = summary["accuracy_first_step"], summary["accuracy_last_step"]
    assert (first, last) == (rows[0]["accuracy"], rows[-1]["accuracy"])
    assert f"accuracy of the rollouts it drew: {first:.1%} in step 1, {last:.1%} in step {len(rows)} (sampled)" in out


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


def test_an_adapter_is_trained_and_merged(here, model):
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    data = ["--model", model, "--data", "sums.jsonl", "--reward", "format:[0-4]"]
    status, out, err = run("train", "grpo", *data, "--steps", "1", "--lora", "4", "--out", "run", *SMALL)
    assert status == 0, err
    assert "cohort merge run/final --out run/merged" in out
    assert (here / "run/final/adapter_config.json").is_file()
    status, _, err = run("eval", "run/final", "--data", "sums.jsonl", "--reward", "number")
    assert status == 2
    assert "cohort merge run/final" in err
    status, out, err = run("merge", "run/final", "--out", "run/merged")
    assert (status, out, err) == (0, "", "the model: run/merged\n")
    ids = AutoTokenizer.from_pretrained("run/merged")("1+1=", return_tensors="pt")["input_ids"]
    merged = AutoModelForCausalLM.from_pretrained("run/merged")
    adapted = AutoPeftModelForCausalLM.from_pretrained("run/final")
    assert not any("lora" in name for name, _ in merged.named_parameters())
    torch.testing.assert_close(merged(ids).logits, adapted(ids).logits, rtol=1e-4, atol=1e-4)
    # A folder in use, and one that is no adapter.
    assert "run/merged already holds something" in run("merge", "run/final", "--out", "run/merged")[2]
    status, _, err = run("merge", model, "--out", "other")
    assert status == 2
    assert "holds no LoRA adapter" in err
    status, _, err = run("merge", "run/finel", "--out", "other")
    assert (status, err) == (2, "cohort: there is no folder run/finel: name the one that holds the LoRA adapter\n")
    assert not (here / "other").exists()


def test_a_reward_that_fails_stops_the_run_with_status_3_and_what_was_done_is_kept(here, model):
    (here / "mine.py").write_text(
        "CALLS = []\n\n\ndef fragile(completions):\n    CALLS.append(1)\n"
        "    if len(CALLS) > 1:\n        raise OSError('the judge is gone')\n    return [1.0] * len(completions)\n"
    )
    data = ["--model", model, "--data", "sums.jsonl", "--reward", "mine.py:fragile", "--out", "run"]
    status, _, err = run("train", "grpo", *data, "--steps", "3", "--quiet", *SMALL)
    assert status == 3
    assert err.startswith("cohort: reward 'fragile' failed on sums.jsonl, line ")
    assert "OSError: the judge is gone" in err
    assert "in fragile" in err
    assert len((here / "run/metrics.jsonl").read_text().splitlines()) == 1
    assert [path.name for path in (here / "run/checkpoints").iterdir()] == ["step-000001"]
    assert not (here / "run/final").exists()
