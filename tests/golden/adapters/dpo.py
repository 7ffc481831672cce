from cohort.axes.objective import preferred_pairs, sequence_log_ratio
from tests.golden.preferences import paired


def batch(case):
    return paired(case["inputs"])


def _rewards(run, side):
    return (run.config["beta"] * sequence_log_ratio(run.trained))[preferred_pairs(run.trained)[side]]


OUTPUTS = {
    "chosen_reward": lambda run: _rewards(run, 0),
    "rejected_reward": lambda run: _rewards(run, 1),
    "margin": lambda run: _rewards(run, 0) - _rewards(run, 1),
}
