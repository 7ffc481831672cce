"""Rank-GRPO: each rank of a list has its own reward, baseline and ratio."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.methods import MethodError
from cohort.recipes.rank_grpo import SHAPING, token_ranks
from cohort.reductions.groups import group_sum
from cohort.signals.items import hits, rank_rewards
from cohort.types import Batch
from tests.helpers import access_of
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)


def small(seed: int, items: int = 3, **kwargs: Any) -> Batch:
    """Lists of about three items in up to eight tokens."""
    batch = batch_for("rank-grpo", seed=seed, width=8, **kwargs)
    return batch.with_rollouts(hits=batch["hits"][:, :items]).with_tokens(newlines=batch._tokens["newlines"] % 2)


def gradient(expression: str, batch: Batch) -> torch.Tensor:
    made = registry.method(expression)
    logp = batch._tokens["logp"].clone().requires_grad_()
    loss = made.bind().loss(made.bind().prepare(batch.with_tokens(logp=logp)).batch).total
    return torch.autograd.grad(loss, logp)[0]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 1), min_size=1, max_size=25))
def test_a_rank_is_credited_for_what_follows_it(row: list[int]) -> None:
    hit = torch.tensor(row, dtype=torch.float64)
    decay = rank_rewards(hit, reward="log_decay")
    assert float(decay[0]) == pytest.approx(sum(h / math.log2(k + 2) for k, h in enumerate(row)))
    own = decay - torch.nn.functional.pad(decay[1:], (0, 1))
    assert torch.allclose(own, hit / torch.arange(2, len(row) + 2).double().log2())
    assert torch.equal(rank_rewards(hit, reward="exp_inf"), hit)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(["exp_inf", "log_decay"]))
def test_advantages_of_a_rank_sum_to_zero_over_the_group(seed: int, reward: str) -> None:
    """Read off lists that all have a token at every rank."""
    batch = batch_for("rank-grpo", seed=seed, width=3, empty=False)
    batch = batch.replace(mask=torch.ones_like(batch.mask)).with_rollouts(hits=batch["hits"][:, :3])
    batch = batch.with_tokens(newlines=torch.ones_like(batch["newlines"])).with_rollouts(
        eos=-torch.ones_like(batch["eos"])
    )
    made = registry.method("rank-grpo", num_items=3, reward=reward, length_shaping=None)
    per_rank = made.bind().assign(batch).advantages
    total = group_sum(per_rank, batch.groups)
    assert torch.allclose(total, torch.zeros_like(total), atol=1e-9)
    equal = batch.with_rollouts(hits=torch.ones_like(batch["hits"]))
    assert not made.bind().assign(equal).advantages.any()


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_on_policy_a_token_gets_the_mean_advantage_of_its_rank(seed: int) -> None:
    batch = small(seed)
    batch = batch.replace(logp=batch._tokens["old_logp"])
    made = registry.method("rank-grpo", num_items=3)
    advantages, ranks, mask = made.bind().assign(batch).advantages, token_ranks(batch, 3), batch.mask
    want = torch.zeros_like(advantages)
    for i in range(batch.size):
        for rank in range(4):
            own = mask[i] & (ranks[i] == rank)
            if bool(own.any()):
                want[i, own] = -advantages[i, own].mean() / mask.sum()
    assert torch.allclose(gradient("rank-grpo(num_items=3)", batch), want)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_one_item_has_a_ratio_and_an_advantage_for_the_whole_list(seed: int) -> None:
    batch = small(seed, items=1)
    batch = batch.with_tokens(newlines=torch.zeros_like(batch["newlines"]))
    batch = batch.replace(rewards=batch["hits"][:, 0]).with_rollouts(eos=-torch.ones_like(batch["eos"]))
    clip = "clip_low=0.06, clip_high=0.08"
    want = gradient(f"gspo({clip})+grpo(kl_beta=0.0, adv_eps=1e-4, std_ddof=1, aggregation='token')", batch)
    got = gradient("rank-grpo(num_items=1, length_shaping=None)", batch)
    assert torch.allclose(got, want)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_rank_mean_weighs_ranks_alike_whatever_their_tokens(seed: int) -> None:
    batch = small(seed)
    weights = registry.method("rank-grpo", num_items=3, aggregation="rank-mean").bind().weights(batch)
    ranks = token_ranks(batch, 3)
    for rank in range(4):
        own = batch.mask & (ranks == rank)
        want = own.any(1).double() / (3 * batch.size)
        assert torch.allclose(torch.where(own, weights, 0.0).sum(1), want)
    assert not weights[~batch.mask].any()


def lists(texts: list[str], *, items: Any = ("A (1999)", "B", "C"), num_items: int = 2, **hyper: Any) -> Batch:
    access = access_of(texts, columns=[{"items": list(items), "old": ["C"]}] * len(texts))
    width = max(len(r.tokens) for r in access.rollouts)
    tokens = torch.zeros(len(texts), width, dtype=torch.int64)
    for i, rollout in enumerate(access.rollouts):
        tokens[i, : len(rollout.tokens)] = torch.tensor(rollout.tokens)
    count = torch.tensor([len(r.tokens) for r in access.rollouts])
    batch = Batch.of(torch.arange(width) < count[:, None], token_ids=tokens, group=torch.zeros(len(texts)).long())
    batch = batch.replace(rewards=torch.zeros(len(texts)).double())
    made = registry.method("rank-grpo", num_items=num_items, **hyper)
    return made.bind().assign(made.bind().on_scored(batch, access))


def test_lists_are_read_in_the_texts() -> None:
    batch = lists(["a (2000)\nb", "B\nB", "C", "1. x\n- A"])
    assert batch["hits"].tolist() == [[1, 1], [1, 0], [1, 0], [0, 1]]
    assert batch["newlines"].sum(1).tolist() == [1, 1, 0, 1]
    assert batch["eos"].tolist() == [10, 3, 1, 8]
    assert lists(["C\nA"], seen="old")["hits"].tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The Matrix (1999)", 1),
        ("the matrix!", 1),
        ("1. The Matrix (2001)", 1),
        ("- The Matrix", 1),
        ("The Matrix (2002)", 0),
        ("Matrix", 0),
        ("", 0),
        ("(1999)", 0),
    ],
)
def test_titles_and_years_are_compared(text: str, found: int) -> None:
    assert hits(text, ["The Matrix (1999)"], lines=1) == [found]


def test_the_length_of_a_list_is_shaped_at_its_end() -> None:
    texts = ["A\nx", "A\nx\ny", "A", "A\nx\n"]
    shaped, plain = lists(texts).advantages, lists(texts, length_shaping=None).advantages
    added = shaped - plain
    assert [[round(v, 3) for v in row if v] for row in added.tolist()] == [[0.1], [-0.1, -0.1], [-0.1], [-0.1]]
    end = [3, 5, 1, 4]
    assert [row[i] for row, i in zip(plain.tolist(), end, strict=True)] == [0] * 4
    # Every list begins with a hit; nothing is learnt there.
    assert not plain.any()


def test_a_list_cut_off_has_no_end_to_shape() -> None:
    batch = small(1)
    batch = batch.with_rollouts(eos=-torch.ones_like(batch["eos"]))
    with_, without = (
        registry.method("rank-grpo", num_items=3, length_shaping=shape).bind().assign(batch).advantages
        for shape in (SHAPING, None)
    )
    changed = batch.mask & (with_ != without)
    assert torch.equal(changed, batch.mask & (token_ranks(batch) >= 3))


def test_shaping_must_be_given_whole() -> None:
    with pytest.raises(MethodError, match="extra_token, end_of_list, early_stop"):
        registry.method("rank-grpo", length_shaping={"extra_token": 0.0})
    assert registry.method("rank-grpo").columns == {"items": "by_rank"}
