"""The models beside a policy: each is made, moves and is kept as its rule says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cohort.errors import UsageError
from cohort.policies.roles import RULES, Roles
from tests.helpers import tiny_policy
from tests.policies.test_causal_lm import ragged


def roles_of(weight: float = 1.0) -> tuple[nn.Linear, Roles]:
    def line(value: float) -> nn.Linear:
        made = nn.Linear(1, 1, bias=False, dtype=torch.float64)
        nn.init.constant_(made.weight, value)
        return made

    policy = line(weight)
    return policy, Roles(policy, critic=lambda kind: line({"head": 3.0, "model": 5.0}[kind]))


def weight(roles: Roles, role: str) -> float:
    with roles.playing(role) as model:
        return float(model.weight.item())


def test_each_role_moves_as_its_rule_says() -> None:
    policy, roles = roles_of()
    roles.make("reference")
    roles.make("ema", decay=0.75, every=2)
    roles.make("old", every=3)
    roles.make("critic", kind="head")
    roles.make("target", decay=0.5)
    seen = []
    for update in range(1, 7):
        nn.init.constant_(policy.weight, 1.0 + update)
        nn.init.constant_(roles.models["critic"].weight, 3.0 + update)  # type: ignore[arg-type]
        roles.move(update)
        seen.append([weight(roles, role) for role in ("reference", "ema", "old", "target")])
    ema = [1.0, 1.5, 1.5, 2.375, 2.375, 3.53125]
    target = [3.5, 4.25, 5.125, 6.0625, 7.03125, 8.015625]
    old = [1.0, 1.0, 4.0, 4.0, 4.0, 7.0]
    assert seen == [[1.0, *rest] for rest in zip(ema, old, target, strict=True)]


def test_what_is_trained_and_what_follows() -> None:
    _, roles = roles_of()
    assert (roles.trained(), list(roles.following())) == ([], [])
    for role in ("reference", "ema", "old"):
        roles.make(role)
    roles.make("critic", kind="model")
    roles.make("target")
    assert [p.item() for p in roles.trained()] == [5.0]
    assert [
        model is roles.models[role] for model, role in zip(roles.following(), ("ema", "old", "target"), strict=True)
    ]
    assert not any(
        p.requires_grad for role in ("reference", "ema", "old", "target") for p in roles.models[role].parameters()
    )


def test_a_checkpoint_holds_what_is_not_there_again_by_itself() -> None:
    policy, roles = roles_of()
    for role in ("reference", "ema", "old"):
        roles.make(role, every=1)
    roles.make("critic", kind="model")
    nn.init.constant_(policy.weight, 9.0)
    roles.move(1)
    state = roles.state_dict()
    assert set(state) == {"ema", "old", "critic"}
    _, fresh = roles_of()
    for role in ("reference", "ema", "old"):
        fresh.make(role)
    fresh.make("critic", kind="head")
    fresh.load_state_dict(state)
    assert [weight(fresh, role) for role in ("ema", "old", "critic")] == [
        weight(roles, r) for r in ("ema", "old", "critic")
    ]
    # As the checkpoints of earlier versions have it.
    fresh.load_state_dict({"teacher": roles_of(7.0)[0].state_dict(), "critic": state["critic"], "old": state["old"]})
    assert weight(fresh, "ema") == 7.0
    with pytest.raises(KeyError, match="critic"):
        fresh.load_state_dict({"ema": state["ema"], "old": state["old"]})


def test_what_cannot_be_made_or_asked_is_said() -> None:
    policy, roles = roles_of()
    with pytest.raises(RuntimeError, match="no model plays the role 'ema'"), roles.playing("ema"):
        pass
    with pytest.raises(RuntimeError, match="copies the critic, which was not made"):
        roles.make("target")
    with pytest.raises(RuntimeError, match="no role 'judge'"):
        roles.make("judge")
    with pytest.raises(UsageError, match="this policy can have none"):
        Roles(policy).make("critic")
    assert [*RULES] == ["policy", "reference", "ema", "old", "critic", "target", "teacher"]


@pytest.mark.parametrize("kind", ["head", "model"])
def test_a_target_gives_values_of_its_own(kind: str) -> None:
    policy, values = tiny_policy("llama"), frozenset({"values"})
    policy.roles.make("critic", kind=kind)
    critic = policy.roles.models["critic"]
    nn.init.normal_(critic.head.weight)  # type: ignore[union-attr, arg-type]
    policy.roles.make("target", decay=0.0)
    before = policy.log_probs(ragged(), width=8, want=values)["values"].detach()
    with torch.no_grad():
        critic.head.weight.mul_(2.0)  # type: ignore[union-attr, operator]
    after = policy.log_probs(ragged(), width=8, want=values)["values"].detach()
    held = policy.log_probs(ragged(), width=8, want=values, role="target")["values"].detach()
    assert torch.equal(held, before)
    assert not torch.allclose(after, before)
    policy.roles.move(1)
    assert torch.equal(policy.log_probs(ragged(), width=8, want=values, role="target")["values"].detach(), after)
