"""The critic axis takes one function, and any that says how values are learnt."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from cohort import registry
from cohort.axes.critic import next_values, token_rewards, value_loss, with_returns
from cohort.methods import ConflictError, Method, Stage, use
from cohort.training.build import optimizer_of, prepare
from cohort.training.config import make_config
from cohort.training.loop import one_step
from cohort.training.progress import Progress
from cohort.types import Batch
from cohort.types.declare import hooks, needs
from tests import micro
from tests.stepping import run_of


@hooks(on_advantages=with_returns)
def expectile(batch: Batch, *, tau: float, critic: str = "head") -> Tensor:
    """|tau - 1[G < V]| (G - V)^2: [N, T]."""
    error = batch["returns"] - batch["values"]
    return torch.where(error < 0, 1 - tau, tau) * error**2


@needs("target_values")
def temporal_difference(
    batch: Batch, *, critic: str, critic_lr: float | None, target_decay: float, target_every: int
) -> Tensor:
    """(V_t - (q_t + V_target,t+1))^2: [N, T]."""
    goal = token_rewards(batch) + next_values(batch["target_values"], batch.mask)
    return (batch["values"] - goal) ** 2


def test_two_that_learn_values_are_a_conflict() -> None:
    ours = Method(critic=use(expectile, tau=0.7)).named("ours")
    with pytest.raises(ConflictError, match=r"'critic'.*'ppo' \(value_loss\) and 'ours' \(expectile\) both fill"):
        registry.method("ppo") | ours
    both = registry.method("ppo:-critic") | ours
    assert both.critic is not None
    assert both.critic.fn is expectile
    assert (registry.method("ppo") | registry.method("ppo:critic")).critic == registry.method("ppo").critic


def test_values_are_there_because_the_axis_is_filled() -> None:
    def plain(batch: Batch) -> Tensor:
        return batch["values"] ** 2

    assert not {"values", "old_values"} & Method().needs(loss=True)
    assert {"values", "old_values"} <= Method(critic=use(plain)).needs(loss=True)


@pytest.mark.parametrize(
    ("critic", "kind", "roles"),
    [
        (use(expectile, tau=0.7), "head", {"critic"}),
        (
            use(temporal_difference, critic="model", critic_lr=0.02, target_decay=0.5, target_every=2),
            "model",
            {"critic", "target"},
        ),
    ],
    ids=["expectile", "temporal difference"],
)
def test_other_value_learners_train_beside_any_advantage(
    critic: Stage, kind: str, roles: set[str], micro_root: Path
) -> None:
    config = {**micro.CONFIG, "model": str(micro.folder(micro_root)), "steps": 2, "group_size": 4, "updates": 2}
    setup = prepare(make_config(config), method=Method(critic=critic).named("ours"), log=lambda _: None)
    try:
        optimizer = optimizer_of(setup)
        made = setup.policy.roles.models  # type: ignore[attr-defined]
        assert setup.policy.roles.state_dict().keys() == roles
        assert (made["critic"].backbone is None) == (kind == "head")
        progress = Progress(states=setup.method.init(size=len(setup.prompts), steps=2))
        for step in range(2):
            head = made["critic"].head.bias.detach().clone()
            held = made["target"].head.bias.detach().clone() if "target" in made else None
            result = one_step(run_of(setup, optimizer, progress))
            moved = made["critic"].head.bias.detach()
            assert not torch.equal(head, moved)
            assert result.metrics[f"loss/{critic.name}"] > 0
            if held is not None:
                # After the second update of the step, half of the way.
                assert torch.allclose(made["target"].head.bias, (held + moved) / 2)
                assert result.batch is not None
                assert (step == 0) == (not result.batch["target_values"].any())
        if kind == "model":
            lr = [group["lr"] for group in optimizer.param_groups]
            assert lr[1] == pytest.approx(0.02 / micro.CONFIG["lr"] * lr[0])
    finally:
        setup.close()


def test_the_value_loss_of_ppo_is_named_as_before() -> None:
    method = registry.method("ppo(entropy_coef=0.1)")
    assert method.critic is not None
    assert method.critic.fn is value_loss
    axes = [axis for axis, _ in method.stages()]
    # In this order their terms are added, and a sum of floats depends on it.
    assert axes.index("critic") < axes.index("regularizer")
