import torch

from cohort.recipes.grpo_vps import belief, segments
from cohort.types import Batch
from tests.golden.runner import make_batch

FIELDS = {"confidences": None}


def batch(case):
    """The beliefs as the hook attaches them: the last one again where there are fewer segments."""
    made, leaves = make_batch({k: v for k, v in case["inputs"].items() if k != "confidences"})
    width = case["config"]["num_segments"] + 1
    rows = [row + (row[-1:] or [0.0]) * (width - len(row)) for row in case["inputs"]["confidences"]]
    return made.with_rollouts(confidences=torch.tensor(rows, dtype=torch.float64)), leaves


def _starts(batch, **how):
    """First token of each segment, a list for each rollout."""
    segment = segments(batch, **how)
    first = batch.mask & (torch.nn.functional.pad(segment, (1, 0), value=-1)[:, :-1] != segment)
    return [row.nonzero()[:, 0].tolist() for row in first]


def _own_starts(run):
    how = {k: run.config[k] for k in ("num_segments", "entropy_fraction")}
    return _starts(run.batch, **how)


def _progress(run):
    steps = run.batch["confidences"].diff(dim=1)
    return [row[: len(starts)].tolist() for row, starts in zip(steps, _own_starts(run), strict=True)]


OUTPUTS = {"segment_starts": _own_starts, "progress": _progress}


def KIND_credit(case):
    found = []
    for row, share in zip(case["inputs"]["entropy"], case["inputs"]["entropy_fraction"], strict=True):
        entropy = torch.tensor([row or [0.0]], dtype=torch.float64)
        mask = torch.full(entropy.shape, bool(row))
        made = Batch.of(mask, old_entropy=entropy)
        found += _starts(made, num_segments=case["config"]["num_segments"], entropy_fraction=share)
    return {"segment_starts": found}


def KIND_reward(case):
    out = {"confidence_joint": [], "confidence_per_token": [], "progress_joint": []}
    for rollout in case["inputs"]["answer_token_logps"]:
        width = max(len(row) for row in rollout)
        logp = torch.tensor([row + [0.0] * (width - len(row)) for row in rollout], dtype=torch.float64)
        mask = torch.arange(width) < torch.tensor([len(row) for row in rollout])[:, None]
        for kind in ("joint", "per_token"):
            out[f"confidence_{kind}"].append(belief(logp, mask, confidence=kind))
        out["progress_joint"].append(out["confidence_joint"][-1].diff())
    return out


def random_fields(batch, generator):
    return batch.with_rollouts(confidences=torch.rand(batch.size, 5, generator=generator, dtype=torch.float64))


TRAIN = {"thought": True}
# One more sign of thought closes a prefix: the policy then answers, also where it has answered.
HYPER_TRAIN = "(closing='~', alpha=0.2)"

# A sort over tokens is in the maths (see benchmarks/methods.py).
SORTS = "the most uncertain tokens of each rollout"
