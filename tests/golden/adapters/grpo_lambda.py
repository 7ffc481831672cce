import torch

from cohort.axes.groups import group_mean
from cohort.recipes.grpo_lambda import selected_groups


def _ratio(run):
    return group_mean(run.batch["accuracy"], run.batch.groups)[torch.argsort(run.batch.groups.labels)]


OUTPUTS = {
    "correct_ratio": _ratio,
    "selected_groups": lambda run: (
        run.batch.groups.labels[selected_groups(run.batch, lambda_top=run.config["lambda_top"])].sort().values
    ),
}
