"""The training step: what it computes, and that cutting it up changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from cohort import registry
from cohort.rollouts.batching import check_groups
from cohort.rollouts.refill import refill
from cohort.seeds import generator
from cohort.training.build import Setup, optimizer_of, prepare
from cohort.training.config import make_config
from cohort.training.loop import one_step
from cohort.training.merging import minibatches
from cohort.training.precision import MasterWeights
from cohort.training.progress import Progress
from cohort.training.update import gradient
from tests import micro
from tests.helpers import in_float64, prompt_of, random_batch, request_of, rollout_of, tiny_policy
from tests.stepping import run_of, sample


@contextmanager
def ready(base: dict[str, Any], **changes: Any) -> Iterator[tuple[Setup, MasterWeights, Progress]]:
    setup = prepare(make_config({**base, **changes}), log=lambda _: None)
    try:
        optimizer = optimizer_of(setup)
        yield setup, optimizer, Progress(states=setup.method.init(size=len(setup.prompts)))
    finally:
        setup.close()


@pytest.mark.parametrize(
    ("method", "changes", "with_gradient", "without", "reference"),
    [
        ("grpo(kl_beta=0.0)", {}, 1, 0, 0),
        ("grpo", {}, 1, 0, 1),
        ("dapo(dynamic_sampling=False)", {}, 1, 0, 0),
        ("gtpo", {}, 1, 0, 0),
        ("dhpo", {}, 1, 0, 0),
        ("rloo", {}, 1, 0, 1),
        ("rloo(kl_beta=0.0)", {}, 1, 0, 0),
        ("disco(threshold=1.0)", {}, 1, 0, 0),
        # Several updates: old_logp from the engine where it is exact, else a pass of its own.
        ("grpo(kl_beta=0.0)", {"updates": 3}, 3, 0, 0),
        ("grpo(kl_beta=0.0)", {"updates": 3, "old_logp": "score"}, 3, 1, 0),
        ("grpo(kl_beta=0.0)", {"updates": 1, "epochs": 2}, 2, 0, 0),
    ],
)
def test_the_loop_computes_what_is_declared_and_nothing_else(
    base: dict[str, Any],
    method: str,
    changes: dict[str, Any],
    with_gradient: int,
    without: int,
    reference: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = {"gradient": 0, "none": 0, "reference": 0}
    with ready(base, method=method, **changes) as (setup, optimizer, progress):
        log_probs = setup.policy.log_probs

        def counted(*args: Any, **kwargs: Any) -> Any:
            kind = (
                "reference" if kwargs.get("role") == "reference" else "gradient" if torch.is_grad_enabled() else "none"
            )
            calls[kind] += 1
            return log_probs(*args, **kwargs)

        monkeypatch.setattr(setup.policy, "log_probs", counted)
        before = setup.policy.forwards
        result = one_step(run_of(setup, optimizer, progress))
        assert result.batch is not None
        assert setup.policy.forwards - before == sum(calls.values())
    assert calls == {"gradient": with_gradient, "none": without, "reference": reference}


@pytest.mark.parametrize("name", [name for name in registry.names() if not registry.method(name).requires])
def test_micro_batches_do_not_change_the_gradient(micro_root: Path, name: str) -> None:
    """One forward pass over everything, and one a rollout, give the same gradient to rounding."""
    with micro.method_ready(micro_root, name, prompts_per_step=3, group_size=4) as (setup, _, progress):
        in_float64(setup.policy)
        run = run_of(setup, None, progress)
        sampled, _, method = sample(run)
        batch = run.batches.scored(method, sampled)
        method = method.with_states(method.on_rollouts(batch, sampled))
        batch = run.batches.complete(method, batch, sampled)
        batch = method.assign(method.shape(batch))
        sequences = setup.policy.actions(sampled)
        # Not the sampler's: some methods train answers elsewhere than they were drawn.
        own = run.batches.with_old_logp(batch, sampled).old_logp
        old = own + 0.1 * torch.randn(batch.mask.shape, generator=generator(0, name))
        batch = batch.replace(old_logp=old.to(own.dtype))
        results = []
        for micro_tokens in (10**6, 1):
            done = gradient(
                setup.policy, method, batch, sequences, temperature=1.0, micro_tokens=micro_tokens, on_policy=False
            )
            results.append((done, [p.grad.clone() for p in setup.policy.trainable() if p.grad is not None]))
            setup.policy.model.zero_grad()
    (whole, grads), (parts, part_grads) = results
    assert whole.loss == pytest.approx(parts.loss, abs=1e-9)
    assert torch.allclose(whole.fields["logp"], parts.fields["logp"], atol=1e-9)
    assert torch.allclose(whole.fields["policy_gradient"], parts.fields["policy_gradient"], atol=1e-9)
    assert len(grads) == len(part_grads) > 0
    for a, b in zip(grads, part_grads, strict=True):
        assert torch.allclose(a, b, atol=1e-9)


def test_the_gradient_is_that_of_the_papers_formula(base: dict[str, Any]) -> None:
    """-(1/N) sum_i A_i (1/L_i) sum_t grad logp_it on the first update, computed rollout by rollout."""
    with ready(base, method="grpo(kl_beta=0.0)") as (setup, optimizer, progress):
        optimizer.step = lambda: None  # type: ignore[method-assign]
        kept: list[torch.Tensor] = []
        optimizer.zero_grad = lambda: kept.extend(p.grad.clone() for p in optimizer.params)  # type: ignore[method-assign]
        setup.config.optimisation.grad_clip = 1e9
        result = one_step(run_of(setup, optimizer, progress))
        for parameter in optimizer.params:
            parameter.grad = None
        rewards: dict[str, list[float]] = {}
        for rollout in result.rollouts:
            rewards.setdefault(rollout.prompt.id, []).append(rollout.reward)
        loss = torch.zeros(())
        for rollout in result.rollouts:
            group = torch.tensor(rewards[rollout.prompt.id])
            if group.max() == group.min():
                continue
            advantage = (rollout.reward - group.mean()) / (group.std(correction=0) + 1e-6)
            ids = torch.tensor([[*rollout.request.context, *rollout.tokens]])
            log_probs = (
                setup.policy.model(input_ids=ids).logits[0, len(rollout.request.context) - 1 : -1].log_softmax(-1)
            )
            chosen = log_probs.gather(1, torch.tensor(rollout.tokens)[:, None])[:, 0]
            loss = loss - advantage * chosen.mean() / len(result.rollouts)
        loss.backward()
        for parameter, grad in zip(optimizer.params, kept, strict=True):
            assert torch.allclose(parameter.grad, grad, atol=1e-5)


def test_a_step_measures_what_it_did(base: dict[str, Any]) -> None:
    with ready(base, method="grpo") as (setup, optimizer, progress):
        metrics = one_step(run_of(setup, optimizer, progress)).metrics
    for name in (
        "reward/mean",
        "reward/format",
        "reward/length",
        "accuracy",
        "entropy",
        "kl",
        "clip_fraction",
        "grad_norm",
        "zero_signal_groups",
        "mismatch",
        "completion/length_mean",
        "completion/truncated",
        "tokens",
        "lr",
        "loss",
        "time/sample",
        "time/reward",
        "time/score",
        "time/update",
        "time/step",
    ):
        assert name in metrics, name
    assert 0 <= metrics["mismatch"] <= metrics["mismatch_max"] < 1e-4
    assert metrics["reward/mean"] == pytest.approx(metrics["reward/format"] + 0.5 * metrics["reward/length"])
    assert metrics["clip_fraction"] == 0.0
    assert progress.step == 1


def test_clipping_is_seen_in_later_updates(base: dict[str, Any]) -> None:
    with ready(base, method="grpo(kl_beta=0.0, clip_low=0.001, clip_high=0.001)", epochs=4, lr=1e-2) as parts:
        metrics = one_step(run_of(*parts)).metrics
    assert metrics["clip_fraction"] > 0.2
    assert metrics["mismatch_max"] < 1e-4


def test_a_step_samples_again_for_groups_without_signal(base: dict[str, Any]) -> None:
    """Dynamic sampling draws more rounds, and trains on at most the prompts asked for, all of them mixed."""
    with ready(base, method="dapo(max_rounds=4,overlong=False)", reward=["format:[0-4]"], group_size=3) as parts:
        seen = []
        for _ in range(4):
            result = one_step(run_of(*parts))
            groups: dict[str, list[float]] = {}
            for i in result.trained:
                groups.setdefault(result.rollouts[i].prompt.id, []).append(result.rollouts[i].accuracy)
            assert len(groups) <= 3
            assert all(0 < sum(g) < len(g) for g in groups.values())
            seen.append(len(result.rollouts))
    assert max(seen) > 9


def test_a_step_without_signal_changes_nothing(base: dict[str, Any]) -> None:
    with ready(base, method="dapo(max_rounds=2)", reward=["format:never"]) as (setup, optimizer, progress):
        before = [p.detach().clone() for p in optimizer.params]
        result = one_step(run_of(setup, optimizer, progress))
        assert result.batch is None
        assert result.metrics["rollouts/trained"] == 0
        assert result.metrics["zero_signal_groups"] == 1.0
        assert all(torch.equal(a, b) for a, b in zip(before, optimizer.params, strict=True))
    assert progress.step == 1


def test_a_budget_gives_prompts_unequal_numbers_of_rollouts(base: dict[str, Any]) -> None:
    with ready(base, method="mc-grpo") as parts:
        result = one_step(run_of(*parts))
        assert len(result.rollouts) == 3 * 5
        assert len(result.trained) == 3 * 4
    with ready(base, method="knapsack", data=base["data"][:3], prompts_per_step=3, reward=["format:[0-4]"]) as parts:
        sizes = []
        for _ in range(4):
            result = one_step(run_of(*parts))
            counts: dict[str, int] = {}
            for rollout in result.rollouts:
                counts[rollout.prompt.id] = counts.get(rollout.prompt.id, 0) + 1
            assert sum(counts.values()) == 12
            sizes.append(sorted(counts.values()))
    assert sizes[0] == [4, 4, 4]
    assert any(size != [4, 4, 4] for size in sizes[1:])


def test_serial_exits_share_their_prefix_and_mask_what_was_inserted(base: dict[str, Any]) -> None:
    method = "s-grpo(exit_text='!',end_of_thinking='@')"
    with ready(base, method=method, max_new_tokens=12, prompts_per_step=6) as (setup, optimizer, progress):
        result = one_step(run_of(setup, optimizer, progress))
        inserted = setup.policy.renderer.encode("!")[0]
        groups: dict[str, list[Any]] = {}
        for rollout in result.rollouts:
            groups.setdefault(rollout.prompt.id, []).append(rollout)
        cuts = 0
        for members in groups.values():
            path = max(members, key=lambda r: r.fields["exit_position"])
            assert path.fields["exit_position"] == len(path.tokens) + 1
            for member in members:
                at = int(member.fields["exit_position"])
                if member is path:
                    continue
                cuts += 1
                assert member.tokens[: at + 1] == [*path.tokens[:at], inserted]
                assert member.mask[: at + 1] == [1] * at + [0]
                assert member.sampler_logp[:at] == path.sampler_logp[:at]
                assert all(member.mask[at + 1 :])
    assert cuts > 5
    assert result.metrics["mismatch_max"] < 1e-4


def test_minibatches_hold_whole_groups() -> None:
    batch = random_batch(1, groups=(3, 4, 2, 5, 3))
    parts = minibatches(batch, 3, generator(0))
    assert sorted(torch.cat(parts).tolist()) == list(range(batch.size))
    assert len(parts) == 3
    for part in parts:
        inside = set(batch.group[part].tolist())
        outside = set(batch.group.tolist()) - inside
        assert inside.isdisjoint(outside)
    seen = [set(batch.group[part].tolist()) for part in parts]
    assert sum(map(len, seen)) == 5
    assert minibatches(batch, 1, generator(0))[0].tolist() == list(range(batch.size))


def test_refill_stops_at_the_target_or_at_the_limit() -> None:
    rounds = [[0, 1], [1, 1], [1, 0], [1, 1]]
    done = refill(iter(rounds), lambda r: [bool(x) for x in r], target=3, max_rounds=10)
    assert done.chosen == [(0, 1), (1, 0), (1, 1)]
    assert len(done.rounds) == 2
    done = refill(iter(rounds), lambda r: [bool(x) for x in r], target=5, max_rounds=2)
    assert done.chosen == [(0, 1), (1, 0), (1, 1)]


def test_a_wrong_grouping_is_noticed() -> None:
    policy = tiny_policy()
    right, other = prompt_of(policy, "1+1="), prompt_of(policy, "2+2=")
    requests = [request_of(right), request_of(other)]
    rollouts = [rollout_of(request, [5]) for request in requests]
    check_groups(rollouts, requests)
    from dataclasses import replace

    mislabelled = rollout_of(replace(requests[1], prompt=replace(other, id=right.id)), [5])
    with pytest.raises(RuntimeError, match="its group would be wrong"):
        check_groups([rollouts[0], mislabelled], requests)
