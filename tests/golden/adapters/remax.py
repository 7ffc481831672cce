import torch

OUTPUTS = {"token_advantages": lambda run: run.assigned.advantages}
IGNORE = ("aggregation",)


def random_fields(batch, generator):
    return batch.with_rollouts(greedy_rewards=torch.rand(batch.size, generator=generator, dtype=torch.float64))
