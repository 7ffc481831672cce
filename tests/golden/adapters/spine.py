import torch

from cohort import registry
from cohort.recipes.spine import band
from cohort.signals.votes import number_keys
from cohort.types import Batch
from tests.golden.adapters.ttrl import by_group, voted
from tests.golden.adapters.ttrl import random_fields as random_fields
from tests.golden.runner import make_batch, tensor

# Which answer comes first breaks ties.
ORDERED = True
# GRPO's mean over a rollout's tokens, of which the method leaves the forking ones.
IGNORE = ("aggregation",)


def batch(case):
    """Log-probabilities and entropies from the logits, as the update's forward pass has them."""
    inputs = dict(case["inputs"])
    answers, logits = inputs.pop("answers"), tensor(inputs.pop("logits")).requires_grad_()
    made, _ = make_batch(inputs)
    log_probs = logits.log_softmax(-1)
    logp = log_probs.gather(-1, made._tokens["token_ids"][..., None])[..., 0]
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    made = made.with_tokens(logp=logp, entropy=entropy, old_entropy=entropy.detach())
    made = made.with_rollouts(answer_id=number_keys(answers), accuracy=torch.zeros(len(answers)).double())
    return made, {"logits": logits}


def _band(made, config):
    return band(made, q_low=config["q_low"], q_high=config["q_high"])


OUTPUTS = {
    "entropy": lambda run: run.batch["entropy"],
    "fork_mask": lambda run: run.assigned.loss_mask.double(),
    "band_low": lambda run: _band(run.trained, run.config)[0],
    "band_high": lambda run: _band(run.trained, run.config)[1],
    "loss_core": lambda run: run.loss.policy + run.loss.regularizers.get("kl", 0.0),
    "loss_band": lambda run: run.loss.regularizers.get("entropy_band", 0.0),
    "advantages": lambda run: run.assigned["outcome_advantage"],
}


def KIND_credit(case):
    mask, entropy = (tensor(case["inputs"][name]) for name in ("mask", "entropy"))
    method = registry.method("spine", **case["config"])
    alone = torch.arange(len(mask))
    made = Batch.of(
        mask,
        group=alone,
        rewards=torch.zeros(len(mask)).double(),
        accuracy=torch.zeros(len(mask)).double(),
        old_entropy=entropy,
        entropy=entropy,
    )
    made = method.bind().prepare(made.with_rollouts(answer_id=alone, row=alone)).batch
    low, high = _band(made, case["config"])
    return {"fork_mask": made.loss_mask.double(), "band_low": low, "band_high": high}


def KIND_reward(case):
    answers = case["inputs"]["answers"]
    made = voted(answers)
    methods = {"rewards": registry.method("spine", **case["config"]), "rewards_plain": registry.method("spine")}
    return {name: by_group(method.bind().shape(made).rewards, answers) for name, method in methods.items()}


# Votes teach what is right where that is what most rollouts say: of this policy, clearly so for every prompt.
TRAIN = {"thought": True, "lr": 3e-3}

# A sort over tokens is in the maths (see benchmarks/methods.py).
SORTS = "the most uncertain tokens of each rollout"
