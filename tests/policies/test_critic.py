"""Value functions beside the policy: what they score, where their gradient goes, and that they survive a checkpoint."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cohort.policies.causal_lm import CausalLM
from cohort.training import checkpoint
from cohort.training.config import make_config
from cohort.training.display import Display
from cohort.training.loop import one_step
from cohort.training.run import Result, train
from tests import micro
from tests.helpers import tiny_policy
from tests.policies.test_causal_lm import ragged
from tests.stepping import run_of

KINDS = ("head", "model")
VALUES = frozenset({"logp", "values"})


def with_critic(kind: str, *, lora: int = 0) -> CausalLM:
    """A tiny policy with a value function that is no longer 0 everywhere."""
    policy = tiny_policy("llama")
    torch.manual_seed(1)
    if lora:
        policy.add_lora(lora)
    policy.roles.make("critic", kind=kind)
    torch.nn.init.normal_(policy.roles.models["critic"].head.weight)
    torch.nn.init.normal_(policy.roles.models["critic"].head.bias)
    return policy


@pytest.mark.parametrize("lora", [0, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_a_value_belongs_to_the_state_before_its_token(kind: str, lora: int) -> None:
    policy, sequences = with_critic(kind, lora=lora), ragged()
    critic = policy.roles.models["critic"]
    with torch.no_grad():
        scored = policy.log_probs(sequences, width=8, temperature=0.7, want=VALUES)
        for i, (context, completion) in enumerate(zip(sequences.context, sequences.completion, strict=True)):
            backbone = critic.backbone if kind == "model" else policy.model
            whole = torch.cat([context, completion])[None]
            hidden = backbone(input_ids=whole, output_hidden_states=True).hidden_states[-1][0]
            before = critic.head(hidden[len(context) - 1 : -1])[:, 0]
            assert torch.allclose(scored["values"][i, : len(completion)], before, atol=1e-4)
            assert not scored["values"][i, len(completion) :].any()
    alone = policy.log_probs(sequences, width=8, want=frozenset({"values"}))["values"]
    assert torch.allclose(alone, scored["values"], atol=1e-5)
    assert scored.keys() == VALUES


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_critic_expects_nothing(kind: str) -> None:
    policy = tiny_policy("llama")
    with pytest.raises(RuntimeError, match="no model plays the role 'critic'"):
        policy.log_probs(ragged(), width=8, want=VALUES)
    policy.roles.make("critic", kind=kind)
    assert not policy.log_probs(ragged(), width=8, want=VALUES)["values"].any()


@pytest.mark.parametrize("lora", [0, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_where_the_gradient_of_the_values_goes(kind: str, lora: int) -> None:
    """A head's reaches the policy's trained weights; a model of its own leaves the policy alone."""
    policy = with_critic(kind, lora=lora)
    critic = policy.roles.models["critic"]
    policy.log_probs(ragged(), width=8, want=VALUES)["values"].square().sum().backward()
    assert critic.head.weight.grad is not None
    assert critic.head.weight.grad.any()
    reached = [p.grad is not None and bool(p.grad.any()) for p in policy.trainable()]
    assert any(reached) == (kind == "head")
    if lora:
        # The base model stays frozen under the adapters.
        assert all(p.grad is None for p in policy.model.parameters() if not p.requires_grad)
        assert len(policy.trainable()) < len(list(policy.model.parameters()))
    if kind == "model":
        assert any(p.grad is not None and p.grad.any() for p in critic.backbone.parameters())
        mine = {id(p) for p in policy.model.parameters()}
        assert mine.isdisjoint(id(p) for p in critic.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_the_policy_scores_as_without_a_critic(kind: str) -> None:
    sequences, plain = ragged(), tiny_policy("llama")
    before = plain.log_probs(sequences, width=8)["logp"]
    assert torch.allclose(with_critic(kind).log_probs(sequences, width=8, want=VALUES)["logp"], before, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_its_weights_are_part_of_a_checkpoint(kind: str) -> None:
    trained, fresh = with_critic(kind), tiny_policy("llama", seed=3)
    fresh.roles.make("critic", kind=kind)
    fresh.roles.load_state_dict(trained.roles.state_dict())
    critics = [each.roles.models["critic"].parameters() for each in (trained, fresh)]
    pairs = zip(*critics, strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_it_has_a_learning_rate_of_its_own(micro_root: Path, kind: str) -> None:
    method = f"ppo(critic='{kind}', critic_lr=0.02, kl_beta=0.0)"
    with micro.ready(micro_root, method, lr=0.01, warmup=4) as (setup, optimizer, progress):
        critic = setup.policy.roles.models["critic"]
        rates = []
        for _ in range(2):
            one_step(run_of(setup, optimizer, progress))
            rates.append([group["lr"] for group in optimizer.param_groups])
            assert rates[-1][1] == pytest.approx(2 * rates[-1][0])
        assert 0 < rates[0][0] < rates[1][0] < 0.01
        own = {id(p) for p in critic.parameters()}
        assert {id(p) for p in optimizer.param_groups[1]["params"]} == own
        assert critic.head.weight.any()


def run(folder: Path, root: Path, method: str, *, stop: int = 0, **changes: Any) -> Result:
    """Four steps of two epochs of two updates each; with `stop`, interrupted after that step."""
    config = {
        **micro.CONFIG,
        "model": str(micro.folder(root)),
        "method": method,
        "steps": 4,
        "group_size": 2,
        "updates": 2,
        "epochs": 2,
        "out": str(folder),
        **changes,
    }
    display = Display(quiet=True)
    if stop:
        display.step = lambda step, *a, **k: signal.raise_signal(signal.SIGINT) if step == stop else None  # type: ignore[method-assign]
    return train(make_config(config), resume=folder.exists(), display=display)


def remains(result: Result, model: str) -> dict[str, torch.Tensor]:
    """Weights of the policy and of the value function, and the optimizer's moments, at the end of a run."""
    state = checkpoint.read_state(checkpoint.newest(result.folder / "checkpoints"))  # type: ignore[arg-type]
    moments = state["optimizer"]["inner"]["state"]
    flat = {f"{i}/{name}": value for i, held in moments.items() for name, value in held.items()}
    return {**load_file(result.folder / "final" / model), **state["roles"]["critic"], **flat}


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("ppo(critic='model', critic_lr=0.02, critic_warmup=1)", {}),
        ("ppo(critic='head', reward_norm='centred', entropy_coef=0.01)", {}),
        ("ppo(critic='head')", {"lora": 2}),
        ("ppo(critic='model')", {"lora": 2}),
    ],
)
def test_a_stopped_run_continues_bit_for_bit(
    micro_root: Path, tmp_path: Path, method: str, changes: dict[str, Any]
) -> None:
    whole = run(tmp_path / "whole", micro_root, method, **changes)
    stopped = run(tmp_path / "part", micro_root, method, stop=2, **changes)
    assert stopped.stopped
    resumed = run(tmp_path / "part", micro_root, method, **changes)
    assert not resumed.stopped
    model = "adapter_model.safetensors" if changes else "model.safetensors"
    first, second = remains(whole, model), remains(resumed, model)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert first["head.weight"].any()
    untimed = [
        [{k: v for k, v in row.items() if not k.startswith("time/")} for row in result.metrics]
        for result in (whole, resumed)
    ]
    assert untimed[0] == untimed[1]
