"""Several policies as one: each agent's actions are its own policy's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from cohort.engine.agents import AgentEngines
from cohort.engine.native.engine import NativeEngine
from cohort.errors import UsageError
from cohort.policies.agents import AgentPolicies
from cohort.policies.passes import log_probs
from cohort.rollouts.runner import Runner
from cohort.types import Rollout, Segment
from cohort.types.batch import label_of
from tests.environments.worlds import Worlds
from tests.helpers import prompt_of, request_of, tiny_policy
from tests.rollouts.test_agents import Duel
from tests.rollouts.test_runner import SHORT, requests, same


def pair() -> AgentPolicies:
    return AgentPolicies(tiny_policy(seed=0), {"black": tiny_policy(seed=1)})


def spoken(policies: AgentPolicies) -> list[Rollout]:
    """Rollouts of both agents, and of one without a policy of its own, in turns."""
    out = []
    for i, agent in enumerate(["black", "white", "black", "", "white"]):
        request = replace(request_of(prompt_of(policies.shared, f"p{i}"), seed=i, count=9), agent=agent)
        tokens = policies.renderer.encode("abcdefg"[: 3 + i % 4])
        out.append(Rollout(request, (Segment(tokens),)))
    return out


def owner(policies: AgentPolicies, rollout: Rollout) -> Any:
    return policies.members.get(rollout.agent, policies.shared)


def test_each_rollout_is_scored_by_the_policy_of_its_agent() -> None:
    policies = pair()
    rollouts = spoken(policies)
    actions = policies.actions(rollouts)
    assert len(actions) == 5
    how: dict[str, Any] = {"width": 8, "temperature": 0.9, "micro_tokens": 12, "want": frozenset({"logp", "entropy"})}
    found = log_probs(policies, actions, **how)
    for i, rollout in enumerate(rollouts):
        policy = owner(policies, rollout)
        alone = log_probs(policy, policy.actions([rollout]), **how)
        for name in ("logp", "entropy"):
            assert torch.allclose(found[name][i], alone[name][0], atol=1e-6)
    rows = torch.tensor([4, 0, 2])
    some = log_probs(policies, actions.select(rows), **how)
    assert torch.allclose(some["logp"], found["logp"][rows], atol=1e-6)
    twice = log_probs(policies, actions.select(rows) + actions, **how)
    assert torch.allclose(twice["logp"], torch.cat([some["logp"], found["logp"]]), atol=1e-6)
    again = policies.actions_after(
        [r.context for r in rollouts], [r.tokens for r in rollouts], agents=[label_of(r.agent) for r in rollouts]
    )
    assert torch.equal(again.owner, actions.owner)
    contexts = [torch.tensor([2, 5, 6 + i]) for i in range(5)]
    moved = log_probs(policies, actions.in_contexts(contexts), **how)["logp"]
    by_hand = policies.actions_after(
        contexts, [r.tokens for r in rollouts], agents=[label_of(r.agent) for r in rollouts]
    )  # type: ignore[arg-type]
    assert torch.allclose(moved, log_probs(policies, by_hand, **how)["logp"], atol=1e-6)
    assert not torch.allclose(moved, found["logp"], atol=1e-2)


def test_a_loss_reaches_the_policy_whose_rows_it_is_of_and_no_other() -> None:
    policies = pair()
    rollouts = [rollout for rollout in spoken(policies) if rollout.agent == "black"]
    policies.log_probs(policies.actions(rollouts), width=8)["logp"].sum().backward()
    assert all(p.grad is None for p in policies.shared.trainable())
    assert any(p.grad is not None and p.grad.any() for p in policies.members["black"].trainable())
    parts = policies.clipped_apart()
    assert [len(part) for part in parts] == [len(policy.trainable()) for policy in policies.members.values()]
    assert sum(map(len, parts)) == len(policies.trainable())


def test_micro_batches_are_of_one_policy_each() -> None:
    policies = pair()
    actions = policies.actions(spoken(policies))
    parts = policies.micro_batches(actions, 10)
    assert sorted(torch.cat(parts).tolist()) == list(range(5))
    assert all(len(actions.owner[rows].unique()) == 1 for rows in parts)
    policies.halved = True
    assert all(policy.halved for policy in policies.members.values())


@pytest.mark.parametrize("kind", ["agents", "alone"])
def test_each_agent_draws_with_its_own_policy(kind: str) -> None:
    policies = pair()
    engines = AgentEngines({agent: NativeEngine(policy) for agent, policy in policies.members.items()})  # type: ignore[arg-type]
    assert engines.exact
    asked = requests(4)
    if kind == "alone":
        drawn = dict(engines.generate([replace(r, agent="black") for r in asked], SHORT))
        own = dict(NativeEngine(policies.members["black"]).generate(asked, SHORT))  # type: ignore[arg-type]
        assert {i: c.tokens for i, c in drawn.items()} == {i: c.tokens for i, c in own.items()}
        return
    rollouts = Runner(policies, engines, SHORT, Worlds(lambda k: Duel())).run(asked)
    parts = [part for rollout in rollouts for part in rollout.parts]
    assert {part.agent for part in parts} == {"white", "black"}
    logp = log_probs(policies, policies.actions(parts), width=100, temperature=0.9, micro_tokens=400)["logp"]
    for row, part in zip(logp, parts, strict=True):
        mask = torch.tensor(part.mask, dtype=torch.bool)
        assert float((row[: len(mask)] - torch.tensor(part.sampler_logp))[mask].abs().max()) < 1e-4
    again = Runner(policies, engines, SHORT, Worlds(lambda k: Duel())).run(asked)
    assert all(map(same, rollouts, again))
    engines.sync()
    engines.close()


def test_they_are_saved_and_loaded_together(tmp_path: Path) -> None:
    policies, others = pair(), AgentPolicies(tiny_policy(seed=5), {"black": tiny_policy(seed=6)})
    policies.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["agents"]
    others.load_weights(tmp_path)
    for a, b in zip(policies.trainable(), others.trainable(), strict=True):
        assert torch.equal(a, b)
    policies.roles.make("ema")
    others.roles.make("ema")
    others.roles.load_state_dict(policies.roles.state_dict())
    with torch.no_grad():
        policies.trainable()[-1].add_(1.0)
    policies.roles.move(1)
    assert len(list(policies.roles.following())) == 2
    with pytest.raises(UsageError, match="2 policies here"):
        policies.roles.playing("ema")


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    other = tiny_policy(seed=1)
    other.renderer.tokenizer.save_pretrained(tmp_path)
    changed = AutoTokenizer.from_pretrained(tmp_path)
    changed.add_tokens(["<another>"])
    from cohort.policies.causal_lm import CausalLM

    with pytest.raises(UsageError, match="another tokenizer"):
        AgentPolicies(tiny_policy(), {"black": CausalLM(other.model, changed)})
    with pytest.raises(UsageError, match="no agent's"):
        pair().actions_after([(1,)], [(2,)])
