"""What a reward function is given is what TRL 1.16's `GRPOTrainer` gives it, as recorded on the same data and model."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cohort.training.config import make_config
from cohort.training.display import Display
from cohort.training.run import train
from tests.model_folders import make_folder

ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
PLAIN = [
    {
        "answer": "4",
        "prompt": "2 + 2 = ",
        "level": 1,
        "score": 0.5,
        "tags": ["a", "b"],
        "meta": {"x": {"z": [1, 2]}},
        "maybe": None,
        "flag": True,
        "completion": "no",
        "max_new_tokens": 7,
        "tools": None,
    },
    {
        "answer": "6",
        "prompt": "3 + 3 = ",
        "level": 2,
        "score": 1.0,
        "tags": [],
        "meta": {"x": {"z": []}},
        "maybe": "m",
        "flag": False,
        "completion": "no",
        "max_new_tokens": 8,
        "tools": None,
    },
]
CHAT = [
    {"prompt": [{"role": "user", "content": "2 + 2 = "}], "answer": "4", "tools": [ADD]},
    {
        "prompt": [{"role": "user", "content": "3 + 3 = "}, {"role": "assistant", "content": "It is "}],
        "answer": "6",
        "tools": [ADD],
    },
]
# What the model below says; the token that ends it is among the ids, and no special token in the text.
TEXT, IDS = "4ab", [22, 1, 67, 0, 68, 2]
LAST = ["trainer_state", "log_extra", "log_metric"]
# Recorded from TRL: names in their order, and the values of the columns, in the order of the prompts.
FROM_TRL = {
    "plain": {
        "prompts": ["2 + 2 = ", "2 + 2 = ", "3 + 3 = ", "3 + 3 = "],
        "completions": [TEXT] * 4,
        "completion_ids": [IDS] * 4,
        "answer": ["4", "4", "6", "6"],
        "level": [1, 1, 2, 2],
        "score": [0.5, 0.5, 1.0, 1.0],
        "tags": [["a", "b"], ["a", "b"], [], []],
        "meta": [{"x": {"z": [1, 2]}}, {"x": {"z": [1, 2]}}, {"x": {"z": []}}, {"x": {"z": []}}],
        "maybe": [None, None, "m", "m"],
        "flag": [True, True, False, False],
        "max_new_tokens": [7, 7, 8, 8],
        "tools": [None] * 4,
    },
    "chat": {
        "prompts": [CHAT[0]["prompt"]] * 2 + [CHAT[1]["prompt"]] * 2,
        "completions": [[{"role": "assistant", "content": TEXT}]] * 4,
        "completion_ids": [IDS] * 4,
        "answer": ["4", "4", "6", "6"],
        "tools": [[ADD]] * 4,
    },
}
STATES = [
    {"global_step": 0, "max_steps": 3, "epoch": 0.0, "num_train_epochs": 3},
    {"global_step": 1, "max_steps": 3, "epoch": 1.0, "num_train_epochs": 3},
    {"global_step": 2, "max_steps": 3, "epoch": 2.0, "num_train_epochs": 3},
]
RECORDS = """
import json


def record(*args, **given):
    assert not args
    state = given["trainer_state"]
    names = ["global_step", "max_steps", "epoch", "num_train_epochs", "is_world_process_zero", "is_local_process_zero"]
    given["log_extra"](column="place", values=list(range(len(given["completions"]))))
    given["log_metric"](name="mine", value=2.0)
    given["log_metric"]("mine", 4)
    columns = {k: v for k, v in given.items() if k not in ("trainer_state", "log_extra", "log_metric")}
    with open(OUT, "a") as file:
        file.write(json.dumps([list(given), columns, {name: getattr(state, name) for name in names}]) + "\\n")
    return [float(i) for i in range(len(given["completions"]))]
"""


@pytest.fixture(scope="module")
def saying(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose likeliest tokens are "4", a mark of the template, "a", a mark, "b", and the end, whatever it was asked."""
    folder = make_folder("chat", tmp_path_factory.mktemp("models") / "chat")
    words, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    config = model.config
    config.tie_word_embeddings = False
    model = type(model)(config)
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    every = torch.randn(config.vocab_size, config.hidden_size, generator=torch.Generator().manual_seed(0))
    every = every / every.norm(dim=1, keepdim=True)
    after = torch.zeros_like(every)
    # The last tokens of a plain prompt, of the template's, and of a text that the assistant goes on with.
    for last in (" ", "\n"):
        after[IDS[0]] += 30 * every[words(last)["input_ids"][-1]]
    for token, following in itertools.pairwise(IDS):
        after[following] += 30 * every[token]
    model.model.embed_tokens.weight.data, model.lm_head.weight.data = 10 * every, after
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("kind", "data"), [("plain", PLAIN), ("chat", CHAT)])
def test_a_reward_function_is_called_as_trl_calls_it(
    base: dict[str, Any], tmp_path: Path, saying: Path, kind: str, data: Any
) -> None:
    file, out = tmp_path / "mine.py", tmp_path / "calls.jsonl"
    file.write_text(f"OUT = {str(out)!r}\n{RECORDS}")
    options = {
        "model": str(saying),
        "data": data,
        "reward": [f"{file}:record", "0.1*length"],
        "steps": 3,
        "prompts_per_step": 2,
        "group_size": 2,
        "max_new_tokens": 8,
        "top_k": 1,
        "prompt_format": "text",
    }
    result = train(make_config({**base, **options}), display=Display(quiet=True))
    calls = [json.loads(line) for line in out.read_text().splitlines()]
    processes = {"is_world_process_zero": True, "is_local_process_zero": True}
    assert [state for *_, state in calls] == [{**state, **processes} for state in STATES]
    for names, columns, _ in calls:
        assert names == [*FROM_TRL[kind], *LAST]
        place = sorted(range(4), key=lambda i: json.dumps(columns["prompts"][i]))
        assert {name: [values[i] for i in place] for name, values in columns.items()} == FROM_TRL[kind]
    assert [row["mine"] for row in result.metrics] == [3.0] * 3
    # The budget of the run, whatever the column of that name says.
    assert [row["reward/length"] for row in result.metrics] == [pytest.approx(1 - 6 / 8)] * 3


def test_a_column_that_only_some_rows_have_is_given_for_all(base: dict[str, Any]) -> None:
    given: list[Any] = []

    def hinted(completions: list[str], hint: list[Any], max_new_tokens: list[int]) -> list[float]:
        given.append((hint, max_new_tokens))
        return [float(i) for i in range(len(completions))]

    data = [{"prompt": "1+1="}, {"prompt": "2+2=", "hint": "four"}]
    options = {"data": data, "reward": hinted, "reward_process": "here", "steps": 2, "prompts_per_step": 1}
    train(make_config({**base, **options}), display=Display(quiet=True))
    assert sorted(given, key=str) == [(["four"] * 4, [8] * 4), ([None] * 4, [8] * 4)]
