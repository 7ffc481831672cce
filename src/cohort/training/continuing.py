"""What a continued run must have in common with what it continues, and what becomes of the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cohort.errors import UsageError
from cohort.files import free_name
from cohort.training.build import Setup
from cohort.training.config import TrainConfig
from cohort.training.folder import CONFIG, stored_config
from cohort.training.inputs import carried, differences, places, refusal
from cohort.training.scaling import advice
from cohort.types.declare import State

# Keys that may differ between a run and its continuation: they change what is written or shown, or how long it goes on
# (a constant learning rate does not depend on the number of steps).
RESUMABLE = frozenset(
    {
        "out",
        "checkpoint",
        "record",
        "record_every",
        "record_limit_mb",
        "show_every",
        "doctor",
        "tensorboard",
        "wandb",
        "eval_every",
        "threads",
        "processes",
        "shard",
        "tensor_parallel",
        "restarts",
        "max_tokens_sampled",
        "activations",
        "compile",
        "reward_process",
        "reward_workers",
        "environment_processes",
    }
    | {"engine_url", "engine_folder", "engine_weights", "engine_memory", "engine_timeout", "engine_wait"}
    | {"workers", "ray_address"}
    | {
        "judge_calls",
        "judge_tokens",
        "judge_on_spent",
        "judge_concurrency",
        "judge_timeout",
        "judge_key",
        "judge_cache",
    }
)
# Keys without which what a checkpoint holds fits no longer.
FIXED = frozenset({"method", "model", "lora", "device", "dtype"})


def check_same_run(folder: Path, config: TrainConfig, *, accept: bool = False) -> list[str]:
    """The run in the folder has the same configuration, but for keys that do not change what is computed. Of keys that came
    since, it had the default.

    Args:
        accept: other values are taken over, where the checkpoint allows them.

    Returns:
        what differs and is taken over, a phrase each.

    Raises:
        UsageError: names the keys that differ.
    """
    stored, now = (_drawn(each) for each in ({**TrainConfig().plain(), **stored_config(folder)}, config.plain()))
    allowed = RESUMABLE | ({"steps"} if config.optimisation.schedule == "constant" else set())
    differing = [k for k in now if k not in allowed and stored[k] != now[k]]
    fixed = [k for k in differing if k in FIXED or (k in ("data", "pairs") and (stored[k] is None) != (now[k] is None))]
    what = [f"{k} (was {stored[k]!r}, now {now[k]!r})" for k in (fixed if accept else differing)]
    if not what:
        larger = advice(stored, now)
        return [*(f"{k} was {stored[k]!r}, is {now[k]!r}" for k in differing), *([larger] if larger else [])]
    way = "name another folder with --out" + ("" if fixed else ", or go on with the changes: --resume --accept-changes")
    raise UsageError(f"{folder} holds a run with another configuration: {', '.join(what)}; {way}")


def _drawn(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of which the engine says what computes, and not where: numbers do not depend on that."""
    vllm = "vllm" in (values["engine"], values["worker_engine"])
    rest = {key: value for key, value in values.items() if key != "worker_engine"}
    return rest | {"engine": "vllm" if vllm else "native"}


def check_same_inputs(
    folder: Path, then: Mapping[str, Any] | None, now: Mapping[str, Any], *, accept: bool
) -> list[str]:
    """Data, functions and weights are what they were.

    Args:
        then: the checksums of the checkpoint; None if it is from before there were any.
        accept: other inputs are taken over.

    Returns:
        what differs and is taken over, a phrase each.

    Raises:
        UsageError: names the inputs that differ.
    """
    changed = [] if then is None else differences(then, now)
    if changed and not accept:
        raise refusal(folder, changed)
    return changed


def keep_configuration(folder: Path, config: TrainConfig, step: int) -> None:
    """Put the configuration that a run goes on with in the place of the one that it had, which is kept."""
    (folder / CONFIG).rename(free_name(folder, f"config-until-step-{step:06d}.yaml"))
    config.model_copy(update={"out": str(folder)}).save(folder / CONFIG)


def fitting_states(
    setup: Setup,
    states: Mapping[str, State],
    fresh: Mapping[str, State],
    then: Mapping[str, Any] | None,
    now: Mapping[str, Any],
    log: Callable[[str], None],
) -> dict[str, State]:
    """A method's states for the prompts as they are now; says what was begun anew."""
    if then is None or (
        then["prompts"].shape == now["prompts"].shape and bool((then["prompts"] == now["prompts"]).all())
    ):
        # A state that a method has had only since begins with the continuation.
        return {**fresh, **states}
    rows = places(then["prompts"], now["prompts"])
    out, anew = carried(setup.method, states, fresh, rows, len(then["prompts"]))
    log(f"the method's states by prompt are kept for {int((rows >= 0).sum())} of {len(rows)} prompts")
    if anew:
        log(f"begun anew, since they do not fit other prompts: {', '.join(anew)}")
    return out
