import torch

from cohort import registry
from cohort.reductions.groups import token_sum
from tests.golden.runner import make_batch

OUTPUTS = {"seq_logp": lambda run: token_sum(run.batch.old_logp, run.batch.mask)}


def KIND_reward(case):
    inputs = case["inputs"]
    batch, _ = make_batch({"rewards": inputs["rewards"]})
    # The whole rollout as one token.
    batch = batch.replace(ref_logp=torch.tensor(inputs["base_seq_logp"], dtype=torch.float64)[:, None])
    method = registry.method("differential-smoothing", form="reward", **case["config"])
    return {"rewards": method.bind().shape(batch).rewards}
