"""DaGRPO: pairs that are too alike are left out, unsolved prompts get a solution."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.errors import UsageError
from cohort.signals.components import component
from cohort.training.build import Setup, optimizer_of, prepare
from cohort.training.config import make_config
from cohort.training.loop import one_step
from cohort.training.progress import Progress
from cohort.types import Batch, Prompt, Request, Rollout, Segment
from tests.helpers import rollout_of, tiny_policy
from tests.stepping import run_of
from tests.traits import batch_for, info_for

SEEDS = st.integers(0, 10_000)


def kept(batch: Batch, **hyper: object) -> Tensor:
    rows = registry.method("dagrpo", **hyper).bind(info=info_for(batch, "dagrpo")).keep(batch, after_advantage=True)
    return torch.isin(torch.arange(batch.size), rows)


def gradient(method: str, batch: Batch) -> Tensor:
    made = registry.method(method)
    logp = batch._tokens["logp"].clone().requires_grad_()
    bound = made.bind(info=info_for(batch, "dagrpo"))
    loss = bound.loss(bound.prepare(batch.with_tokens(logp=logp)).batch).total
    return torch.autograd.grad(loss, logp)[0]


def without_anchors(batch: Batch) -> Batch:
    return batch.with_rollouts(is_anchor=torch.zeros_like(batch.rewards))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(-0.5, 1), st.sampled_from(["any", "all"]))
def test_members_of_indistinct_pairs_are_left_out(seed: int, tau: float, rule: str) -> None:
    batch = batch_for("dagrpo", seed=seed, groups=(5, 3, 1, 4))
    scores, right, found = (
        component(batch, "quality", info_for(batch, "dagrpo")),
        batch["accuracy"] > 0.5,
        kept(batch, tau=tau, rule=rule),
    )
    for i in range(batch.size):
        near = []
        for j in range(batch.size):
            if batch.group[i] == batch.group[j] and right[i] != right[j]:
                good, bad = (i, j) if right[i] else (j, i)
                near.append(bool(scores[good] - scores[bad] < tau))
        masked = any(near) if rule == "any" else bool(near) and all(near)
        assert bool(found[i]) == (not masked)
    # Whoever the stricter rule masks, the other masks as well.
    assert bool((kept(batch, tau=tau, rule="all") | ~kept(batch, tau=tau, rule="any")).all())


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_with_everything_distinct_and_no_anchor_it_is_grpo(seed: int) -> None:
    batch = without_anchors(batch_for("dagrpo", seed=seed))
    assert torch.equal(gradient("dagrpo(tau=-2.0)", batch), gradient("grpo(kl_beta=0.0)", batch))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_masked_rollouts_have_no_gradient_and_the_others_their_share(seed: int) -> None:
    batch = without_anchors(batch_for("dagrpo", seed=seed))
    found = kept(batch)
    if not bool(found.any()):
        return
    got, whole = gradient("dagrpo", batch), gradient("grpo(kl_beta=0.0)", batch)
    assert not got[~found].any()
    # Advantages are those of the whole group; the mean is over the rollouts that are left.
    assert torch.allclose(got[found], whole[found] * batch.size / int(found.sum()))


def test_without_any_rollout_left_there_is_no_loss() -> None:
    batch = batch_for("dagrpo", seed=0, groups=(4,))
    batch = batch.replace(accuracy=torch.tensor([1.0, 1.0, 0.0, 0.0]).double())
    made = registry.method("dagrpo(tau=2.0)").bind(info=info_for(batch, "dagrpo"))
    ready = made.prepare(batch).batch
    assert ready.size == 0
    assert float(made.loss(ready).total) == 0.0


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(["policy_prob", "self"]))
def test_an_anchors_tokens_are_never_clipped(seed: int, how: str) -> None:
    batch = batch_for("dagrpo", seed=seed, drift=0.8)
    batch = batch.with_rollouts(is_anchor=torch.ones_like(batch.rewards))
    made = registry.method("dagrpo", tau=-2.0, anchor_ratio=how)
    probability = batch.logp.exp() if how == "policy_prob" else torch.ones_like(batch.logp)
    want = -probability * made.bind().assign(batch).advantages * made.bind().weights(batch)
    got = gradient(f"dagrpo(tau=-2.0, anchor_ratio='{how}')", batch)
    assert torch.allclose(got, torch.where(batch.mask, want, 0.0))
    # What the rollout was drawn with does not enter.
    other = batch.replace(old_logp=batch.old_logp - 1.0)
    assert torch.equal(gradient(f"dagrpo(tau=-2.0, anchor_ratio='{how}')", other), got)


@pytest.mark.parametrize("size", [2, 4, 9])
def test_the_anchor_of_an_unsolved_group_has_the_only_positive_advantage(size: int) -> None:
    rewards = torch.zeros(size, dtype=torch.float64)
    rewards[-1] = 1.0
    batch = batch_for("dagrpo", groups=(size,), empty=False).replace(rewards=rewards)
    made = registry.method("dagrpo").bind().assign(batch)["outcome_advantage"]
    assert float(made[-1]) == pytest.approx(math.sqrt(size - 1), rel=1e-4)
    assert bool((made[:-1] < 0).all())


class FakeTools:
    """Draws the given accuracies; the engine ends a continuation where it is told to."""

    def __init__(self, accuracies: Sequence[float], *, ends: bool) -> None:
        self.accuracies, self.ends = list(accuracies), ends
        self.graded: list[str] = []

    def draw(self, requests: Sequence[Request]) -> list[Rollout]:
        return [
            rollout_of(r, [7], text="7", accuracy=a, reward=a) for r, a in zip(requests, self.accuracies, strict=True)
        ]

    def generate(self, requests: Sequence[Request]) -> list[Rollout]:
        out = []
        for r in requests:
            assert r.max_new_tokens == 1
            tokens = [*r.prefix, 1 if self.ends else 9]
            text = "".join(map(chr, r.prefix)) + ("" if self.ends else "!")
            drawn = Segment(tuple(tokens[len(r.prefix) :]), logp=(-1.0,), entropy=(0.5,))
            out.append(Rollout(r, (*r.history, drawn), "finished" if self.ends else "truncated", text))
        return out

    def grade(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        self.graded += [rollout.text for rollout in rollouts]
        return [rollout.replace(components={"exact": 0.0, "quality": 0.9}, reward=0.0) for rollout in rollouts]

    def encode_completion(self, prompt: Any, text: str) -> tuple[int, ...]:
        return tuple(map(ord, text))

    def cut(self, rollout: Rollout, count: int) -> Rollout:
        text = "".join(map(chr, rollout.tokens[:count]))
        return rollout.replace(segments=rollout.head(count), status="truncated", text=text)


def guided(solution: str, accuracies: Sequence[float], *, ends: bool = True, **hyper: object) -> tuple[Any, FakeTools]:
    requests = [
        Request(Prompt(p, p, (1,), p, {"solution": solution}), (1,), seed=k, max_new_tokens=6)
        for p in ("a", "b")
        for k in range(2)
    ]
    tools = FakeTools(accuracies, ends=ends)
    return registry.method("dagrpo", **hyper).bind().guidance(requests, tools), tools


@pytest.mark.parametrize("ends", [True, False])
def test_an_unsolved_prompt_gets_its_solution_as_a_rollout(ends: bool) -> None:
    rollouts, tools = guided("6*7", [0.0, 0.0, 1.0, 0.0], ends=ends)
    assert [r.fields["is_anchor"] for r in rollouts] == [0.0, 1.0, 0.0, 0.0]
    anchor = rollouts[1]
    assert anchor.prompt.id == "a"
    assert anchor.tokens == [*map(ord, "6*7"), *([1] if ends else [])]
    assert anchor.mask == [1] * len(anchor.tokens)
    assert (anchor.text, anchor.finished) == ("6*7", ends)
    assert (anchor.reward, anchor.accuracy, anchor.components["quality"]) == (1.0, 1.0, 0.9)
    assert tools.graded == ["6*7"]


def test_solutions_that_do_not_fit_and_prompts_that_are_solved_get_none() -> None:
    assert not any(r.fields["is_anchor"] for r in guided("7 times 6", [0.0] * 4)[0])
    assert not any(r.fields["is_anchor"] for r in guided("", [0.0] * 4)[0])
    assert not any(r.fields["is_anchor"] for r in guided("42", [1.0, 0.0, 0.0, 1.0])[0])
    assert sum(r.fields["is_anchor"] for r in guided("42", [1.0, 0.0, 1.0, 1.0], max_accuracy=0.5)[0]) == 1


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    root = tmp_path_factory.mktemp("dagrpo")
    tiny_policy("qwen3").save(root / "tiny")
    judge = root / "judge.py"
    judge.write_text("def quality(completions, **columns):\n    return [0.5 * ('9' in text) for text in completions]\n")
    # No one writes that many nines in six tokens by chance.
    rows = [{"prompt": f"{a}=", "answer": "99999", "solution": "99999"} for a in range(3)]
    config = {
        "model": str(root / "tiny"),
        "data": rows,
        "reward": ["exact", f"0*{judge}:quality"],
        "steps": 2,
        "prompts_per_step": 3,
        "group_size": 4,
        "max_new_tokens": 6,
        "tensorboard": False,
        "show_every": 0,
        "method": "dagrpo",
    }
    made = prepare(make_config(config), log=lambda _: None)
    yield made
    made.close()


def test_anchors_are_trained_on(setup: Setup) -> None:
    optimizer, progress = optimizer_of(setup), Progress(states=setup.method.init(size=3))
    result = one_step(run_of(setup, optimizer, progress))
    anchors = [r for r in result.rollouts if r.fields["is_anchor"]]
    assert len(anchors) == 3
    assert {r.text for r in anchors} == {"99999"}
    assert result.batch is not None
    mine = result.batch["is_anchor"] > 0
    assert int(mine.sum()) == 3
    assert bool((result.batch["policy_gradient"][mine][result.batch.mask[mine]] < 0).all())
    assert float(result.batch["outcome_advantage"][mine].mean()) == pytest.approx(math.sqrt(3), rel=1e-4)


def test_judge_and_solutions_are_asked_for(setup: Setup) -> None:
    assert setup.method.components == {"quality": "distinct"}
    assert setup.method.columns == {"solution": "expert_anchors"}
    batch = batch_for("grpo", seed=1)
    with pytest.raises(UsageError, match="no reward 'quality'"):
        setup.method.bind().keep(batch, after_advantage=True)
