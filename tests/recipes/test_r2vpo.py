"""R2VPO: a penalty on the variance of the ratio, its dual variable, and the replay of earlier steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.axes import ratio
from cohort.methods import BoundMethod, Loss
from cohort.recipes.r2vpo import dual_step, ratio_variance
from cohort.training.build import optimizer_of, prepare
from cohort.training.config import make_config
from cohort.training.loop import one_step
from cohort.training.progress import Progress
from cohort.types import Batch
from tests.helpers import info_of, random_batch, tiny_policy
from tests.stepping import run_of

SEEDS = st.integers(0, 10_000)
KEY = "surrogate/variance_penalty"


def gradient(method: str, batch: Batch) -> Tensor:
    made = registry.method(method)
    logp = batch._tokens["logp"].clone().requires_grad_()
    states = made.init(size=1)
    loss = made.bind(states).loss(made.bind(states).prepare(batch.with_tokens(logp=logp)).batch).total
    return torch.autograd.grad(loss, logp)[0]


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0, 3), st.sampled_from(["seq", "token"]))
def test_the_gradient_is_that_of_the_effective_advantage(seed: int, penalty: float, aggregation: str) -> None:
    batch = random_batch(seed, drift=0.8)
    method = f"r2vpo(lambda_init={penalty}, aggregation='{aggregation}')"
    made = registry.method(method)
    rho, advantages = ratio.token(batch), made.bind().assign(batch).advantages
    want = -rho * (advantages - 2 * penalty * (rho - 1)) * made.bind().weights(batch)
    assert torch.allclose(gradient(method, batch), torch.where(batch.mask, want, 0.0))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0, 3))
def test_on_policy_the_gradient_is_grpos_and_lambda_falls(seed: int, penalty: float) -> None:
    batch = random_batch(seed)
    batch = batch.replace(logp=batch._tokens["old_logp"])
    method = f"r2vpo(lambda_init={penalty})"
    assert torch.allclose(gradient(method, batch), gradient("grpo(kl_beta=0.0)", batch))
    made = registry.method(method)
    after = made.bind(made.init(size=1)).on_step_end(batch, [], None)[KEY]["lambda"]
    assert after == pytest.approx(max(0.0, penalty - 0.1 * 0.02))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0, 1), st.sampled_from(["seq", "token"]))
def test_lambda_rises_exactly_where_the_variance_is_above_delta(seed: int, delta: float, aggregation: str) -> None:
    batch = random_batch(seed, drift=0.5)
    made = registry.method("r2vpo", delta=delta, aggregation=aggregation, lambda_init=5.0)
    after = made.bind(made.init(size=1)).on_step_end(batch, [], None)[KEY]["lambda"]
    moved = (ratio.token(batch) - 1)[batch.mask] ** 2
    weight = made.bind().weights(batch)[batch.mask]
    assert ratio_variance(batch, aggregation=aggregation, info=info_of(batch)) == pytest.approx(
        float((weight * moved).sum())
    )
    assert (after > 5.0) == bool((weight * moved).sum() > delta)
    assert dual_step(0.001, 0.0, delta=0.5, dual_lr=1.0) == 0.0


def test_a_token_that_moved_too_far_is_pushed_back() -> None:
    batch = random_batch(1, drift=0.8)
    rho, advantages = ratio.token(batch), registry.method("r2vpo").bind().assign(batch).advantages
    grad = gradient("r2vpo(lambda_init=2.0)", batch)
    up = batch.mask & (advantages > 0)
    # Descent raises logp where the gradient is negative: up to rho = 1 + A / (2 lambda), and no further.
    beyond = rho > 1 + advantages / 4
    assert torch.equal(grad[up] > 0, beyond[up])
    assert bool(beyond[up].any())
    assert not bool(beyond[up].all())


def test_a_group_without_signal_is_pulled_back_to_where_it_was() -> None:
    batch = random_batch(2, drift=0.8)
    batch = batch.replace(rewards=torch.ones_like(batch.rewards))
    grad = gradient("r2vpo", batch)
    assert torch.equal(grad[batch.mask].sign(), (ratio.token(batch) - 1)[batch.mask].sign())
    assert not gradient("grpo(kl_beta=0.0)", batch).any()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("r2vpo") / "tiny"
    tiny_policy("qwen3").save(folder)
    rows = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(4) for b in range(3)]
    return {
        "model": str(folder),
        "data": rows,
        "reward": ["format:[0-4]"],
        "steps": 4,
        "prompts_per_step": 2,
        "group_size": 3,
        "max_new_tokens": 5,
        "lr": 1e-3,
        "tensorboard": False,
        "show_every": 0,
        "method": "r2vpo(replay=2)",
    }


def started(config: dict[str, Any], **changes: Any) -> tuple[Any, Any, Progress]:
    setup = prepare(make_config({**config, **changes}), log=lambda _: None)
    return setup, optimizer_of(setup), Progress(states=setup.method.init(size=len(setup.prompts)))


def test_rollouts_of_earlier_steps_are_trained_on_with_the_fresh_ones(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    setup, optimizer, progress = started(config)
    seen: list[Batch] = []
    loss = BoundMethod.loss

    def watched(self: BoundMethod, batch: Batch) -> Loss:
        seen.append(batch)
        return loss(self, batch)

    monkeypatch.setattr(BoundMethod, "loss", watched)
    results = [one_step(run_of(setup, optimizer, progress)) for _ in range(4)]
    setup.close()
    fresh = [result.batch for result in results]
    assert [batch.size for batch in seen] == [6, 12, 18, 18]
    assert all(batch is not None and batch.size == 6 for batch in fresh)
    third = seen[2]
    assert third.groups.count == 6
    for k in (0, 1):
        was, rows = fresh[k], slice(6 * (k + 1), 6 * (k + 2))
        assert was is not None
        width = was.mask.shape[1]
        assert torch.equal(third["token_ids"][rows, :width], was["token_ids"])
        assert torch.equal(third.advantages[rows, :width], torch.where(was.mask, was.advantages, 0.0))
        # Compared with the policy that drew them, not with the current one.
        drawn = was["old_logp"] if "old_logp" in was else was.logp
        assert torch.allclose(third.old_logp[rows, :width], drawn)
        assert not torch.allclose(third.logp.detach()[rows, :width], drawn, atol=1e-5)
    assert torch.allclose(third.old_logp[:6], third.logp.detach()[:6], atol=1e-5)
    assert len(progress.states[KEY]["kept"]) == 2


def test_the_dual_variable_follows_fresh_and_replayed_rollouts(config: dict[str, Any]) -> None:
    setup, optimizer, progress = started(config, lr=3e-2)
    one_step(run_of(setup, optimizer, progress))
    # On-policy and nothing to replay: no variance.
    assert progress.states[KEY]["lambda"] == pytest.approx(0.5 - 0.1 * 0.02)
    before = progress.states[KEY]["lambda"]
    one_step(run_of(setup, optimizer, progress))
    setup.close()
    # Two large updates have moved the policy away from the replayed rollouts.
    assert progress.states[KEY]["lambda"] > before


def test_without_replay_nothing_is_kept(config: dict[str, Any]) -> None:
    setup, optimizer, progress = started(config, method="r2vpo", updates=2)
    one_step(run_of(setup, optimizer, progress))
    assert setup.method.bind(progress.states).replay() == []
    assert progress.states[KEY]["kept"] == []
    # The second minibatch is no longer on-policy.
    assert progress.states[KEY]["lambda"] > 0.5 - 0.1 * 0.02
    setup.close()


def test_a_run_continues_from_a_checkpoint_with_buffer_and_dual_variable(
    config: dict[str, Any], tmp_path: Path
) -> None:
    setup, optimizer, progress = started(config)
    for step in range(4):
        if step == 2:
            held = {"progress": vars(progress), "optimizer": optimizer.state_dict()}
            torch.save({**held, "model": setup.policy.model.state_dict()}, tmp_path / "state.pt")
        one_step(run_of(setup, optimizer, progress))
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert [len(step["contexts"]) for step in state["progress"]["states"][KEY]["kept"]] == [6, 6]
    again, optimizer_again, _ = started(config)
    again.policy.model.load_state_dict(state["model"])
    again.collector.engine.sync()
    optimizer_again.load_state_dict(state["optimizer"])
    progress_again = Progress(**state["progress"])
    for _ in range(2):
        one_step(run_of(again, optimizer_again, progress_again))
    setup.close()
    again.close()
    assert progress_again.states[KEY]["lambda"] == progress.states[KEY]["lambda"]
    for a, b in zip(setup.policy.model.parameters(), again.policy.model.parameters(), strict=True):
        assert torch.equal(a, b)
