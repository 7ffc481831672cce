"""Checks of training on stored completions, in place of rollouts or in addition to them."""

from __future__ import annotations

from collections.abc import Sequence

from cohort import registry
from cohort.data.pairs import Preference
from cohort.errors import UsageError
from cohort.methods import Method, Stage
from cohort.rollouts.store import SAMPLED
from cohort.training.config import TrainConfig


def is_offline(config: TrainConfig) -> bool:
    """True if the run learns from stored completions alone."""
    return config.dataset.pairs is not None and config.dataset.data is None


def _learners(method: Method) -> list[Stage]:
    return [stage for _, stage in method.stages() if stage.declared.offline]


def _compares(method: Method) -> bool:
    """True if single completions teach it nothing."""
    return all(stage.group_size > 1 for stage in _learners(method))


def _offline_methods(*, single: bool = False) -> str:
    made = ((name, registry.method(name)) for name in registry.names())
    return ", ".join(name for name, each in made if each.offline and not (single and _compares(each)))


def check_pairs(method: Method, config: TrainConfig) -> None:
    """The method can learn from the completions that the configuration names, and has those that it needs.

    Raises:
        UsageError: it cannot, or part of what was asked would have no effect; the message says what to use instead.
    """
    both = "preference" in method.needs(loss=True) | method.needs(loss=False)
    if config.dataset.pairs is None:
        if both:
            raise UsageError(
                f"'{method.name}' learns from a preference batch in addition to its rollouts: name its file with --pairs"
            )
        return
    early, late = method.needs(loss=False), method.needs(loss=True)
    if not is_offline(config):
        if not both:
            raise UsageError(
                f"'{method.name}' learns from one batch a step, but both --data and --pairs were given: leave one out"
            )
        refused = late & SAMPLED
    elif not method.offline:
        if both:
            raise UsageError(f"'{method.name}' draws rollouts as well: name their prompts with --data, and a --reward")
        raise UsageError(
            f"'{method.name}' learns from rollouts of its own, not from stored completions (--pairs): "
            f"name prompts with --data, or take one of {_offline_methods()}"
        )
    else:
        refused = (early | late) & SAMPLED
        for axis in ("budget", "guidance", "sampling"):
            if axis in method.filled:
                raise UsageError(
                    f"'{method.name}' fills the axis '{axis}' ({method.stage(axis).name}), which draws rollouts, but with "
                    f"--pairs none are drawn: leave it out, as in 'NAME:-{axis}'"
                )
        if config.optimisation.replay_groups:
            raise UsageError("replay_groups: the completions of --pairs come again every epoch as it is; leave it out")
        if config.optimisation.old_logp == "sampler":
            raise UsageError("old_logp = sampler: the completions of --pairs were not sampled; use auto or score")
    for name in sorted(refused):
        reader = next(stage.name for _, stage in method.stages() if name in stage.needs)
        raise UsageError(
            f"'{method.name}' ({reader}) reads '{name}', what the sampling policy said of its rollouts, which is not known "
            "of the completions of --pairs: leave that part of the method out"
        )


def check_labels(method: Method, preferences: Sequence[Preference], where: str) -> None:
    """The labels have something to teach the method.

    Raises:
        UsageError: it compares completions of a prompt, but no prompt has a good and a bad one.
    """
    if _compares(method) and not any(preference.decided for preference in preferences):
        raise UsageError(
            f"'{method.name}' compares completions of one prompt, but no prompt of {where} has a good and a bad one: give "
            "rows with 'chosen' and 'rejected', or take a method that learns from single completions "
            f"({_offline_methods(single=True)})"
        )
