import torch

from cohort import registry
from cohort.reductions.groups import top_tokens
from cohort.types import Batch, StepInfo

OUTPUTS = {
    "gate": lambda run: top_tokens(run.batch["old_entropy"], run.batch.mask, run.config["rho"]).double(),
    "advantages": lambda run: run.assigned["outcome_advantage"],
}
SIGNALS = {"syntax": "syntax_ok", "interface": "interface_ok", "functional": "functional_score"}


def KIND_reward(case):
    """The method's shaping, of rewards with the names of the inputs."""
    parts = torch.tensor([case["inputs"][name] for name in SIGNALS.values()], dtype=torch.float64).T
    zero = torch.zeros(len(parts), dtype=torch.float64)
    batch = Batch.of(torch.ones(len(parts), 1), group=torch.arange(len(parts)), rewards=zero, reward_components=parts)
    method = registry.method("earl", **SIGNALS, weights=tuple(case["config"]["weights"]))
    return {"rewards": method.bind(info=StepInfo(reward_names=tuple(SIGNALS.values()))).shape(batch).rewards}


# A sort over tokens is in the maths (see benchmarks/methods.py).
SORTS = "the most uncertain tokens of each rollout"
