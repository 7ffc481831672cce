import torch

from cohort import registry
from cohort.recipes.gpg import rescaling
from cohort.rollouts.refill import refill
from cohort.types import Batch

# The loss cases give the batch as it was drawn.
HYPER = {"min_valid_fraction": 0.0}


def _alpha(run):
    return rescaling(run.batch) if run.config["rescale"] else 1.0


OUTPUTS = {"alpha": _alpha}


def KIND_filter(case):
    """Resampling through the loop's refill, with the method's own filter."""
    config, rounds = case["config"], case["inputs"]["group_has_signal"]
    method = registry.method("gpg", min_valid_fraction=config["min_valid_fraction"])

    def batch_of(signals):
        """Two rollouts a group, unlike where it has a signal."""
        rewards = torch.tensor([[0.0, float(signal)] for signal in signals], dtype=torch.float64).flatten()
        group = torch.arange(len(signals)).repeat_interleave(2)
        return Batch.of(torch.ones(len(rewards), 1), group=group, accuracy=rewards, rewards=rewards)

    def keep(signals):
        rows = method.bind().keep(batch_of(signals), drawing=True)
        return torch.isin(torch.arange(2 * len(signals)), rows).reshape(len(signals), 2).all(1).tolist()

    done = refill(iter(rounds), keep, target=config["groups"], max_rounds=len(rounds), share=method.refill_share)
    filled = batch_of([rounds[at][place] for at, place in done.chosen])
    assert torch.equal(method.bind().keep(filled), torch.arange(filled.size))
    valid = sum(map(sum, done.flags))
    return {"rounds_used": len(done.rounds), "valid": valid, "alpha": rescaling(filled)}
