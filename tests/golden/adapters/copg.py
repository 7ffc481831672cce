from cohort.axes.objective import sequence_log_ratio
from cohort.recipes.copg import less_others, regularized_reward


def _reward(run):
    return regularized_reward(run.batch, beta=run.config["beta"])


OUTPUTS = {
    "log_ratio": lambda run: sequence_log_ratio(run.batch),
    "regularized_reward": _reward,
    "advantages": lambda run: less_others(_reward(run), run.batch.groups),
}
