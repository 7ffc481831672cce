import torch

from cohort import registry
from cohort.recipes.info_consistency import consistency, grouped_by_request
from cohort.rewards.information import entropy_of_words
from cohort.types import Batch
from tests.golden.runner import make_batch, tensor
from tests.helpers import access_of, info_of, with_rewards

NAMED = ("word-entropy",)
IGNORE = ("unit",)


def _informed(batch, entropies):
    bare = batch.replace(reward_components=torch.zeros(batch.size, 0, dtype=torch.float64))
    return with_rewards(bare, tensor(entropies).double())


def batch(case):
    inputs = dict(case["inputs"])
    entropies = inputs.pop("response_entropy")
    made, leaves = make_batch({**inputs, "rewards": [0.0] * len(entropies)})
    return _informed(made, entropies), leaves


def _part(place):
    return lambda run: consistency(run.batch["reward_components"][:, 0], run.batch)[place]


OUTPUTS = {"helpfulness": _part(0), "stability": _part(1)}


def KIND_reward(case):
    inputs = case["inputs"]
    if "texts" in inputs:
        return {"entropy": entropy_of_words(inputs["texts"])}
    group = torch.tensor(inputs["group"])
    made = _informed(
        Batch.of(torch.ones(len(group), 1), group=group, rewards=torch.zeros(len(group)).double()),
        inputs["response_entropy"],
    )
    helpful, stable = consistency(made["reward_components"][:, 0], made)
    methods = [registry.method("info-consistency", w_help=h, w_stable=s) for h, s in case["config"]["weights"]]
    rewards = [method.bind(info=info_of(made, *NAMED)).shape(made).rewards for method in methods]
    return {"helpfulness": helpful, "stability": stable, "rewards": rewards}


def KIND_curriculum(case):
    """Rollouts of the prompts as a step draws them, grouped by the method's hook."""
    requests = case["inputs"]["request_of_prompt"]
    count, columns = len(requests), [{"request": request} for request in requests]
    access = access_of(["a"] * count, groups=range(count), columns=columns)
    made = Batch.of(torch.ones(count, 1), group=torch.arange(count), rewards=torch.zeros(count))
    made = grouped_by_request(made, access, column="request")
    return {"group": made.group, "history_turns": [len(rollout.request.history) for rollout in access.rollouts]}


def random_fields(batch, generator):
    return with_rewards(batch, 3 * torch.rand(batch.size, generator=generator).double())


# Two requests of four phrasings each; what an answer tells is whether it is right.
TRAIN = {"reward": ["exact"], "group_size": 64}
HYPER_TRAIN = "(column='task', information='exact', w_stable=0.0, kl_beta=0.0)"
