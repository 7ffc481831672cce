import torch

from cohort.recipes.progrpo import confidence, low_count
from tests.golden.runner import make_batch

PROMPT = ("prompt_logp", "prompt_mask")


def batch(case):
    """A row of prompt fields belongs to a group; training has it at every rollout."""
    inputs = case["inputs"]
    made, leaves = make_batch({k: v for k, v in inputs.items() if k not in PROMPT})
    logp = torch.tensor(inputs["prompt_logp"], dtype=torch.float64)
    mask = torch.tensor(inputs["prompt_mask"]).bool()
    return made.with_rollouts(prompt_logp=logp[made.group], prompt_mask=mask[made.group]), leaves


def _prompt(run):
    value = confidence(run.batch["prompt_logp"], run.batch["prompt_mask"], fraction=run.config["prompt_low_fraction"])
    return torch.zeros(len(run.inputs["prompt_logp"]), dtype=value.dtype).index_put((run.batch.group,), value)


OUTPUTS = {
    "prompt_confidence": _prompt,
    "answer_confidence": lambda run: confidence(
        run.batch.old_logp, run.batch.mask, fraction=run.config["low_fraction"]
    ),
}


def KIND_credit(case):
    rows, fraction = case["inputs"]["token_logp"], case["config"]["low_fraction"]
    lengths = torch.tensor([len(row) for row in rows])
    logp = torch.full((len(rows), int(lengths.max())), 1e6, dtype=torch.float64)
    for i, row in enumerate(rows):
        logp[i, : len(row)] = torch.tensor(row, dtype=torch.float64)
    mask = torch.arange(logp.shape[1]) < lengths[:, None]
    return {
        "low_tokens": low_count(lengths, fraction=fraction),
        "confidence": confidence(logp, mask, fraction=fraction),
    }


def random_fields(batch, generator):
    """Prompts of different lengths."""
    groups = batch.groups
    logp = -torch.rand(groups.count, 5, generator=generator, dtype=torch.float64)
    lengths = torch.randint(0, 6, (groups.count,), generator=generator)
    mask = torch.arange(5) < lengths[:, None]
    return batch.with_rollouts(prompt_logp=logp[groups.index], prompt_mask=mask[groups.index])


# Random letters are hardly expected as a prompt, so that c(q) is near 0 and the whole term pushes down.
HYPER_TRAIN = "(alpha=0.1)"

# A sort over tokens is in the maths (see benchmarks/methods.py).
SORTS = "the least likely tokens of each rollout"
