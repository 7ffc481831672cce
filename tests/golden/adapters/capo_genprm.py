import torch

from cohort.recipes.capo_genprm import VOTES, token_rewards, voted, wrong_share
from cohort.signals.spans import spread_over_tokens
from tests.golden.runner import make_batch
from tests.recipes import judges


def _share(critiques):
    steps = [step for lists in critiques for wrong in lists for step in wrong]
    return wrong_share(critiques, 1 + max(steps, default=0))


def _pairs(weights):
    """[[step, weight], ...] of each row, where the weight is not 0."""
    return [[[k, w] for k, w in enumerate(row) if w] for row in weights.tolist()]


def batch(case):
    inputs = dict(case["inputs"])
    critiques, step_of = inputs.pop("critiques"), torch.tensor(inputs.pop("step_of"))
    made, leaves = make_batch(inputs)
    return made.with_tokens(wrong_share=spread_over_tokens(_share(critiques), step_of)), leaves


def _token_rewards(run):
    how = {name: run.config[name] for name in ("w_whole", "w_process", "vote")}
    return torch.where(run.batch.mask, token_rewards(run.shaped, **how), 0.0)


OUTPUTS = {
    "wrong_steps": lambda run: _pairs(voted(_share(run.inputs["critiques"]), run.config["vote"])),
    "token_rewards": _token_rewards,
}


def KIND_reward(case):
    share = _share(case["inputs"]["critiques"])
    return {vote: _pairs(voted(share, vote)) for vote in VOTES}


def random_fields(batch, generator):
    """Shares of four critiques."""
    share = torch.randint(0, 5, batch.mask.shape, generator=generator).double() / 4
    return batch.with_tokens(wrong_share=share)


HYPER_TRAIN = f"(judge='{judges.__file__}:wrong_steps')"
