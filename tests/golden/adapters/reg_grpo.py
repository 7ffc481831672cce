import torch

from cohort import registry
from cohort.recipes.reg_grpo import decide, predicted_advantage, reference
from cohort.reductions.groups import token_sum
from cohort.reductions.kl import k3
from cohort.types import Batch


def _kl(run):
    """The term that kl_beta multiplies, as the method aggregates it."""
    batch = run.trained
    return (run.method.bind(run.states).weights(batch) * k3(batch.logp, batch.ref_logp)).sum()


OUTPUTS = {
    "log_ratio": lambda run: token_sum(run.batch.logp - run.batch.old_logp, run.batch.mask),
    "predicted_advantages": lambda run: predicted_advantage(run.batch, pred_eps=run.config["pred_eps"]),
    "regression_loss": lambda run: run.loss.policy,
    "kl": _kl,
}


def KIND_curriculum(case):
    """The buffer through the method's state, a group of one for each mean reward."""
    strength = case["config"]["strength"]
    method = registry.method("reg-grpo", **case["config"])
    states, steps = method.init(size=1), []
    for means in case["inputs"]["group_mean_reward"]:
        before = reference(states["guidance/cued"])
        decisions = [
            dict(zip(("delta", "action", "level"), decide(m, before, strength=strength), strict=True)) for m in means
        ]
        steps.append({"reference": before or 0.0, "decisions": decisions})
        rewards = torch.tensor(means, dtype=torch.float64)
        batch = Batch.of(torch.ones(len(means), 1), group=torch.arange(len(means)), rewards=rewards, accuracy=rewards)
        states = method.bind(states).on_rollouts(batch, [])
    return {"steps": steps}
