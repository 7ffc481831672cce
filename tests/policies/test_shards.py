"""Weights that several processes wrote, read by one."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageWriter, save

from cohort.errors import UsageError
from cohort.policies.causal_lm import CausalLM
from cohort.policies.loading import merge_adapter, save_settings
from cohort.policies.shards import away, below, is_sharded, places, read, read_away, replaced, stored
from tests.helpers import tiny_policy


def write(folder: Path, tensors: dict[str, Tensor]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
        save({name: value.detach() for name, value in tensors.items()}, storage_writer=writer, no_dist=True)


def logp(policy: CausalLM) -> Tensor:
    actions = policy.actions_after([(2, 3, 4), (5, 6)], [(7, 8), (9, 10, 11)])
    return policy.log_probs(actions, width=3)["logp"].detach()


def test_states_keep_their_form_without_the_values_of_tensors(tmp_path: Path) -> None:
    state = {
        "inner": {"state": {0: {"step": torch.tensor(3.0), "m": torch.arange(4.0)}}},
        "masters": [None, torch.ones(2)],
    }
    assert [name for name, _ in places(state)] == ["inner.state.0.step", "inner.state.0.m", "masters.1"]
    without = replaced(state, lambda name, value: away(name, value) if value.ndim else value)
    assert without["inner"]["state"][0]["m"].is_meta
    assert without["masters"][0] is None
    torch.save(without, tmp_path / "state.pt")
    write(tmp_path, {name: value for name, value in places(state) if value.ndim})
    again = read_away(tmp_path, torch.load(tmp_path / "state.pt", weights_only=True, map_location="cpu"))
    assert [name for name, _ in places(again)] == [name for name, _ in places(state)]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(places(again), places(state), strict=True))


def test_what_does_not_stand_there_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"a": torch.ones(2, 3)})
    with pytest.raises(ValueError, match="b"):
        read(tmp_path, {"b": torch.ones(2)})
    with pytest.raises(ValueError, match="a"):
        read(tmp_path, {"a": torch.ones(2, 4)})


@pytest.mark.parametrize("kind", ["qwen3", "gpt2"])
def test_a_model_folder_of_several_processes_is_loaded(tmp_path: Path, kind: str) -> None:
    policy = tiny_policy(kind, seed=5)
    save_settings(policy.model, policy.renderer.tokenizer, tmp_path)
    # The optimizer's float32 does not count for the type of the weights.
    write(tmp_path, below("policy", stored(policy.model.bfloat16())) | {"optimizer.masters.0": torch.ones(10**6)})
    assert is_sharded(tmp_path)
    read_back = CausalLM.load(str(tmp_path))
    assert read_back.came_as == torch.bfloat16
    policy.save(tmp_path / "whole")
    assert torch.equal(logp(read_back), logp(CausalLM.load(str(tmp_path / "whole"))))
    names = {path.name for path in (tmp_path / "whole").iterdir()} - {"model.safetensors"}
    assert names == {path.name for path in tmp_path.iterdir() if path.is_file()} - {
        "shard-00001-model-00001-of-00001.safetensors"
    }


def test_a_model_folder_of_several_processes_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    policy = tiny_policy()
    save_settings(policy.model, policy.renderer.tokenizer, tmp_path)
    kept = stored(policy.model)
    del kept["model.norm.weight"]
    write(tmp_path, below("policy", kept))
    with pytest.raises(UsageError, match=r"cannot be loaded: .*policy.model.norm.weight"):
        CausalLM.load(str(tmp_path))


def test_an_adapter_of_several_processes_is_merged(tmp_path: Path) -> None:
    tiny_policy().save(tmp_path / "base")
    policy = CausalLM.load(str(tmp_path / "base"))
    policy.add_lora(2)
    with torch.no_grad():
        for parameter in policy.trainable():
            parameter.add_(0.05)
    assert set(stored(policy.model)) == {name for name, value in policy.model.named_parameters() if "lora" in name}
    save_settings(policy.model, policy.renderer.tokenizer, tmp_path / "adapter")
    write(tmp_path / "adapter", below("policy", stored(policy.model)))
    with pytest.raises(UsageError, match="cohort merge"):
        CausalLM.load(str(tmp_path / "adapter"))
    merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    assert torch.allclose(logp(CausalLM.load(str(tmp_path / "merged"))), logp(policy), atol=1e-5)
