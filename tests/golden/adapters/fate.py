import torch

from cohort import registry
from cohort.axes.repair import accepted
from cohort.reductions.pareto import pareto_ranks, pareto_scores
from cohort.types import Batch, StepInfo
from tests.golden.runner import make_batch, tensor
from tests.helpers import with_rewards

NAMED = ("security", "utility", "refusal")
OUTPUTS = {"score": lambda run: run.shaped.rewards}


def info(case):
    # The last of the phases.
    return StepInfo(step=10)


def batch(case):
    inputs = dict(case["inputs"])
    objectives, valid = tensor(inputs.pop("objectives")).double(), tensor(inputs.pop("valid")).double()
    made, leaves = make_batch(inputs)
    made = with_rewards(made, *objectives.unbind(1)).with_rollouts(valid=valid, accepted=torch.zeros(made.size))
    return made, leaves


def KIND_reward(case):
    ranks, scores = [], []
    for objectives, valid in zip(case["inputs"]["objectives"], case["inputs"]["valid"], strict=True):
        groups = Batch.of(torch.ones(len(valid), 1), group=torch.zeros(len(valid)).long()).groups
        ranks.append(pareto_ranks(tensor(objectives), torch.tensor(valid) > 0, groups))
        scores.append(pareto_scores(ranks[-1], groups))
    return {"rank": ranks, "score": scores}


def KIND_filter(case):
    inputs = case["inputs"]
    given = [tensor(inputs[name]) for name in ("failed", "candidates")]
    return {"keep": accepted(*given, torch.tensor(inputs["valid"]) > 0, tensor(case["config"]["floors"]))}


def KIND_objective(case):
    logp, mask = tensor(case["inputs"]["logp"]).requires_grad_(), tensor(case["inputs"]["mask"])
    made = Batch.of(mask, logp=logp, group=torch.arange(len(mask)))
    loss = registry.method("fate").regularizer[0](made.with_tokens(taught=torch.ones_like(mask)))
    return {"loss": loss, "grad_logp": torch.autograd.grad(loss, logp)[0]}


def random_fields(batch, generator):
    """Three objectives between 0 and 1, and rollouts of which some are not valid."""
    flags = (torch.rand(batch.size, generator=generator) < 0.8).double()
    made = batch.with_rollouts(valid=flags, accepted=torch.zeros(batch.size).double())
    return with_rewards(made, *torch.rand(3, batch.size, generator=generator).double())


TRAIN = {"reward": ["exact"]}
HYPER_TRAIN = "(objectives=('exact',), collect_steps=1, warmup_steps=1, pareto_steps=4)"
