"""Final answers as numbers: which rollouts of a group say the same.

The field `answer_id` [N] int64 holds equal numbers for equal final answers, in order of first appearance in the batch,
and -1 where a rollout answers nothing. An axis function that reads it says so with

    @needs("answer_id")
    @hooks(on_scored=answer_ids)
    @declare(provides=("answer_id",))
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from cohort.reductions.groups import group_max, group_mean, group_size, group_sum, group_table
from cohort.signals.answers import answer_key, marked
from cohort.types import Batch, Groups
from cohort.types.access import Judge, ModelAccess
from cohort.types.declare import declare, hooks, needs

NO_ANSWER = -1
# Equal answers could not be found.
FAILED = -2


def number_keys(keys: Iterable[str | None]) -> Tensor:
    """[N] int64: equal keys have equal numbers, from 0 in order of first appearance; -1 for None."""
    seen: dict[str, int] = {}
    ids = [NO_ANSWER if key is None else seen.setdefault(key, len(seen)) for key in keys]
    return torch.tensor(ids, dtype=torch.int64)


def answer_ids(batch: Batch, access: ModelAccess) -> Batch:
    """The final answers of the rollouts' texts, as numbers; no model call.

    An on_scored hook: the batch with `answer_id`.
    """
    if "answer_id" in batch:
        return batch
    ids = number_keys(answer_key(rollout.text) for rollout in access.rollouts)
    return batch.with_rollouts(answer_id=ids.to(batch.device))


def judged_ids(batch: Batch, access: ModelAccess, *, equal: Judge | None = None) -> Batch:
    """The final answers of the rollouts' texts, as numbers; with a judge, at most one comparison a pair of a group.

    An on_scored hook: the batch with `answer_id` by the judge `equal`, or by `answer_ids` where there is none.
    An answer joins the first cluster of its group whose first member the judge calls equal to it. Groups never share
    a cluster. Where the judge gives None for a pair, the whole group is FAILED.
    """
    if equal is None:
        return answer_ids(batch, access)
    said = [" ".join((marked(rollout.text) or "").split()) for rollout in access.rollouts]
    first: list[dict[str, int]] = [{} for _ in range(batch.groups.count)]
    for row, (group, text) in enumerate(zip(batch.groups.index.tolist(), said, strict=True)):
        if text:
            first[group].setdefault(text, row)
    pairs = [(a, b) for texts in first for i, b in enumerate(texts.values()) for a in list(texts.values())[:i]]
    prompts = [access.rollouts[a].prompt for a, _ in pairs]
    verdicts = access.judge(equal, prompts, first=[said[a] for a, _ in pairs], second=[said[b] for _, b in pairs])
    same = dict(zip(pairs, verdicts, strict=True))
    cluster: dict[int, int] = {}
    for texts in first:
        rows = list(texts.values())
        failed = any(same[a, b] is None for i, b in enumerate(rows) for a in rows[:i])
        heads: list[int] = []
        for row in rows:
            head = next((a for a in heads if same[a, row]), row)
            heads += [row] if head == row else []
            cluster[row] = FAILED if failed else head
    ids = [
        NO_ANSWER if not text else cluster[first[group][text]]
        for group, text in zip(batch.groups.index.tolist(), said, strict=True)
    ]
    return batch.with_rollouts(answer_id=torch.tensor(ids, dtype=torch.int64, device=batch.device))


def unanswered_apart(ids: Tensor) -> Tensor:
    """[N]: the ids with a number of its own for every rollout without an answer."""
    free = ids.max().clamp(min=-1) + 1 if ids.numel() else 0
    return torch.where(ids >= 0, ids, free + torch.arange(ids.numel(), device=ids.device))


def vote_counts(ids: Tensor, groups: Groups) -> Tensor:
    """[N] int64: how many rollouts of its group give a rollout's answer, itself included; 0 for one without answer."""
    answered = ids >= 0
    width = ids.max().clamp(min=0) + 1 if ids.numel() else 1
    _, pair = torch.unique(groups.index * width + ids.clamp(min=0), return_inverse=True)
    count = torch.zeros_like(ids).index_add(0, pair, answered.to(ids.dtype))
    return torch.where(answered, count[pair], torch.zeros_like(ids))


def majority(ids: Tensor, groups: Groups) -> Tensor:
    """[P] int64: the most frequent answer of each group, among equals the one that comes first; -1 if none answers."""
    count = vote_counts(ids, groups)
    leading = (ids >= 0) & (count == group_max(count, groups)[groups.index])
    place = torch.arange(ids.numel(), device=ids.device)
    none = torch.full((groups.count,), ids.numel(), device=ids.device)
    first = none.scatter_reduce(0, groups.index[leading], place[leading], "amin")
    held = torch.cat([ids, ids.new_full((1,), NO_ANSWER)])
    return held[first]


def others_majority(ids: Tensor, groups: Groups) -> Tensor:
    """[N] int64: for each rollout, the most frequent answer of the others of its group; -1 if none of them answers."""
    rows, there = group_table(groups)
    said = torch.where(there, ids[rows], NO_ANSWER)
    count = torch.where(there, vote_counts(ids, groups)[rows], 0)
    others = ~torch.eye(rows.shape[1], dtype=torch.bool, device=ids.device)
    voting = others & (said >= 0)[:, None, :]
    # How often the answer of k is given by others than i; argmax takes the first of equals.
    votes = count[:, None, :] - (said[:, None, :] == said[:, :, None]).to(ids.dtype)
    votes = torch.where(voting, votes, torch.full_like(votes, -1))
    label = torch.where(voting.any(2), said.gather(1, votes.argmax(2)), NO_ANSWER)
    out = torch.empty_like(ids)
    out[rows[there]] = label[there]
    return out


def answer_share(ids: Tensor, groups: Groups, dtype: torch.dtype = torch.float32) -> Tensor:
    """[N] share of the group's rollouts that give a rollout's answer; 0 for one without answer."""
    return vote_counts(ids, groups).to(dtype) / group_size(groups, dtype)[groups.index]


def answer_entropy(ids: Tensor, groups: Groups, dtype: torch.dtype = torch.float32) -> Tensor:
    """[P] -sum_c p(c) log p(c) in nats over the answers of each group, p their share of those who answer.

    Rollouts without an answer are left out; pass `apart(ids)` to count each as an answer of its own.
    """
    answered = (ids >= 0).to(dtype)
    total = group_sum(answered, groups).clamp(min=1)
    share = vote_counts(ids, groups).clamp(min=1).to(dtype) / total[groups.index]
    # The mean over rollouts of -log p of their own answer is the sum over answers of -p log p.
    return group_sum(-answered * share.log(), groups) / total


def answer_count(ids: Tensor, groups: Groups) -> Tensor:
    """[P] int64: how many different answers each group gives."""
    count = vote_counts(ids, groups)
    share = torch.where(
        count > 0, 1 / count.clamp(min=1).double(), torch.zeros((), dtype=torch.float64, device=ids.device)
    )
    return group_sum(share, groups).round().to(torch.int64)


def vote_quality(batch: Batch, rewards: Tensor) -> dict[str, Tensor]:
    """What is known of a vote for each group [P]: `majority_ratio`, the share of rollouts that give the label; and by
    the run's verifier `label_accuracy` (1 if the label is right), `reward_accuracy` (share of rollouts that are rewarded
    as they would be for the true answer), `true_ratio` (share of right rollouts)."""
    groups, right = batch.groups, batch["accuracy"].to(rewards.dtype)
    count = group_max(vote_counts(batch["answer_id"], groups), groups)
    return {
        "majority_ratio": count.to(rewards.dtype) / group_size(groups, rewards.dtype),
        "label_accuracy": group_max(rewards * right, groups),
        "reward_accuracy": group_mean((rewards == right).to(rewards.dtype), groups),
        "true_ratio": group_mean(right, groups),
    }


@needs("answer_id")
@hooks(on_scored=answer_ids)
@declare(group_size=2, provides=("answer_id",))
def majority_reward(batch: Batch, *, leave_one_out: bool = False) -> tuple[Tensor, dict[str, float]]:
    """r_i = 1 if rollout i gives the majority answer of its group, else 0; in place of the run's rewards.

    Among equally frequent answers the first one is the label. The means over groups of `vote_quality` are reported.

    Args:
        leave_one_out: the label of a rollout is the majority of the others.

    Returns:
        [N] and metrics `vote/...`; a rollout without an answer gets 0.

    Source: arXiv:2504.16084.
    """
    ids, groups = batch["answer_id"], batch.groups
    label = others_majority(ids, groups) if leave_one_out else majority(ids, groups)[groups.index]
    rewards = ((ids >= 0) & (ids == label)).to(batch.dtype)
    return rewards, {f"vote/{k}": float(v.mean()) for k, v in vote_quality(batch, rewards).items()}
