"""Final answers as numbers."""

from __future__ import annotations

import math
from collections import Counter

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.reductions.groups import group_mean
from cohort.signals import votes
from cohort.types import Batch, Groups, Prompt, Request
from cohort.types.access import ModelAccess
from tests.helpers import access_of, rollout_of

IDS = st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 4)), min_size=1, max_size=14)


def groups_of(labels: list[int]) -> Groups:
    count = len(labels)
    return Batch(mask=torch.ones(count, 1), rollouts={"group": torch.tensor(labels)}).groups


def texts_access(*texts: str) -> ModelAccess:
    request = Request(Prompt("p", "p", (1,), "p"), (1,), 0, 4)
    rollouts = [rollout_of(request, [1], text=text) for text in texts]
    return ModelAccess(rollouts, *[None] * 7)  # type: ignore[arg-type]


def test_ids_come_from_the_texts() -> None:
    texts = [
        "so \\boxed{0.50}",
        "hm",
        "#### 7",
        "<answer>.5</answer>",
        "it is 7.0",
        "\\boxed{x  + 1}",
        "\\boxed{x + 1}",
    ]
    batch = Batch(mask=torch.ones(7, 1), rollouts={"group": torch.zeros(7, dtype=torch.int64)})
    made = votes.answer_ids(batch, texts_access(*texts))
    assert made["answer_id"].tolist() == [0, -1, 1, 0, 1, 2, 2]
    assert votes.answer_ids(made, texts_access())["answer_id"] is made["answer_id"]


@settings(max_examples=60, deadline=None)
@given(IDS)
def test_counts_majorities_and_entropies_are_those_of_each_group(pairs: list[tuple[int, int]]) -> None:
    labels, ids = [p for p, _ in pairs], [a for _, a in pairs]
    groups, tensor = groups_of(labels), torch.tensor(ids)
    count, best = votes.vote_counts(tensor, groups), votes.majority(tensor, groups)
    share = votes.answer_share(tensor, groups, torch.float64)
    entropy = votes.answer_entropy(tensor, groups, torch.float64)
    kinds = votes.answer_count(tensor, groups)
    for place, label in enumerate(dict.fromkeys(labels)):
        rows = [i for i, (p, _) in enumerate(pairs) if p == label]
        said = Counter(ids[i] for i in rows if ids[i] >= 0)
        # Counter lists equals in the order in which they came.
        assert best[place] == (said.most_common(1)[0][0] if said else -1)
        assert kinds[place] == len(said)
        total = sum(said.values())
        assert math.isclose(entropy[place], -sum(n / total * math.log(n / total) for n in said.values()), abs_tol=1e-12)
        for i in rows:
            assert count[i] == said[ids[i]]
            assert math.isclose(share[i], said[ids[i]] / len(rows))


@given(IDS)
def test_apart_gives_everyone_without_an_answer_one_of_its_own(pairs: list[tuple[int, int]]) -> None:
    ids = torch.tensor([a for _, a in pairs])
    own = votes.unanswered_apart(ids)
    silent = own[ids < 0]
    assert torch.equal(own[ids >= 0], ids[ids >= 0])
    assert silent.unique().numel() == silent.numel()
    assert not torch.isin(silent, ids).any()


def test_ties_go_to_the_answer_that_came_first() -> None:
    groups = groups_of([0, 1, 0, 0, 1, 0])
    assert votes.majority(torch.tensor([3, 0, 1, 1, 2, 3]), groups).tolist() == [3, 0]
    assert votes.majority(torch.full((6,), -1), groups).tolist() == [-1, -1]


@settings(max_examples=60, deadline=None)
@given(IDS)
def test_the_majority_of_the_others_leaves_the_rollout_out(pairs: list[tuple[int, int]]) -> None:
    labels, ids = [p for p, _ in pairs], [a for _, a in pairs]
    found = votes.others_majority(torch.tensor(ids), groups_of(labels))
    for i, label in enumerate(labels):
        said = Counter(ids[k] for k, p in enumerate(labels) if p == label and k != i and ids[k] >= 0)
        assert found[i] == (said.most_common(1)[0][0] if said else -1)


@settings(max_examples=20, deadline=None)
@given(IDS, st.integers(0, 99))
def test_majority_rewards_and_what_is_known_of_them(pairs: list[tuple[int, int]], seed: int) -> None:
    """By exact equality, the mean reward of a group is its majority ratio."""
    labels, ids = torch.tensor([p for p, _ in pairs]), torch.tensor([a for _, a in pairs])
    truth = torch.randint(0, 5, (4,), generator=torch.Generator().manual_seed(seed))
    right = (ids == truth[labels]).double()
    batch = Batch.of(torch.ones(len(pairs), 1), group=labels, rewards=torch.rand(len(pairs)).double(), accuracy=right)
    batch = batch.with_rollouts(answer_id=ids)
    rewards, metrics = votes.majority_reward(batch)
    quality = votes.vote_quality(batch, rewards)
    assert torch.allclose(group_mean(rewards, batch.groups), quality["majority_ratio"])
    assert torch.allclose(group_mean(right, batch.groups), quality["true_ratio"])
    best = votes.majority(ids, batch.groups)
    assert torch.equal(quality["label_accuracy"] > 0, best == truth[batch.groups.labels])
    # A right label rewards exactly the right rollouts.
    assert bool((quality["reward_accuracy"][quality["label_accuracy"] > 0] == 1).all())
    assert metrics["vote/majority_ratio"] == float(quality["majority_ratio"].mean())


def test_a_judge_says_which_answers_mean_the_same() -> None:
    texts = [
        "\\boxed{Paris}",
        "\\boxed{paris}",
        "no idea 3",
        "\\boxed{Lyon}",
        "\\boxed{Paris }",
        "\\boxed{x}",
        "\\boxed{y}",
    ]
    labels = [0, 0, 0, 0, 0, 1, 1]
    access = access_of(texts, groups=labels)
    batch = Batch(mask=torch.ones(7, 1), rollouts={"group": torch.tensor(labels)})
    asked = []

    def equal(prompts: list[str], first: list[str], second: list[str]) -> list[bool | None]:
        asked.extend(zip(prompts, first, second, strict=True))
        return [None if "1" in p else a.lower() == b.lower() for p, a, b in zip(prompts, first, second, strict=True)]

    ids = votes.judged_ids(batch, access, equal=equal)["answer_id"].tolist()
    assert ids == [0, 0, -1, 3, 0, -2, -2]
    # Equal texts are not asked for, and the earlier one comes first.
    assert asked == [
        ("question 0", "Paris", "paris"),
        ("question 0", "Paris", "Lyon"),
        ("question 0", "paris", "Lyon"),
        ("question 1", "x", "y"),
    ]
    by_key = votes.judged_ids(batch, access)["answer_id"].tolist()
    assert by_key == [0, 1, 2, 3, 0, 4, 5]
