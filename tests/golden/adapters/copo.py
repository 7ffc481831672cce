import torch

from cohort import registry
from cohort.recipes.copo import disagreement, local_weight
from cohort.reductions.groups import group_mean
from tests.golden.runner import hyperparameters

FIELDS = {"answers": ("answer_id", "rollout")}


def _by_label(run, values):
    return values[run.batch.groups.labels.argsort()]


def _weight(run):
    return local_weight(disagreement(run.batch), gamma=run.config["gamma"], rho=run.config["rho"])


def _mixed(run):
    own, _ = hyperparameters("copo", run.config, None)
    mixed = registry.method("copo", **own, blend="advantages").bind().assign(run.batch)
    return mixed.advantages[:, 0]


OUTPUTS = {
    "prompt_returns": lambda run: _by_label(run, group_mean(run.batch.rewards, run.batch.groups)),
    "answer_entropy": lambda run: _by_label(run, disagreement(run.batch)),
    "w_local": lambda run: _by_label(run, _weight(run)),
    "advantages_local": lambda run: run.assigned["outcome_advantage"],
    "advantages_global": lambda run: run.assigned["global_advantage"],
    "advantages_mixed": _mixed,
}


def KIND_credit(case):
    entropy = torch.tensor(case["inputs"]["entropy"], dtype=torch.float64)
    return {"w_local": local_weight(entropy, **case["config"])}


def random_fields(batch, generator):
    return batch.with_rollouts(answer_id=torch.randint(-1, 3, (batch.size,), generator=generator))


# With eight answers to choose from, 1.5 nats are almost the most that a group can disagree.
HYPER_TRAIN = "(rho=0.5)"
