import torch

from cohort import registry
from cohort.signals.votes import majority, number_keys, vote_quality
from cohort.types import Batch
from tests.golden.runner import make_batch

# Which answer comes first breaks ties, and which rollouts come first are trained on.
ORDERED = True
# Two of a group's rollouts are trained on, and often agree.
QUIET = True
# Equal strings are equal answers here.
IGNORE = ("equality",)


def voted(answers, truth=None):
    """A batch of votes, without tokens: a list of answers a group."""
    labels = torch.arange(len(answers)).repeat_interleave(torch.tensor([len(group) for group in answers]))
    ids = number_keys([answer for group in answers for answer in group])
    right = [float(a == t) for group, t in zip(answers, truth, strict=True) for a in group] if truth else None
    accuracy = torch.tensor(right if truth else [0.0] * labels.numel(), dtype=torch.float64)
    batch = Batch.of(torch.ones(labels.numel(), 1), group=labels, rewards=accuracy, accuracy=accuracy)
    return batch.with_rollouts(answer_id=ids, row=labels)


def labels(batch, answers):
    """The majority answers as they were given."""
    names = list(dict.fromkeys(a for group in answers for a in group if a is not None))
    return [names[i] if i >= 0 else None for i in majority(batch["answer_id"], batch.groups).tolist()]


def by_group(values, answers):
    """Values of the votes, a list a group."""
    return [part.tolist() for part in values.split([len(group) for group in answers])]


def KIND_reward(case):
    answers = case["inputs"]["answers"]
    batch = registry.method("ttrl").bind().shape(voted(answers))
    ratio = vote_quality(batch, batch.rewards)["majority_ratio"]
    return {"labels": labels(batch, answers), "majority_ratio": ratio, "rewards": by_group(batch.rewards, answers)}


def KIND_metric(case):
    batch = registry.method("ttrl").bind().shape(voted(case["inputs"]["answers"], case["inputs"]["truth"]))
    return vote_quality(batch, batch.rewards)


def batch(case):
    """All votes; only the kept ones have tokens. Training has the tokens of all, and the filter leaves the first."""
    inputs = case["inputs"]
    answers, kept = inputs["answers"], case["config"]["n_samples"]
    given, leaves = make_batch({k: v for k, v in inputs.items() if k != "answers"})
    votes = voted(answers)
    # Row of the votes that each given row is.
    seen, place = {}, []
    for group in given.groups.index.tolist():
        seen[group] = seen.get(group, -1) + 1
        assert seen[group] < kept
        place.append(sum(map(len, answers[:group])) + seen[group])
    at = torch.full((votes.size,), given.size)
    at[torch.tensor(place)] = torch.arange(given.size)

    def spread(x):
        return torch.cat([x, torch.zeros_like(x[:1])])[at]

    tokens = {name: spread(given._tokens[name]) for name in given.token_names}
    rollouts = {name: votes[name] for name in votes.names}
    # Row of the given ones that each of the votes is; one past the last for a vote without tokens.
    return Batch(mask=spread(given.mask), tokens=tokens, rollouts={**rollouts, "given": at}), leaves


def _given(run, values):
    """Values of the trained rows in the order of the given ones."""
    at = run.batch["given"]
    out = values.new_zeros(int(at.max()), *values.shape[1:])
    out[at[run.kept]] = values
    return out


OUTPUTS = {
    "labels": lambda run: labels(run.batch, run.inputs["answers"]),
    "majority_ratio": lambda run: vote_quality(run.shaped, run.shaped.rewards)["majority_ratio"],
    "kept_indices": lambda run: run.kept,
    "rewards": lambda run: _given(run, run.shaped.rewards[run.kept]),
    "advantages": lambda run: _given(run, run.assigned["outcome_advantage"]),
}


def random_fields(batch, generator):
    """Few answers, so that rollouts agree; some answer nothing."""
    return batch.with_rollouts(answer_id=torch.randint(-1, 3, (batch.size,), generator=generator))


# Votes teach what is right where that is what most rollouts say: of this policy, clearly so for every prompt.
TRAIN = {"thought": True, "lr": 3e-3}
