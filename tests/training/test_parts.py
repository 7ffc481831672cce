"""Checkpoints, precision, schedule, seeds, configuration, supervised fine-tuning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cohort import method
from cohort.data.prompts import PromptSpec, read_source
from cohort.errors import UsageError
from cohort.seeds import derive, generator
from cohort.training import checkpoint
from cohort.training.build import pass_tokens
from cohort.training.config import FIELDS, keys, make_config, parse_set, read_config
from cohort.training.precision import MasterWeights
from cohort.training.schedule import factor
from cohort.training.sft import fine_tune, load_prompts_of_rows, pairs_of
from tests.helpers import prompt_of, tiny_policy


def save_text(folder: Path) -> None:
    folder.mkdir()
    (folder / "weights").write_text("w")


def test_checkpoints_are_kept_in_number_and_read_back(tmp_path: Path) -> None:
    state = {"tensor": torch.arange(3), "nested": {"a": [1, None, "x"]}, "float": 0.1}
    for step in (1, 2, 10):
        checkpoint.write(tmp_path, step, save_text, state, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000002", "step-000010"]
    found = checkpoint.newest(tmp_path)
    assert found is not None
    read = checkpoint.read_state(found)
    assert torch.equal(read.pop("tensor"), state["tensor"])  # type: ignore[arg-type]
    assert read == {k: v for k, v in state.items() if k != "tensor"}


@pytest.mark.parametrize("how", ["missing", "longer", "changed", "no manifest", "half manifest"])
def test_every_kind_of_damage_is_found(tmp_path: Path, how: str) -> None:
    folder = checkpoint.write(tmp_path, 1, save_text, {"a": 1}, keep=1)
    assert checkpoint.damage(folder) is None
    file = folder / "model" / "weights"
    if how == "missing":
        file.unlink()
    elif how == "longer":
        file.write_text("ww")
    elif how == "changed":
        file.write_text("v")
    elif how == "no manifest":
        (folder / "manifest.json").unlink()
    else:
        text = (folder / "manifest.json").read_text()
        (folder / "manifest.json").write_text(text[: len(text) // 2])
    assert checkpoint.damage(folder)
    said: list[str] = []
    assert checkpoint.newest(tmp_path, said.append) is None
    assert str(folder) in said[0]


def test_what_a_kill_left_aside_is_not_taken_for_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / ".tmp-step-000003").mkdir()
    assert checkpoint.newest(tmp_path) is None
    checkpoint.write(tmp_path, 3, save_text, {}, keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000003"]


def test_small_updates_are_not_lost_in_half_precision() -> None:
    """A step of 1e-4 on a weight of 1 is below bfloat16's resolution of 2^-8; sixty-four of them are not."""
    parameter = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    kept = torch.nn.Parameter(torch.ones(2))
    optimizer = MasterWeights([parameter, kept], lambda params: torch.optim.SGD(params, lr=1e-4))
    for _ in range(64):
        parameter.grad = torch.ones_like(parameter)
        kept.grad = torch.ones_like(kept)
        optimizer.step()
        optimizer.zero_grad()
    assert torch.allclose(optimizer.masters[0], torch.full((3,), 1 - 64e-4), atol=1e-6)
    assert torch.equal(parameter, optimizer.masters[0].bfloat16())
    assert parameter[0] < 1
    assert optimizer.masters[1] is kept

    other = torch.nn.Parameter(torch.zeros(3, dtype=torch.bfloat16))
    restored = MasterWeights(
        [other, torch.nn.Parameter(torch.ones(2))], lambda params: torch.optim.SGD(params, lr=1e-4)
    )
    restored.load_state_dict(optimizer.state_dict())
    assert torch.equal(other, parameter)
    assert torch.equal(restored.masters[0], optimizer.masters[0])


def test_the_learning_rate_rises_then_falls() -> None:
    cosine = [factor(step, 20, warmup=4, schedule="cosine") for step in range(1, 21)]
    assert cosine[:5] == sorted(cosine[:5])
    assert 0 < cosine[0] < 0.25
    assert cosine[4] > 0.98
    assert cosine[4:] == sorted(cosine[4:], reverse=True)
    assert cosine[-1] == pytest.approx(0.0, abs=1e-12)
    assert [factor(step, 20) for step in (1, 20)] == [1.0, 1.0]


def test_seeds_are_their_own_for_every_combination() -> None:
    found = {derive(s, *parts) for s in range(5) for parts in [(), ("a",), ("a", 1), ("a", 2), ("b", 1), ("a/1",)]}
    # derive(seed, "a", 1) and derive(seed, "a/1") are spelled alike; names do not hold slashes.
    assert len(found) == 25
    assert torch.equal(torch.rand(3, generator=generator(1, "x")), torch.rand(3, generator=generator(1, "x")))
    assert all(0 <= derive(s) < 2**63 for s in range(100))


@pytest.mark.parametrize(("hidden", "tokens"), [(64, 2048), (256, 2048), (512, 1024), (4096, 1024)])
def test_tokens_of_a_pass_on_a_cpu(hidden: int, tokens: int) -> None:
    policy = tiny_policy()
    policy.base.set_input_embeddings(torch.nn.Embedding(8, hidden))
    assert pass_tokens(method("grpo"), policy) == tokens
    # Each step of coupled rollouts in more than one pass takes a pass more.
    assert pass_tokens(method("disco"), policy) == 16384


def test_configuration_layers_and_sections(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("steps: 7\ncheckpoint:\n  every: 3\nreward: math\n")
    made = make_config(read_config(file), {"lr": 0.1}, parse_set(["checkpoint.keep=5", "steps=9", "temperature=0.5"]))
    assert (made.optimisation.steps, made.optimisation.lr, made.sampling.temperature, made.rewards.reward) == (
        9,
        0.1,
        0.5,
        ["math"],
    )
    assert (made.checkpoint.every, made.checkpoint.keep) == (3, 5)
    made.save(tmp_path / "out.yaml")
    again = make_config(read_config(tmp_path / "out.yaml"))
    assert again == made
    assert "checkpoint.every" in keys()
    assert all(info.description for info in FIELDS.values())


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ({"stepz": 1}, "did you mean steps"),
        ({"checkpoint.evry": 1}, "did you mean checkpoint.every"),
        ({"steps": 0}, "greater than or equal to 1"),
        ({"temperature": -1.0}, "greater than or equal to 0.000001"),
        ({"schedule": "linear"}, "'constant' or 'cosine'"),
        ({"checkpoint": 3}, "checkpoint"),
    ],
)
def test_bad_configuration_is_named(layer: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make_config(layer)


def test_bad_configuration_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_config(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(UsageError, match="malformed"):
        read_config(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(UsageError, match="holds no keys"):
        read_config(tmp_path / "list.yaml")
    with pytest.raises(UsageError, match="KEY=VALUE"):
        parse_set(["steps"])


def test_supervised_fine_tuning_learns_its_pairs_and_repeats_itself() -> None:
    losses = []
    for _ in range(2):
        policy = tiny_policy("llama")
        prompts = [prompt_of(policy, text, completion=text[::-1]) for text in ("abc", "xyz", "123")]
        pairs = pairs_of(policy.renderer, prompts, "completion")
        assert pairs[0][1] == (*policy.renderer.encode("cba"), policy.renderer.tokenizer.eos_token_id)
        seen: dict[int, float] = {}
        fine_tune(
            policy, pairs, steps=60, batch_size=3, lr=1e-2, report=lambda step, v, to=seen: to.update({step: v["loss"]})
        )  # type: ignore[misc]
        losses.append(list(seen.values()))
    assert losses[0] == losses[1]
    assert losses[0][-1] < 0.05 < 1.0 < losses[0][0]
    with pytest.raises(UsageError, match="there is no text in column 'done'"):
        pairs_of(policy.renderer, prompts, "done")


def test_what_is_imitated_stands_in_a_row_and_fits_behind_its_prompt(tmp_path: Path) -> None:
    policy, path = tiny_policy(), tmp_path / "data.jsonl"
    user = {"role": "user", "content": "1+1"}
    rows = [
        {"prompt": "1+1", "completion": "2"},
        {"prompt": "1+1", "completion": "two"},
        {"prompt": [user], "completion": [{"role": "assistant", "content": "2"}]},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts = load_prompts_of_rows(read_source(path, PromptSpec()), policy.renderer, PromptSpec())
    pairs = pairs_of(policy.renderer, prompts, "completion", "data.jsonl")
    # A prompt comes as often as completions of it.
    assert [policy.renderer.decode(completion) for _, completion in pairs] == ["2", "two", "2"]
    assert pairs[0] == pairs[2]
    assert all(completion[-1] in policy.renderer.stop_ids for _, completion in pairs)
    for row, said in (
        (
            {"prompt": "a", "completion": "b" * 200},
            r"data.jsonl, line 1: prompt and completion have 204 tokens together",
        ),
        ({"prompt": "a", "completion": 5}, r"data.jsonl, line 1: 'completion' must be a text, or a list of messages"),
        ({"prompt": "a", "completion": None}, r"data.jsonl, line 1: there is no text in column 'completion'"),
        (
            {"prompt": "a", "completion": [user]},
            r"data.jsonl, line 1: 'completion' must be a text, or a list of messages",
        ),
    ):
        path.write_text(json.dumps(row) + "\n")
        prompts = load_prompts_of_rows(read_source(path, PromptSpec()), policy.renderer, PromptSpec())
        with pytest.raises(UsageError, match=said):
            pairs_of(policy.renderer, prompts, "completion", "data.jsonl")


def test_metrics_have_no_nan_in_json(tmp_path: Path) -> None:
    from cohort.training.recorder import Recorder

    recorder = Recorder(tmp_path, make_config({"tensorboard": False}), start=0)
    recorder.metrics(1, {"a": float("nan"), "b": torch.tensor(2.0), "c": 1.5})  # type: ignore[dict-item]
    recorder.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "a": None, "b": 2.0, "c": 1.5}
