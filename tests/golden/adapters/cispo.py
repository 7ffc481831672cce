import torch

from cohort.axes.ratio import token
from cohort.axes.surrogate import clipped_weight
from cohort.recipes.cispo import cispo
from cohort.types import Prompt, Request, Rollout, Segment

IGNORE = ("aggregation",)


def _weights(run):
    batch, clip = run.trained, {k: v for k, v in run.config.items() if k.startswith(("is_clip", "mask_"))}
    return torch.where(batch.mask, clipped_weight(token(batch), batch.advantages, **clip), 0.0)


OUTPUTS = {"weights": _weights}


class FakeTools:
    """An engine that draws the given probabilities."""

    def __init__(self, probs):
        self.probs = probs
        self.rng = torch.Generator()

    def generate(self, requests):
        count = len(self.probs)
        logp = torch.tensor(self.probs, dtype=torch.float64).log().tolist()
        return [Rollout(requests[0], (Segment(tuple(range(count)), logp=tuple(logp)),))]

    def cut(self, rollout, count):
        return rollout.replace(segments=rollout.head(count))


def KIND_rollout(case):
    probs = case["inputs"]["token_probs"]
    request = Request(Prompt("p", "", (), ""), (), 0, len(probs))
    drawn = cispo(**case["config"]).bind().sampling([request], FakeTools(probs))
    kept = len(drawn[0].tokens)
    return {"stop_after_index": -1 if kept == len(probs) else kept - 1}
