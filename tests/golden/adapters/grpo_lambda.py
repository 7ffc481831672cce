import torch

from cohort.recipes.grpo_lambda import selected_groups
from cohort.reductions.groups import group_mean


def _ratio(run):
    return group_mean(run.batch["accuracy"], run.batch.groups)[torch.argsort(run.batch.groups.labels)]


OUTPUTS = {
    "correct_ratio": _ratio,
    "selected_groups": lambda run: (
        run.batch.groups.labels[selected_groups(run.batch, lambda_top=run.config["lambda_top"])].sort().values
    ),
}
