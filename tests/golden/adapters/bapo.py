from cohort.axes import ratio
from cohort.recipes.bapo import balance


def _found(run):
    """What the method's own surrogate searches for."""
    hyper = {k: v for k, v in run.method.surrogate.all_hyper.items() if k != "dual_clip"}
    return balance(run.trained, ratio.token(run.trained), run.trained.advantages, **hyper)


OUTPUTS = {
    "clip_low": lambda run: _found(run).low,
    "clip_high": lambda run: _found(run).high,
    "search_steps": lambda run: _found(run).steps,
    "contribution": lambda run: _found(run).measure,
}
