import torch

from cohort.recipes.s_grpo import exit_positions


def KIND_rollout(case):
    inputs = case["inputs"]
    return {"positions": exit_positions(inputs["length"], torch.tensor(inputs["draws"], dtype=torch.float64))}
