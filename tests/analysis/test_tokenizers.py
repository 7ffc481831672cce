"""Tokens whose texts were not recorded are read with the run's own tokenizer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cohort.analysis import tokenizers
from cohort.analysis.store import Run
from cohort.policies.pieces import Pieces


def run_with(folder: Path, model: object) -> Run:
    (folder / "config.yaml").write_text(yaml.safe_dump({"method": "grpo", "model": model}))
    run = Run(folder)
    run.refresh()
    return run


@pytest.mark.parametrize("kind", ["chat", "metaspace", "llama2", "gemma", "cleanup"])
@pytest.mark.parametrize("place", ["final", "best", "checkpoints/step-000050/model"])
def test_the_tokenizer_beside_a_model_of_the_run_reads_its_tokens(
    kind: str, place: str, model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder(kind))
    (tmp_path / place).mkdir(parents=True)
    for path in model_folder(kind).glob("*token*"):
        shutil.copy(path, tmp_path / place)
    ids = tokenizer("Two and 12, 世界 or naïve. What?", add_special_tokens=False)["input_ids"]
    found = tokenizers.pieces(run_with(tmp_path, "no/such-model"), ids)
    assert found == Pieces(tokenizer)(ids)
    assert "".join(found).strip() == tokenizer.decode(ids, clean_up_tokenization_spaces=False).strip()


def test_a_run_without_a_model_yet_is_read_with_that_which_it_starts_from(
    model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    assert tokenizers.pieces(run_with(tmp_path, "toy"), [7, 8]) == tokenizers.pieces(run_with(tmp_path, "toy"), [7, 8])
    # The second is what earlier versions called it.
    for model in ("toy", "nursery"):
        assert tokenizers.pieces(run_with(tmp_path, model), [6, 7, 1]) == ["0", "1", "<|end|>"]
    assert tokenizers.pieces(run_with(tmp_path, str(model_folder("chat"))), [70, 71]) is not None
    for model in ("no/such-model", str(tmp_path), 5, None, "\0"):
        assert tokenizers.pieces(run_with(tmp_path, model), [7, 8]) is None
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "tokenizer.json").write_text("{")
    assert tokenizers.pieces(run_with(tmp_path, "toy"), [6, 7]) == ["0", "1"]
    assert tokenizers.pieces(run_with(tmp_path, "toy"), [-6, 10**12]) is None
