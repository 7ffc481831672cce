from types import SimpleNamespace

import torch

from cohort import registry
from cohort.policies.roles import Roles
from cohort.recipes.grpo_care import answer_likelihood, clamped, consistency_bonus
from cohort.training.build import make_roles
from cohort.types import Batch
from tests.golden.runner import make_batch, tensor
from tests.micro import THOUGHT

RENAME = {"decay": "teacher_decay", "update_every": "teacher_every"}


def batch(case):
    """The run's rewards are accuracy and format."""
    inputs = dict(case["inputs"])
    form = tensor(inputs.pop("format"))
    made, leaves = make_batch(inputs)
    return made.replace(rewards=made["accuracy"] + form), leaves


def _confidence(run):
    likelihood = answer_likelihood(run.batch["ema_ref_logp"], run.batch["answer_mask"].bool())
    return clamped(likelihood, confidence_upper=run.config["confidence_upper"])


OUTPUTS = {"confidence": _confidence, "bonus": lambda run: run.shaped.rewards - run.batch.rewards}


def KIND_reward(case):
    inputs, config = case["inputs"], case["config"]
    likelihood, accuracy = tensor(inputs["answer_likelihood"]), tensor(inputs["accuracy"]).double()
    group = torch.tensor(inputs["group"])
    groups = Batch.of(torch.ones(len(group), 1), group=group).groups
    confidence = clamped(likelihood, confidence_upper=config["confidence_upper"])
    how = {name: config[name] for name in ("bonus_coefficient", "margin")}
    return {"confidence": confidence, "bonus": consistency_bonus(confidence, accuracy, groups, **how)}


def KIND_state(case):
    """A policy of a few numbers, and what the loop does after every update."""
    hyper = {RENAME[name]: value for name, value in case["config"].items()}
    model = torch.nn.ParameterList([torch.nn.Parameter(tensor(case["inputs"]["initial"]))])
    roles = Roles(model)
    make_roles(SimpleNamespace(roles=roles), registry.method("grpo-care", **hyper), seed=0)
    out = []
    for step, weights in enumerate(case["inputs"]["policy_after_step"], 1):
        with torch.no_grad():
            model[0].copy_(tensor(weights))
        roles.move(step)
        out.append(roles.models["ema"][0].tolist())
    return {"reference_after_step": out}


def random_fields(batch, generator):
    """Some rollouts have no answer."""
    answer = torch.rand(batch.mask.shape, generator=generator) < 0.3
    logp = -torch.rand(batch.mask.shape, generator=generator, dtype=torch.float64)
    return batch.with_tokens(answer_mask=answer, ema_ref_logp=logp)


# What follows the last sign of the thought is the answer.
TRAIN = {"thought": True}
HYPER_TRAIN = f"(open_tag='{THOUGHT}',teacher_every=1)"
