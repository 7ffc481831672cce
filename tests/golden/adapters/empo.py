import sys

import torch

from cohort import registry
from cohort.signals.votes import answer_entropy, answer_share, number_keys, unanswered_apart
from tests.golden.adapters.ttrl import by_group, voted
from tests.golden.adapters.ttrl import random_fields as random_fields
from tests.golden.runner import hyperparameters, make_batch

# Equal strings, stripped, are equal answers here.
IGNORE = ("equality",)
FIELDS = {"answers": None}


def _stripped(answers):
    return [(answer or "").strip() or None for answer in answers]


def _groups(case):
    return voted([_stripped(group) for group in case["inputs"]["answers"]])


def _clusters(batch, answers):
    """Clusters of each group by number, in order of appearance, and their shares."""
    ids, share = (
        unanswered_apart(batch["answer_id"]),
        answer_share(unanswered_apart(batch["answer_id"]), batch.groups, torch.float64),
    )
    numbers, shares = [], []
    for rows in torch.arange(batch.size).split([len(group) for group in answers]):
        numbers.append(number_keys([str(i) for i in ids[rows].tolist()]).tolist())
        shares.append(list(dict(zip(numbers[-1], share[rows].tolist(), strict=True)).values()))
    return numbers, shares


def KIND_reward(case):
    made, answers = _groups(case), case["inputs"]["answers"]
    free = "copies_question" in case["inputs"]
    hyper, _ = hyperparameters("empo", case["config"], sys.modules[__name__])
    method = registry.method("empo", variant="free_form" if free else "math", **hyper)
    if free:
        copies = [float(copied) for group in case["inputs"]["copies_question"] for copied in group]
        made = made.with_rollouts(copies_question=torch.tensor(copies, dtype=torch.float64))
    numbers, shares = _clusters(made, answers)
    return {
        "rewards": by_group(method.bind().shape(made).rewards, answers),
        "cluster_ids": numbers,
        "cluster_probs": shares,
        "entropy": answer_entropy(unanswered_apart(made["answer_id"]), made.groups, torch.float64),
    }


KIND_filter = KIND_reward


def batch(case):
    made, leaves = make_batch(case["inputs"], sys.modules[__name__])
    return made.with_rollouts(answer_id=number_keys(_stripped(case["inputs"]["answers"]))), leaves


# Votes teach what is right where that is what most rollouts say: of this policy, clearly so for every prompt.
TRAIN = {"thought": True, "lr": 3e-3}
