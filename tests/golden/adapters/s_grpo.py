import torch

from cohort.recipes.s_grpo import exit_positions


def KIND_rollout(case):
    inputs = case["inputs"]
    return {"positions": exit_positions(inputs["length"], torch.tensor(inputs["draws"], dtype=torch.float64))}


def random_fields(batch, generator):
    """Members of a serial group stand at distinct positions."""
    place = torch.randperm(batch.size, generator=generator).to(batch.dtype)
    return batch.with_rollouts(exit_position=place)


TRAIN = {"thought": True, "lr": 3e-3, "steps": 40}
HYPER_TRAIN = "(exit_text='', end_of_thinking='<')"
