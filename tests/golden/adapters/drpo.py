import torch

from cohort.axes.objective import binary, contrast, kl_hinge
from cohort.recipes.drpo import length_reward, preference_weights
from cohort.reductions.groups import token_mean


def _length_reward(run):
    return length_reward(run.batch, max_len=run.config["max_len"])


def _scores(run):
    return token_mean(run.batch.logp, run.batch.mask)


def _weights(run):
    """Those of groups with both outcomes, which alone enter the loss."""
    correct = binary(run.batch.rewards, None, "drpo")
    scale = run.config["length_weight_lambda"]
    weights = preference_weights(run.batch, correct, _length_reward(run), scale=scale)
    _, mixed = contrast(_scores(run), correct, run.batch, tau=run.config["tau"], weights=weights)
    return torch.where(mixed[run.batch.groups.index], weights, 0.0)


def _hinge(run):
    return kl_hinge(run.batch, delta=run.config["kl_delta"], beta=run.config["kl_beta"])


OUTPUTS = {
    "length_reward": _length_reward,
    "weights": _weights,
    "scores": _scores,
    "kl": lambda run: _hinge(run)[0],
    "penalty": lambda run: _hinge(run)[1],
}
