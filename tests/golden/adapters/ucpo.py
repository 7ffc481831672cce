import torch

from cohort.recipes.ucpo import correct_set, log_share, uniform_weights


def _inside(run):
    return correct_set(run.batch)[0]


OUTPUTS = {
    "q": lambda run: torch.where(_inside(run), log_share(run.batch, _inside(run)).exp(), 0.0),
    # 0 stands where the rule does not apply.
    "weights": lambda run: torch.where(
        _inside(run), uniform_weights(run.batch, tau=run.config["tau"], q_min=run.config["q_min"]), 0.0
    ),
}
