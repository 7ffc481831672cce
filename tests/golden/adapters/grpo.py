import torch

from cohort.types import Batch
from tests.golden.runner import make_method


def KIND_credit(case):
    """Process supervision: ragged steps, padded to the longest rollout."""
    inputs, config = case["inputs"], case["config"]
    most = max(len(ends) for ends in inputs["step_end"])
    ends = torch.tensor([e + [-1] * (most - len(e)) for e in inputs["step_end"]])
    scores = torch.tensor([s + [float("nan")] * (most - len(s)) for s in inputs["step_rewards"]], dtype=torch.float64)
    mask = torch.arange(inputs["max_len"]) < torch.tensor(inputs["lengths"])[:, None]
    batch = Batch.of(
        mask, group=torch.zeros(len(ends), dtype=torch.int64), rewards=torch.zeros(len(ends), dtype=torch.float64)
    ).with_rollouts(step_end=ends, step_rewards=scores)
    method = make_method("grpo", {**config, "supervision": "process"}, None)
    return {"advantages": method.bind().assign(batch).advantages}
