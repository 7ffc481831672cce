import torch

from cohort import registry
from cohort.axes.advantage import zscore
from tests.golden.runner import make_batch


def _shaped(run):
    """[N]; the advantage of a rollout without tokens stands in no token."""
    batch = run.assigned
    inside = torch.where(batch.mask, batch.advantages, -torch.inf).amax(1)
    return torch.where(batch.mask.any(1), inside, batch["outcome_advantage"])


OUTPUTS = {
    "base_advantages": lambda run: zscore(run.batch, eps=run.config["eps_std"], ddof=run.config["std_ddof"]),
    "advantages": _shaped,
}


def KIND_advantage(case):
    batch, _ = make_batch(case["inputs"])
    method = registry.method("aspo", **case["config"])
    base = batch["base_advantages"][:, None]
    (stage,) = method.credit
    return {"advantages": stage(batch, base)[:, 0]}


def random_fields(batch, generator):
    return batch.with_rollouts(first_code_position=torch.randint(-1, 5, (batch.size,), generator=generator))
