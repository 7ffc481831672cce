"""Models that are not what their configuration says are refused, and those that only look so are not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cohort.errors import UsageError
from cohort.policies.causal_lm import CausalLM
from cohort.policies.loading import merge_adapter

UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def folder(model_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """A folder of a model that a test may change."""
    return Path(shutil.copytree(model_folder("chat"), tmp_path / "model"))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def configure(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop(UP), rf"there is no {UP}, which would be drawn at random"),
        (lambda w: w.update({UP: torch.zeros(3, 32)}), rf"of another shape {UP} \(stored 3x32, asked 64x32\)"),
        (
            lambda w: w.update({"model.layers.7.x.weight": torch.zeros(2)}),
            r"has no place for model\.layers\.7\.x\.weight",
        ),
        (lambda w: w[UP][0].fill_(torch.nan), rf"the tensor {UP} has 32 of 2048 numbers that are NaN or infinite"),
        (lambda w: w["model.norm.weight"][3].fill_(torch.inf), r"the tensor model\.norm\.weight has 1 of 32 numbers"),
    ],
)
def test_weights_that_are_not_whole_are_refused_with_their_names(folder: Path, change: Any, said: str) -> None:
    change_weights(folder, change)
    with pytest.raises(UsageError, match=said):
        CausalLM.load(str(folder))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"num_hidden_layers": 4, "layer_types": ["full_attention"] * 4},
            r"there is no model\.layers\.2\..* and 20 more",
        ),
        (
            {"num_hidden_layers": 1, "layer_types": ["full_attention"]},
            r"has no place for model\.layers\.1\..* and 8 more",
        ),
        ({"tie_word_embeddings": False}, r"there is no lm_head\.weight"),
        ({"intermediate_size": 100}, r"of another shape .* \(stored 32x64, asked 32x100\)"),
        (
            {"quantization_config": {"quant_method": "awq", "bits": 4}},
            r"is quantised \(awq\), and quantised weights cannot",
        ),
        ({"model_type": "nonsense"}, r"configuration cannot be read: .*`nonsense`"),
        ({"hidden_size": "many"}, r"configuration cannot be read: .*hidden_size"),
        ({"model_type": "t5", "is_encoder_decoder": True}, r"has an encoder and a decoder"),
    ],
)
def test_a_configuration_that_is_not_that_of_the_weights_is_refused(
    folder: Path, changes: dict[str, Any], said: str
) -> None:
    configure(folder, **changes)
    with pytest.raises(UsageError, match=said) as error:
        CausalLM.load(str(folder))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["{", "[]", '{"eos_token_id": "x"}', '{"eos_token_id": [1, true]}'])
def test_a_generation_config_that_is_none_is_refused(folder: Path, text: str) -> None:
    (folder / "generation_config.json").write_text(text)
    with pytest.raises(UsageError, match=r"generation_config\.json"):
        CausalLM.load(str(folder))


def test_settings_of_a_tokenizer_without_its_vocabulary_are_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match="its tokenizer has no vocabulary"):
        CausalLM.load(str(folder))


@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn])
def test_weights_of_a_quantised_model_are_refused_where_its_configuration_does_not_say_so(
    folder: Path, kind: torch.dtype
) -> None:
    change_weights(folder, lambda w: w.update({UP: w[UP].to(kind)}))
    with pytest.raises(UsageError, match=f"{UP} is stored as"):
        CausalLM.load(str(folder))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_broken_file_is_named_or_explained(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:40])
    with pytest.raises(UsageError, match=r"its configuration|its tokenizer|cannot be loaded: SafetensorError"):
        CausalLM.load(str(folder))


def test_what_transformers_ties_or_ignores_is_not_missing_or_left_over(folder: Path) -> None:
    # A tied output layer that is stored as well, and a buffer that older versions stored.
    def change(weights: dict[str, torch.Tensor]) -> None:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
        weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)

    change_weights(folder, change)
    assert CausalLM.load(str(folder)).model is not None
    configure(folder, tie_word_embeddings=False)
    assert CausalLM.load(str(folder)).model is not None


def test_a_stop_token_that_the_model_does_not_have_is_refused(folder: Path) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 5000]}))
    with pytest.raises(UsageError, match=r"\(id 5000\) is not among those of .*ids 0 to 419"):
        CausalLM.load(str(folder))


def test_a_template_may_end_turns_with_a_token_that_the_model_does_not_have(
    model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(model_folder("smallvocab"), tmp_path / "model"))
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_end|>", "</tool_x>"))
    with pytest.raises(UsageError, match=r"token </tool_x> \(id 421\)"):
        CausalLM.load(str(folder))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32])
def test_a_model_leaves_in_the_type_it_came_in(folder: Path, tmp_path: Path, kind: torch.dtype) -> None:
    """Whatever it was trained in, and with tied weights stored once."""
    change_weights(folder, lambda weights: weights.update({k: v.to(kind) for k, v in weights.items()}))
    policy = CausalLM.load(str(folder), dtype=torch.float32)
    policy.export(tmp_path / "out")
    before, after = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "out"))
    assert set(before) == set(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == str(kind).removeprefix("torch.")
    assert policy.dtype == torch.float32


def test_an_adapter_and_its_base_must_be_whole(folder: Path, tmp_path: Path) -> None:
    policy = CausalLM.load(str(folder))
    policy.add_lora(2)
    policy.save(tmp_path / "adapter")
    merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    assert CausalLM.load(str(tmp_path / "merged")).vocabulary == policy.vocabulary
    stored = tmp_path / "adapter" / "adapter_model.safetensors"
    whole = stored.read_bytes()
    weights = load_file(stored)
    name = next(name for name in weights if "lora_A" in name)
    for change, said in (
        (lambda w: w.pop(name), "cannot be put onto its base .* missing adapter keys"),
        (lambda w: w[name].fill_(torch.nan), "the tensor .*lora_A.* has .* numbers that are NaN or infinite"),
    ):
        changed = {key: value.clone() for key, value in weights.items()}
        change(changed)
        save_file(changed, stored, metadata={"format": "pt"})
        with pytest.raises(UsageError, match=said):
            merge_adapter(tmp_path / "adapter", tmp_path / "no")
    stored.write_bytes(whole)
    change_weights(folder, lambda w: w.pop(UP))
    with pytest.raises(UsageError, match=rf"the base of the adapter .*: there is no {UP}"):
        merge_adapter(tmp_path / "adapter", tmp_path / "no")
    assert not (tmp_path / "no").exists()
