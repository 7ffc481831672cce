from cohort.axes.objective import binary, contrast, kl_hinge
from cohort.recipes.disco import scores

RENAME = {"kl_beta": "kl_beta"}


def _contrast(run):
    tau = run.config["tau"] if run.config["variant"] == "disco" else None
    correct = binary(run.batch.rewards, None, "disco")
    return contrast(scores(run.batch, score=run.config["score"]), correct, run.batch, tau=tau)


def _hinge(run):
    config = run.config
    return kl_hinge(run.batch, delta=config["kl_delta"], beta=config["kl_beta"], kl_type=config["kl_type"])


OUTPUTS = {
    "scores": lambda run: scores(run.batch, score=run.config["score"]),
    "kl": lambda run: _hinge(run)[0],
    "used_groups": lambda run: run.batch.groups.labels[_contrast(run)[1]].sort().values,
    "objective": lambda run: _contrast(run)[0],
    "penalty": lambda run: _hinge(run)[1],
}
