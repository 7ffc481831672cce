import torch

from cohort.recipes.flow_grpo_agent import short_prompts
from cohort.types import Batch
from tests.golden.runner import tensor

RENAME = {"kl_estimator": "kl"}


class Trajectories:
    """Turns, a row each, as trajectories, a rollout each: its turns follow each other."""

    def __init__(self, inputs):
        mask = tensor(inputs["mask"]).bool()
        self.row, self.first = torch.unique(torch.tensor(inputs["trajectory"]), return_inverse=True)[1], []
        place = mask.cumsum(1) - 1
        for i, row in enumerate(self.row.tolist()):
            self.first.append(int(mask[:i][self.row[:i] == row].sum()))
        self.mask, self.column = mask, place + torch.tensor(self.first)[:, None]
        self.at = (self.row[:, None].expand(mask.shape)[mask], self.column[mask])
        self.size = (int(self.row.max()) + 1, int(self.column[mask].max()) + 1)

    def join(self, values):
        """[N, T] of the turns' [R, S]."""
        return torch.zeros(self.size, dtype=values.dtype).index_put(self.at, values[self.mask])

    def of_rows(self, values):
        """[N] of numbers [R] that a trajectory's turns share."""
        return torch.zeros(self.size[0], dtype=values.dtype).index_put((self.row,), values)


def batch(case):
    inputs = case["inputs"]
    rows = Trajectories(inputs)
    leaves = {"logp": tensor(inputs["logp"]).requires_grad_()}
    turn = torch.tensor(inputs["turn"])[:, None].expand(rows.mask.shape)
    made = Batch.of(
        rows.join(torch.ones(rows.mask.shape, dtype=torch.bool)),
        group=rows.of_rows(tensor(inputs["group"])),
        rewards=rows.of_rows(tensor(inputs["rewards"])),
        logp=rows.join(leaves["logp"]),
        old_logp=rows.join(tensor(inputs["old_logp"])),
        ref_logp=rows.join(tensor(inputs["ref_logp"])),
    )
    return made.with_tokens(turn=rows.join(turn)), leaves


OUTPUTS = {"advantages": lambda run: run.assigned["outcome_advantage"][Trajectories(run.inputs).row]}


def KIND_filter(case):
    """The turns that the loss is taken over; here a rollout each. What is discarded of them for the sake of full
    minibatches is the released trainer's, and no part of the method."""
    length, config = torch.tensor(case["inputs"]["prompt_length"])[:, None], case["config"]
    made = Batch.of(torch.ones_like(length)).with_tokens(prompt_length=length)
    keep = short_prompts(made, torch.zeros(length.shape), most=config["max_prompt_length"]).loss_mask[:, 0]
    whole = int(keep.sum()) // config["mini_batch"] * config["mini_batch"]
    return {"keep": keep, "n_train": whole // config["partitions"] * config["partitions"]}


def random_fields(batch, generator):
    """Up to three turns a rollout."""
    length = batch.mask.shape[1]
    cuts = torch.randint(0, length, (batch.size, 2, 1), generator=generator)
    return batch.with_tokens(turn=(torch.arange(length) >= cuts).sum(1))
