"""Options are made of the configuration's keys, and every command takes those that mean something to it."""

from __future__ import annotations

from typer.main import get_command

from cohort.cli import app
from cohort.training.config import FIELDS
from cohort.training.values import Option

COMMANDS = get_command(app).commands
MARKED = {key: mark for key, info in FIELDS.items() for mark in info.metadata if isinstance(mark, Option)}


def options_of(command):
    return {param.name for param in COMMANDS[command].params}


def test_train_takes_every_key_that_is_marked():
    assert options_of("train") >= set(MARKED)
    assert len(MARKED) > 35


def test_compare_and_sweep_take_what_train_takes_but_what_is_each_runs_own():
    for command in ("compare", "sweep"):
        assert set(MARKED) - options_of(command) == {"seed", "processes", "shard", "tensor_parallel", "restarts"}


def test_eval_and_sft_take_what_says_how_a_model_is_loaded_and_data_becomes_prompts():
    # One model is loaded: no agent's, no teacher's.
    of_models = {key for key, mark in MARKED.items() if mark.panel == "Model"} - {"agent_models", "teacher"}
    of_data = {key for key, mark in MARKED.items() if mark.panel == "Data"} - {"pairs"}
    assert options_of("sft") >= of_models | of_data - {"answer_field"}
    assert options_of("eval") >= (of_models - {"lora"}) | of_data
    assert options_of("eval") >= {"bos", "reward", "top_k", "temperature", "stop", "seed", "device", "threads"}


def test_an_option_is_described_as_its_key_is():
    for command in ("train", "compare", "eval"):
        for param in COMMANDS[command].params:
            if param.name in MARKED and param.name not in ("model", "out"):
                assert FIELDS[param.name].description[1:].split(";")[0] in param.help, param.name
