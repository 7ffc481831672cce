"""Models that score whole texts: how they read, and which are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cohort.errors import UsageError
from cohort.policies.scoring import load_scoring, passes
from cohort.policies.toy import toy
from tests.rewards.scoring_folders import decoder, encoder, unpadded, words


@pytest.mark.parametrize("make", [encoder, decoder, unpadded])
def test_a_score_does_not_depend_on_what_else_is_scored(make, tmp_path: Path) -> None:
    model = load_scoring(str(make(tmp_path / "model")))
    texts = [model.encode("say", "a" * n + "b") for n in (0, 9, 3, 14, 3)]
    together = model.outputs(texts)
    alone = torch.cat([model.outputs([text]) for text in texts])
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(model.outputs(texts, tokens=1), alone, atol=1e-5)
    assert together.std() > 0.01, "they would be equal whatever is done to them"
    assert together[2] == together[4]


def test_passes_hold_every_text_once_and_no_more_than_they_may() -> None:
    lengths = [5, 100, 3, 7, 7, 1]
    found = list(passes(lengths, 14))
    assert sorted(row for rows in found for row in rows) == list(range(6))
    assert all(len(rows) == 1 or max(lengths[row] for row in rows) * len(rows) <= 14 for rows in found)


def test_two_texts_are_a_pair_where_the_tokenizer_parts_them(tmp_path: Path) -> None:
    model = load_scoring(str(encoder(tmp_path / "model")))
    assert model.layout == "pair"
    assert model.length == 32
    text = model.encode("ab", "c")
    assert text.inputs["input_ids"] == [2, 4, 5, 3, 6, 3]
    assert text.inputs["token_type_ids"] == [0, 0, 0, 0, 1, 1]
    # The beginning of the prompt gives way, then that of the longer text.
    long = model.encode("a" * 40 + "b", "c")
    assert (len(long), long.cut) == (32, 13)
    assert long.inputs["input_ids"][-4:] == [5, 3, 6, 3]
    both = model.encode("ab", "c" * 40 + "d")
    assert (len(both), both.inputs["input_ids"][-2:]) == (32, [7, 3])


def test_a_chat_template_lays_the_text_out_and_its_beginning_is_cut(tmp_path: Path) -> None:
    model = load_scoring(str(decoder(tmp_path / "model")))
    assert model.layout == "chat"
    said = [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]
    text = model.tokenizer.decode(model.encode(said, "yes").inputs["input_ids"])
    assert text == "<|system|>s<|user|>hi<|assistant|>yes<|end|>"
    long = model.encode("x" * 100, "yes")
    assert (len(long), long.cut) == (48, 58)
    assert model.tokenizer.decode(long.inputs["input_ids"]).endswith("x<|assistant|>yes<|end|>")
    plain = load_scoring(str(tmp_path / "model"), layout="text", length=20)
    assert plain.tokenizer.decode(plain.encode("hi ", "yes").inputs["input_ids"]) == "hi yes<|end|>"
    assert len(plain.encode("x" * 100, "yes")) == 20
    with pytest.raises(UsageError, match="reads 48 tokens at most"):
        load_scoring(str(tmp_path / "model"), length=49)


def test_a_model_without_a_head_is_no_reward_model_but_can_become_one(tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    toy(seed=0, hidden=32, layers=1, heads=2).save(folder)
    with pytest.raises(UsageError, match=r"has no head .'score.weight' is not stored.*cohort reward-model"):
        load_scoring(str(folder))
    made = load_scoring(str(folder), labels=("kind", "right"), problem="regression")
    assert made.labels == ("kind", "right")
    assert made.problem == "regression"
    made.save(tmp_path / "made")
    again = load_scoring(str(tmp_path / "made"))
    text = [again.encode("a", "b")]
    assert torch.equal(again.outputs(text), made.outputs(text))


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")

    key = next(key for key in weights if "attention" in key)
    save_file({k: v for k, v in weights.items() if k != key}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match=r"there is no .*attention.* drawn at random"):
        load_scoring(str(folder))

    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 20}))
    table = "bert.embeddings.word_embeddings.weight"
    save_file({**weights, table: weights[table][:20].clone()}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        UsageError, match="31 tokens and the model embeddings of 20: that is the tokenizer of another model"
    ):
        load_scoring(str(folder))


def test_a_tokenizer_says_how_much_of_a_text_it_does_not_know(tmp_path: Path) -> None:
    model = load_scoring(str(encoder(tmp_path / "model")))
    assert model.unknown_share(["abc"]) == 0
    assert model.unknown_share(["aBC1"]) == 0.75
    assert words(pair=False)("ab")["input_ids"] == [4, 5]
