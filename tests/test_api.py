"""cohort from Python: what it takes beside texts, and how its errors speak."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import cohort
from cohort.api import as_arguments
from cohort.errors import UsageError

SUMS = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(3) for b in range(3)]
SMALL = {"steps": 1, "prompts_per_step": 2, "group_size": 2, "max_new_tokens": 4, "quiet": True, "device": "cpu"}


@pytest.fixture
def loaded(model_folder):
    """A model of transformers and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = model_folder("plain")
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("--group-size 1: too small", "group_size=1: too small"),
        ("name it with --prompt-field, or use --template", "name it with prompt_field=, or use template="),
        ("--data takes a file", "data= takes a file"),
        ("of --pairs: leave it", "of pairs: leave it"),
        ("continue with --resume", "continue with resume=True"),
        ("--bos: the tokenizer", "bos=True: the tokenizer"),
        ("with --reward '0*x.py:f'", "with reward='0*x.py:f'"),
        ("(--set correction=off ends it)", "(correction=off ends it)"),
        ("start it with --max-model-len 9", "start it with --max-model-len 9"),
        ("--seeds 0: it takes", "seeds=0: it takes"),
    ],
)
def test_errors_speak_of_arguments(said, meant):
    assert as_arguments(said) == meant


def test_no_data_is_said_as_an_argument(model_folder):
    with pytest.raises(UsageError, match=r"^no data was given: data= takes a file"):
        cohort.train(model=model_folder("plain"), reward="number", **SMALL)
    with pytest.raises(UsageError, match=r"^steps='many': Input should be"):
        cohort.train(model=model_folder("plain"), data=SUMS, reward="number", steps="many")
    with pytest.raises(UsageError, match="device=gpu: no such kind"):
        cohort.train(model=model_folder("plain"), data=SUMS, reward="number", **{**SMALL, "device": "gpu"})


@pytest.mark.parametrize("form", ["pair", "two arguments"])
def test_a_model_object_is_trained_itself(loaded, tmp_path: Path, form):
    model, tokenizer = loaded
    before = {name: value.clone() for name, value in model.state_dict().items()}
    given = {"model": loaded} if form == "pair" else {"model": model, "tokenizer": tokenizer}
    result = cohort.train(
        **given,
        data=SUMS,
        reward="format:[a-m]",
        lr=1e-2,
        out=tmp_path / "run",
        **{**SMALL, "steps": 3, "group_size": 8},
    )
    assert any(not torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert "given from Python" in (result.folder / "config.yaml").read_text()
    found = cohort.evaluate((model, tokenizer), data=SUMS, reward="number", max_new_tokens=4, limit=2, device="cpu")
    assert found.problems == 2


def test_what_is_no_model_is_refused(loaded, tmp_path: Path):
    model, tokenizer = loaded
    for given, says in (
        ({"model": model}, "which takes its tokenizer"),
        ({"model": (tokenizer, model)}, "model is "),
        ({"model": 5}, "model is int"),
        ({"model": "toy", "tokenizer": tokenizer}, "goes with a model object"),
        ({"model": tmp_path / "none"}, "there is no folder"),
        ({"model": (model, tokenizer), "engine": "vllm"}, "engine="),
        ({"model": (model.half(), tokenizer)}, "float16"),
    ):
        with pytest.raises(UsageError, match=says):
            cohort.train(**given, data=SUMS, reward="number", out=tmp_path / "run", **SMALL)
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match="give model a folder"):
        cohort.compare(["grpo", "dapo"], model=loaded, data=SUMS, reward="number")


def test_a_frozen_model_has_nothing_to_train(loaded, tmp_path: Path):
    model, tokenizer = loaded
    model.requires_grad_(False)
    with pytest.raises(UsageError, match="nothing of it would be trained"):
        cohort.train(model=model, tokenizer=tokenizer, data=SUMS, reward="number", out=tmp_path / "run", **SMALL)


@pytest.mark.parametrize("arguments", [{"seeds": 0}, {"seeds": "x"}, {"samples": -1}, {"tokens": 2.5}])
def test_numbers_of_things_are_checked(model_folder, arguments):
    with pytest.raises(UsageError, match="a whole number from"):
        cohort.compare(["grpo", "dapo"], model=model_folder("plain"), data=SUMS, reward="number", **arguments)
    with pytest.raises(UsageError, match="samples=0"):
        cohort.evaluate(model_folder("plain"), data=SUMS, reward="number", samples=0)
