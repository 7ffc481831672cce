import torch

from cohort.recipes.r2vpo import dual_step, ratio_variance

RENAME = {"lambda": "lambda_init"}
KEY = "surrogate/variance_penalty"


def _aggregation(run):
    return run.method.surrogate.all_hyper["aggregation"]


def _effective(run):
    """What stands in the place of the advantage: the loss's gradient over that of the ratio and its weight."""
    push = run.method.bind().weights(run.trained) * run.method.stage("ratio")(run.trained)
    return torch.where(run.trained.mask, -run.gradients["logp"] / torch.where(run.trained.mask, push, 1.0), 0.0)


OUTPUTS = {
    "effective_advantage": _effective,
    "ratio_variance": lambda run: ratio_variance(run.trained, aggregation=_aggregation(run), info=run.info),
    "next_lambda": lambda run: run.method.bind(run.states).on_step_end(run.trained, [], None)[KEY]["lambda"],
}


def KIND_regularizer(case):
    out = []
    for start, sequence in zip(case["inputs"]["initial_lambda"], case["inputs"]["ratio_variance"], strict=True):
        steps = [start]
        for variance in sequence:
            steps.append(dual_step(steps[-1], variance, **case["config"]))
        out.append(steps[1:])
    return {"lambda": out}


# Rollouts of the step before are trained on as well, so that ratios differ from 1.
HYPER_TRAIN = "(replay=1)"
