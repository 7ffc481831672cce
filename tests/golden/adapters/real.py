from cohort.recipes.real import contributing, labels
from cohort.reductions.groups import token_mean


def _used(run):
    right, wrong = labels(run.batch, label_rule=run.config["label_rule"], threshold=None)
    used = contributing(right, wrong, run.batch.groups, skip_uniform=run.config["skip_uniform_groups"])
    return run.batch.groups.labels[used].sort().values


OUTPUTS = {"logits": lambda run: token_mean(run.batch.logp - run.batch.old_logp, run.batch.mask), "used_groups": _used}
