import sys

import torch

from cohort import registry
from cohort.recipes.pipo import improvement_scale, rectified, verdict
from cohort.types import Batch, Prompt, Request
from tests.golden.runner import Run, hyperparameters, tensor
from tests.helpers import rollout_of

STATE = "credit/retrospect"
FIELDS = {"window_means": None, "current_mean": None}
# Shorter than the run.
HYPER_TRAIN = "(window=3)"


def _batch(mean):
    """All rollouts of a step with this mean reward."""
    rewards = torch.full((1,), mean, dtype=torch.float64)
    return Batch.of(torch.ones(1, 1), group=torch.zeros(1, dtype=torch.int64), rewards=rewards)


def _judged(method, states, mean):
    """(states after a step of this mean, whether it was judged, what of)."""
    means, window = states[STATE]["means"], method.credit[0].hyper["window"]
    after = method.bind(states).on_rollouts(_batch(mean), [])
    if len(means) < window:
        return after, {}
    mu, sigma, xi = verdict(means, mean, eps=method.credit[0].hyper["eps"])
    return after, {"mu_his": mu, "sigma_his": sigma, "xi": xi, "phi": after[STATE]["phi"]}


def KIND_loss(case):
    """The step before is remembered by the method's own hook, judged by the next step's mean, and recalled."""
    run = Run("pipo", case, sys.modules[__name__])
    leaf, prompt = run.leaves["logp"], Prompt("", "", (1,), "")
    states = {STATE: {**run.method.init(size=1)[STATE], "means": list(run.inputs["window_means"])}}
    rollouts = [rollout_of(Request(prompt, (1,), 0, 1), [1]) for _ in range(run.batch.size)]
    advantages = run.advantages
    states = run.method.bind(states).on_step_end(run.assigned, rollouts, None)
    states, outputs = _judged(run.method, states, run.inputs["current_mean"])
    rewards = improvement_scale(run.assigned, outputs["phi"]) * run.assigned["outcome_advantage"]
    recalls = run.method.bind(states).replay()
    if not recalls:
        zero = torch.zeros_like(leaf)
        return {**outputs, "advantages": advantages, "pi_rewards": rewards, "loss": 0.0, "grad_logp": zero}
    again = recalls[0].batch.replace(logp=leaf)
    loss = run.method.bind(states).loss(again).total
    return {
        **outputs,
        "advantages": advantages,
        "pi_rewards": rewards,
        "loss": loss,
        "grad_logp": torch.autograd.grad(loss, leaf)[0],
    }


def KIND_state(case):
    own, _ = hyperparameters("pipo", case["config"], None)
    method = registry.method("pipo", **own)
    states, steps = method.init(size=1), []
    for t, mean in enumerate(case["inputs"]["batch_means"], 1):
        states, judged = _judged(method, states, mean)
        steps.append({"t": t, "retrospective": bool(judged), "memory": states[STATE]["means"], **judged})
    return {"steps": steps}


def KIND_reward(case):
    xi = tensor(case["inputs"]["xi"]).tolist()
    variants = case["config"]["variants"]
    return {"phi": [[rectified(x, phi_low=low, phi_high=high) for x in xi] for low, high in variants]}
