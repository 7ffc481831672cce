"""Settings that cannot work are refused with what would, and files of the user's are not written over."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from cohort.cli.console import check_file
from cohort.errors import UsageError
from cohort.files import save_new
from cohort.training import limits
from cohort.training.config import make_config
from tests.helpers import tiny_policy
from tests.training.test_run import run


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"group_size": 10**9}, r"a step of 3 prompts with 1000000000 rollouts .* lower group_size to at most (\d+)"),
        ({"prompts_per_step": 10**9}, r"a step of 1000000000 prompts .* lower prompts_per_step to at most (\d+)"),
        (
            {"max_new_tokens": 2 * 10**9},
            r"of up to 2000000000 tokens does not fit .* lower max_new_tokens to at most (\d+)",
        ),
        ({"threads": 1000}, r"threads is 1000, but this machine has \d+ processors: take at most (\d+)"),
    ],
)
def test_sizes_beyond_the_machine(
    base: dict[str, Any], monkeypatch: pytest.MonkeyPatch, changes: dict[str, int], says: str
) -> None:
    monkeypatch.setattr(limits, "total", lambda: 10**10)
    with pytest.raises(UsageError, match=says) as caught:
        run(base, **{**changes, "model": "is not looked at"})
    found = re.search(says, str(caught.value))
    assert found is not None
    # What it says would fit does.
    limits.check_sizes(make_config({**base, **dict.fromkeys(changes, int(found[1]))}))
    assert not Path(base["out"]).exists()


def test_adapters_that_are_wider_than_the_layers(base: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"lora is 100000, but .* at most (\d+) rows or columns"):
        run(base, lora=100_000)


def test_prompts_and_completions_beyond_the_context(base: dict[str, Any]) -> None:
    with pytest.raises(
        UsageError, match=r"the prompt has 10000000 characters, of which the model's context of \d+ tokens"
    ):
        run(base, data=[{"prompt": "a" * 10**7, "answer": "1"}])
    with pytest.raises(UsageError, match=r"shorten it, or lower max_new_tokens to at most (\d+)"):
        run(base, max_new_tokens=5000)


def test_more_minibatches_than_groups(base: dict[str, Any]) -> None:
    assert len(run(base, steps=1, updates=10**6).metrics) == 1


def test_an_adapter_finds_its_base_from_another_folder(
    base: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(base["model"], tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    result = run(base, model="model", lora=2, steps=1)
    assert result.model is not None
    stored = json.loads((result.model / "adapter_config.json").read_text())
    assert stored["base_model_name_or_path"] == str(tmp_path / "model")


def test_only_what_the_same_command_wrote_is_written_over(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    check_file(file, "--json")
    file.write_text('{"row": 1, "sample": 0, "reward": 1.0}\n')
    check_file(file, "--json")
    for text in ('{"prompt": "mine", "completion": "x"}\n', "notes\n", "[" * 5000):
        file.write_text(text)
        with pytest.raises(UsageError, match="a file that something else wrote"):
            check_file(file, "--json")


def test_a_new_folder_is_there_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    def half(aside: Path) -> None:
        aside.mkdir()
        (aside / "config.json").write_text("{}")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_new(tmp_path / "model", half)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="cannot be written: Directory not empty"):
        save_new(tmp_path / "model", lambda aside: aside.mkdir())
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_layers_that_processes_cannot_share_are_refused() -> None:
    limits.check_shared(tiny_policy().model, 2)
    adapters = tiny_policy()
    adapters.add_lora(2)
    for model, size, why in (
        (tiny_policy("gpt2").model, 2, "transformers has no plan"),
        (tiny_policy().model, 4, "cannot share evenly"),
        (adapters.model, 2, "adapters"),
    ):
        with pytest.raises(UsageError, match=why):
            limits.check_shared(model, size, "tiny")
