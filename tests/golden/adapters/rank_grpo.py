import torch

from cohort.axes.advantage import standardise
from cohort.recipes.rank_grpo import token_ranks
from cohort.signals.items import rank_rewards
from tests.golden.runner import make_batch

FIELDS = {"hits": ("hits", "rollout"), "newlines": ("newlines", "token"), "eos": ("eos", "rollout")}


def _rewards(run):
    return rank_rewards(run.batch["hits"].double(), reward=run.config["reward"])


def _advantages(run):
    return standardise(_rewards(run), run.batch.groups, eps=run.config["eps_std"], ddof=run.config["std_ddof"])


OUTPUTS = {
    "ranks": lambda run: torch.where(run.batch.mask, token_ranks(run.batch), -1),
    "rank_rewards": _rewards,
    "rank_advantages": _advantages,
}


def KIND_advantage(case):
    config, inputs = case["config"], case["inputs"]
    groups = make_batch({"group": inputs["group"]})[0].groups
    rewards = torch.tensor(inputs["rank_rewards"], dtype=torch.float64)
    return {"rank_advantages": standardise(rewards, groups, eps=config["eps_std"], ddof=config["std_ddof"])}


def KIND_reward(case):
    rows = [torch.tensor(row, dtype=torch.float64) for row in case["inputs"]["hits"]]
    return {kind: [rank_rewards(row, reward=kind) for row in rows] for kind in ("log_decay", "exp_inf")}


def random_fields(batch, generator):
    hits = torch.randint(0, 2, (batch.size, 20), generator=generator)
    newlines = torch.randint(0, 3, batch.mask.shape, generator=generator)
    ends = torch.where(batch.mask.any(1), batch.mask.int().cumsum(1).argmax(1), -1)
    ends = torch.where(torch.rand(batch.size, generator=generator) < 0.3, -1, ends)
    return batch.with_rollouts(hits=hits.double(), eos=ends).with_tokens(newlines=newlines)


HYPER_TRAIN = "(num_items=1)"
