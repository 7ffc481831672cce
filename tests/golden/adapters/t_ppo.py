import torch

from cohort import registry
from cohort.types import Batch
from tests.golden.adapters import ppo
from tests.golden.runner import make_batch, tensor
from tests.rollouts.rolling import rolling_steps


def batch(case):
    """The one value of the case stands for the value before and under the loss."""
    made, leaves = make_batch({k: v for k, v in case["inputs"].items() if k != "value"})
    value = tensor(case["inputs"]["value"])
    leaves["values"] = value.clone().requires_grad_()
    return made.with_tokens(old_values=value, values=leaves["values"]), leaves


OUTPUTS = {
    "policy_mask": lambda run: (run.assigned.mask & run.assigned.loss_mask).double(),
    "value_mask": lambda run: run.assigned["value_mask"].double(),
    "value_target": lambda run: run.assigned["value_target"],
    "loss": lambda run: run.loss.policy,
    "value_loss": lambda run: run.loss.regularizers["finished_value_loss"],
}


def KIND_advantage(case):
    """Rollouts of unequal length, padded to the longest, all of them in their first window."""
    inputs, config = case["inputs"], case["config"]
    lengths = [len(row) for row in inputs["value"]]
    mask = torch.arange(max(1, *lengths)) < torch.tensor(lengths)[:, None]
    values = torch.full(mask.shape, 1e6, dtype=torch.float64)
    for row, given in zip(values, inputs["value"], strict=True):
        row[: len(given)] = tensor(given)
    finished = torch.tensor(inputs["finished"])
    made = Batch.of(mask, group=torch.arange(len(lengths)), rewards=_outcomes(inputs["reward"]))
    made = made.with_tokens(old_values=values).with_rollouts(finished=finished, window_start=torch.zeros(len(lengths)))
    method = registry.method("t-ppo", gamma=config["gamma"], gae_lambda=config["gae_lambda"])
    advantages = method.bind().assign(made).advantages
    return {"advantages": [row[:length] for row, length in zip(advantages, lengths, strict=True)]}


def _outcomes(rewards):
    """A rollout's reward, given at its last token."""
    return tensor([float(row[-1]) if row else 0.0 for row in rewards])


def KIND_rollout(case):
    inputs = case["inputs"]
    steps = rolling_steps(inputs["target_length"], steps=inputs["steps"], **case["config"])
    return {"prompt_start_end_finished": [[list(map(int, turn)) for turn in turns] for turns in steps]}


def random_fields(made, generator):
    """The values, and what sampling in windows would say of every rollout."""
    finished = torch.rand(made.size, generator=generator) < 0.6
    start = torch.randint(0, 3, (made.size,), generator=generator)
    return ppo.random_fields(made, generator).with_rollouts(finished=finished, window_start=start)


# Thoughts and answers have two to six tokens.
TRAIN = {**ppo.TRAIN, "thought": True, "group_size": 8}
HYPER_TRAIN = "(window=3)"
