import torch

from cohort import registry
from cohort.axes.critic import gae, token_rewards
from cohort.axes.shaping import running_std
from cohort.types import Batch
from tests.golden.runner import make_batch, tensor

# The KL stands in the reward at every token, and the aggregation is part of the method.
IGNORE = ("kl", "aggregation")
# At the rate of the other methods its advantages, of variance 1 at every token, sometimes overshoot.
TRAIN = {"lr": 4e-3, "steps": 40}


def batch(case):
    """The values are leaves as well; where advantages are given, there are none to learn."""
    made, leaves = make_batch(case["inputs"])
    if "advantages" in made:
        zeros = torch.zeros(made.mask.shape, dtype=torch.float64)
        made = made.with_tokens(values=zeros, old_values=zeros, returns=zeros)
    leaves["values"] = made._tokens["values"].clone().requires_grad_()
    return made.with_tokens(values=leaves["values"]), leaves


def _token_rewards(run):
    return token_rewards(run.batch, beta=run.config["beta"])


def _gae(run):
    config = run.config
    return gae(_token_rewards(run), run.batch["old_values"], run.batch.mask, gamma=config["gamma"], lam=config["lam"])


OUTPUTS = {
    "token_rewards": _token_rewards,
    "raw_advantages": _gae,
    "returns": lambda run: run.assigned["returns"],
    "loss": lambda run: run.loss.policy,
    "value_loss": lambda run: run.loss.regularizers["value_loss"],
}


def KIND_credit(case):
    inputs, config = case["inputs"], case["config"]
    mask = tensor(inputs["mask"]).bool()
    clean = {name: torch.where(mask, tensor(inputs[name]), 0.0) for name in ("token_rewards", "values")}
    advantages = gae(clean["token_rewards"], clean["values"], mask, gamma=config["gamma"], lam=config["lam"])
    return {"advantages": advantages, "returns": torch.where(mask, advantages + clean["values"], 0.0)}


def KIND_reward(case):
    """The rewards of one step after the other through the method's shaping and its state."""
    config = case["config"]
    method = registry.method(
        "ppo",
        reward_norm="centred" if config["center"] else "scaled",
        reward_clip=config["clip"],
        reward_eps=config["eps"],
        std_ddof=config["std_ddof"],
    )
    states, steps = method.init(size=1), []
    for scores in case["inputs"]["scores_per_step"]:
        rewards = tensor(scores)
        given = Batch.of(torch.ones(len(rewards), 1), group=torch.arange(len(rewards)), rewards=rewards)
        states = method.bind(states).on_rollouts(given, [])
        state = states["shaping/running_scale"]
        std = running_std(state, ddof=config["std_ddof"])
        normalised = method.bind(states).shape(given).rewards
        steps.append({"count": state["count"], "mean": state["mean"], "std": std, "normalised": normalised})
    return {"steps": steps}


def random_fields(batch, generator):
    """The values before and under the loss."""
    old = torch.randn(batch.mask.shape, generator=generator, dtype=batch.dtype)
    drift = 0.3 * torch.randn(batch.mask.shape, generator=generator, dtype=batch.dtype)
    return batch.with_tokens(old_values=old, values=old + drift)
