import torch

from cohort import registry
from cohort.recipes.expo_explain import beta_at, explained_pairs
from cohort.types import Batch
from cohort.types.replay import concat
from tests.golden.guided import FakeSampler, requests_of
from tests.golden.runner import make_batch, tensor

RENAME = {"beta_sft": "beta", "sft_norm": "norm"}
IGNORE = ("sft_scope",)


def batch(case):
    inputs = dict(case["inputs"])
    explain_logp = inputs.pop("explain_logp")
    inputs.pop("explain_mask")
    made, leaves = make_batch(inputs)
    leaves["explain_logp"] = tensor(explain_logp).requires_grad_()
    made = made.with_rollouts(explained=made.rewards * torch.nan, auxiliary=torch.zeros_like(made.rewards))
    return made, leaves


def _whole(run):
    """The rollouts with their advantages, and the explanations behind them, as the loop has it: of the prompts for which the
    guidance drew one, and in no group."""
    used = [k for k, there in enumerate(_used(run.case)) if there]
    mask, logp = tensor(run.inputs["explain_mask"])[used].bool(), run.leaves["explain_logp"][used]
    tokens = {"logp": logp, "old_logp": logp.detach(), "advantages": torch.zeros_like(logp.detach())}
    ones = torch.ones(len(used), dtype=torch.float64)
    rollouts = dict.fromkeys(("rewards", "accuracy", "explained", "auxiliary"), ones)
    return concat(
        [run.trained, Batch(mask=mask, tokens=tokens, rollouts={"group": torch.arange(len(used)), **rollouts})]
    )


def _gradient(name):
    return lambda run: torch.autograd.grad(run.bound.loss(_whole(run)).total, run.leaves[name])[0]


def _used(case):
    """Which prompts an explanation was drawn for, by the method's guidance."""
    inputs = case["inputs"]
    size = inputs["group"].count(0)
    rewards = [inputs["rewards"][i : i + size] for i in range(0, len(inputs["rewards"]), size)]
    sampler = FakeSampler(lambda r: rewards[int(r.prompt.id)][r.meta["place"]])
    method = registry.method("expo-explain", scope=case["config"]["sft_scope"])
    asked = requests_of(len(rewards), size, answer=["7"] * len(rewards))
    found = {int(r.prompt.id) for r in method.bind().guidance(asked, sampler) if r.auxiliary}
    return [int(k in found) for k in range(len(rewards))]


OUTPUTS = {
    "use_explanation": lambda run: _used(run.case),
    "grpo_loss": lambda run: run.bound.loss(_whole(run)).policy,
    "loss": lambda run: run.bound.loss(_whole(run)).total,
    "grad_logp": _gradient("logp"),
    "grad_explain_logp": _gradient("explain_logp"),
}


def KIND_objective(case):
    config, inputs = case["config"], case["inputs"]
    if "step" in inputs:
        how = {"start": config["start"], "end": config["end"], "steps": config["steps"]}
        return {
            name: [beta_at(step, schedule=name, **how) for step in inputs["step"]]
            for name in ("constant", "linear", "cosine")
        }
    # A sequence of one token a pair; a pair is a group.
    leaf = {side: tensor(inputs[side]).requires_grad_() for side in ("chosen", "rejected")}
    count = len(inputs["chosen"])
    better = torch.cat([torch.ones(count), torch.zeros(count)]).double()
    made = Batch.of(
        torch.ones(2 * count, 1),
        group=torch.arange(count).repeat(2),
        rewards=better,
        logp=torch.cat([leaf["chosen"], leaf["rejected"]])[:, None],
        ref_logp=torch.cat([tensor(inputs["ref_chosen"]), tensor(inputs["ref_rejected"])])[:, None],
    ).with_rollouts(explained=2 * better - 1)
    loss = explained_pairs(made, beta=config["dpo_beta"])
    loss.backward()
    return {"loss": loss, "grad_chosen": leaf["chosen"].grad, "grad_rejected": leaf["rejected"].grad}


def random_fields(batch, generator):
    """No row of a random batch is an explanation."""
    return batch.with_rollouts(explained=torch.full_like(batch.rewards, torch.nan))


# The micro task's policy explains nothing that it is shown, so that what it says is learned only where all else fails.
HYPER_TRAIN = "(answer_text='{answer}', scope='all_wrong')"
