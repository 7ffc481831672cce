"""What `cohort train` refuses, before anything is written."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from tests.cli.command import SUMS, everything, run


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
    "unknown method": Bad(method="daapo", says=["there is no method 'daapo'; did you mean 'dapo'", "cohort methods"]),
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
    "no process": Bad("--processes", "0", says=["--processes 0: Input should be greater than or equal to 1"]),
    "uneven groups of processes": Bad(
        "--processes", "3", "--tensor-parallel", "2", says=["3 processes cannot be dealt into groups of 2"]
    ),
    "groups of one process": Bad(
        "--tensor-parallel", "2", says=["cuts a model over several processes: say --processes"]
    ),
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
