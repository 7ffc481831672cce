import torch

from cohort.axes.advantage import rollout_means
from cohort.recipes.f_hal import parts
from tests.golden.preferences import stacked
from tests.golden.runner import tensor


def batch(case):
    """The rollouts, then chosen and rejected completions, each of a prompt of its own, as training puts them."""
    inputs = case["inputs"]
    made, leaves = stacked(inputs, ("", "chosen_", "rejected_"))
    drawn, chosen = len(inputs["mask"]), len(inputs["chosen_mask"])
    group, rewards = torch.arange(made.size) + 10**6, torch.zeros(made.size, dtype=torch.float64)
    group[:drawn], rewards[:drawn] = torch.tensor(inputs["group"]), tensor(inputs["rewards"]).double()
    preference = torch.zeros_like(rewards)
    preference[drawn : drawn + chosen], preference[drawn + chosen :] = 1.0, -1.0
    made = made.replace(group=group, rewards=rewards, accuracy=rewards).with_rollouts(preference=preference)
    return made.with_rollouts(row=made.groups.index), leaves


def _part(place):
    return lambda run: parts(run.trained, divergence=run.config["divergence"], beta=run.config["beta"])[place]


OUTPUTS = {
    "advantages": lambda run: rollout_means(run.trained)[: len(run.inputs["mask"])],
    "on_policy_loss": _part(0),
    "preference_loss": _part(1),
}


def random_fields(batch, generator):
    preference = torch.randint(-1, 2, (batch.size,), generator=generator)
    return batch.with_rollouts(preference=preference.to(torch.float64))


# Preferences of two of the eight letters alone, so that success has to come from the rewards.
TRAIN = {
    "lr": 4e-3,
    "pairs": [
        {"prompt": letter, "chosen": right, "rejected": wrong}
        for letter, right, wrong in (("a", "0", "1"), ("b", "3", "2"))
    ],
}
# With a larger beta the divergence bounds how far two letters' preferences carry the others along.
HYPER_TRAIN = "(beta=1.0)"
