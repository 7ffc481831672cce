"""What is asked of a run goes together: refused before a folder is made or a token is drawn."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cohort.data.prompts import Source
from cohort.data.rows import place_of
from cohort.errors import UsageError
from cohort.methods import Method
from cohort.rewards.grader import Grader
from cohort.rewards.judge import check_judge, load_judge
from cohort.rewards.judges.methods import asks_policy, names_prompt
from cohort.rollouts.batching import ALWAYS
from cohort.rollouts.exchange import Exchange
from cohort.rollouts.store import LABEL
from cohort.training.batches import EARLY
from cohort.training.config import TrainConfig
from cohort.training.device import pick_device
from cohort.training.engines import check_engine
from cohort.training.episodes import answers
from cohort.training.offline import check_pairs, is_offline
from cohort.training.update import SCORED, SLOW, TEACHER
from cohort.types import Prompt
from cohort.types.policy import Policy

Log = Callable[[str], None]
# Fields that the loop can compute when a method declares them.
COMPUTED = SCORED | TEACHER | EARLY | {SLOW}
# Fields that take the model of a role which is trained, or moves.
MOVING = frozenset({"old_values", "target_values"})


def check_options(config: TrainConfig) -> None:
    """Options go together, as far as that can be said without a model.

    Raises:
        UsageError: they do not; the device is none of this machine.
    """
    pick_device(config.machine.device)
    sampling = config.sampling
    if sampling.min_new_tokens > sampling.max_new_tokens:
        raise UsageError(
            f"min_new_tokens is {sampling.min_new_tokens}, but a rollout ends at max_new_tokens = {sampling.max_new_tokens}: "
            "raise one or lower the other"
        )
    replay = config.optimisation
    if replay.replay_groups > replay.replay_size:
        raise UsageError(
            f"replay_groups is {replay.replay_groups}, but only replay_size = {replay.replay_size} groups are kept: raise one "
            "or lower the other"
        )
    if config.sharing.share_folder is not None:
        if answers(config) or is_offline(config):
            raise UsageError(
                "share_folder shares answers to questions: it goes neither with an environment or tools, nor with --pairs alone"
            )
        if sampling.stop:
            raise UsageError(
                "share_folder shares answers as texts, and stop cuts their ends off: leave one of them out"
            )
        Exchange(config.sharing.share_folder)
    if "" in sampling.stop:
        raise UsageError("stop: an empty text would end every rollout at its first token; leave it out")


def check_method(method: Method, config: TrainConfig) -> None:
    """The method can be trained as configured.

    Raises:
        UsageError: it lacks something, its groups are too small, or it needs a field that nothing provides.
    """
    if method.requires:
        raise UsageError(
            f"'{method.name}' needs {method.requires}, which cohort cannot do yet: it cannot be trained here"
        )
    check_pairs(method, config)
    check_engine(config, method)
    check_ahead(method, config)
    if config.sampling.group_size < method.group_size and not is_offline(config):
        raise UsageError(
            f"group_size is {config.sampling.group_size}, but '{method.name}' compares rollouts of a prompt with each other: "
            f"set group_size to {method.group_size} or more"
        )
    if method.waits:
        advantage = method.stage("advantage")
        why = ""
        if "finished" not in advantage.needs:
            why = f"'{advantage.source or method.name}' ({advantage.name}) takes advantages of whole rollouts"
        elif method.refill_rounds > 1:
            why = "a filter that samples prompts again judges whole groups"
        elif config.optimisation.replay_groups:
            why = "replay_groups keeps whole groups"
        if why:
            raise UsageError(
                f"'{method.name}' ({method.stage('sampling').name}) leaves rollouts unfinished from step to step, but {why}: "
                "leave one of them out"
            )
    for reader, name, call, value in method.functions:
        if value is None:
            raise UsageError(
                f"'{method.name}' ({reader}) asks a function of yours, {call}: write it into a file and name it in the "
                f"method, as {name}='path.py:function'"
            )
        if names_prompt(value) and name != "judge":
            raise UsageError(f"'{method.name}' ({reader}): {name} is a function of yours, {call}; '{value}' is a judge")
        load_judge(value)
    given = ALWAYS | {"preference"}
    early = method.needs(loss=False) - given - EARLY - method.provides
    late = method.needs(loss=True) - given - COMPUTED - method.provides
    for name in sorted(early | late):
        raise UsageError(f"'{method.name}' needs the field '{name}' of every rollout, which nothing here provides")


def corrects(method: Method, config: TrainConfig) -> bool:
    """Token losses are weighted from the policy that drew to the one that is trained, where the two differ: the method does
    it, or the run's own correction can."""
    # The ratio itself is then taken against the sampler.
    bypass = config.optimisation.old_logp == "sampler" or "sampler_logp" in method.needs(loss=True)
    default = config.optimisation.correction != "off" and not bypass and method.objective is None
    return bool(method.correction) or default


def check_ahead(method: Method, config: TrainConfig) -> None:
    """Sampling can run as far ahead as is asked for.

    Raises:
        UsageError: it cannot; says what stands in the way.
    """
    asked = config.inference
    if not asked.ahead:
        if asked.in_flight != "finish":
            raise UsageError(
                f"in_flight = {asked.in_flight} says what becomes of rollouts that are drawn while the weights change, which "
                "takes --ahead 1 or more"
            )
        return
    if asked.in_flight != "finish" and config.sampling.stop:
        raise UsageError(
            f"in_flight = {asked.in_flight} draws rollouts piece by piece, and a stop string can lie across two of them: leave "
            "stop out, or let rollouts finish (in_flight = finish)"
        )
    if is_offline(config):
        raise UsageError("--ahead samples ahead of training, but with --pairs alone nothing is sampled: leave it out")
    policy = next((value for *_, value in method.functions if asks_policy(value)), None)
    if policy is not None:
        raise UsageError(
            f"'{method.name}' asks '{policy}': the policy cannot judge for a method while it draws ahead of training: leave "
            "--ahead out, or name another model"
        )
    for source, name, why in method.on_policy(corrected=corrects(method, config)):
        raise UsageError(
            f"'{source or method.name}' ({name}) needs on-policy rollouts: {why}. With --ahead {asked.ahead} those of a step "
            f"are up to {asked.ahead} steps old: leave --ahead out, or take another method"
        )
    early = sorted(method.needs(loss=False) & EARLY & MOVING)
    if method.refill_rounds > 1 and early:
        raise UsageError(
            f"a filter of '{method.name}' that samples prompts again reads {', '.join(early)} of models which training moves: "
            "it cannot run ahead of it. Leave --ahead out"
        )


def check_arguments(method: Method, grader: Grader, *sources: Source | None, environments: bool = False) -> None:
    """Reward functions and judges are given all arguments that they ask for.

    Args:
        sources: data to train on and held-out data, where there are any.
        environments: something answers the policy.

    Raises:
        UsageError: one asks for an argument that cohort does not pass and that is no column.
    """
    for number, source in enumerate(sources):
        if source is None:
            continue
        columns = list(dict.fromkeys(name for row in source.rows for name in row))
        grader.scorer.check_arguments(columns, environments=environments)
        for _, _, call, judge in method.functions if number == 0 else ():
            texts = re.findall(r"\w+", call.partition("(")[2].partition(")")[0])
            check_judge(judge, [name for name in texts if name != "columns"], columns, grader.scorer.judges)


def check_columns(
    method: Method,
    config: TrainConfig,
    grader: Grader,
    rows: Sequence[Mapping[str, Any]],
    eval_rows: Sequence[Mapping[str, Any]],
    pairs: Sequence[Mapping[str, Any]] = (),
    *,
    own: Sequence[str] = (),
) -> None:
    """The rows have the columns that rewards and method read, and the run the rewards.

    Args:
        own: components of the environment's reward.
    """
    names = (*grader.names, *own)
    for component, reader in method.components.items():
        if is_offline(config) and component != LABEL:
            raise UsageError(
                f"'{method.name}' ({reader}) reads the reward '{component}', but the completions of --pairs have none but "
                f"their label: leave that part of the method out"
            )
        if component not in names and not is_offline(config):
            raise UsageError(
                f"'{method.name}' ({reader}) reads the reward '{component}', which this run lacks (it has: "
                f"{', '.join(names)}): add a function of that name with --reward '0*path.py:{component}' (a weight "
                "of 0 keeps it out of the sum), or name another reward in the method"
            )
    named = [(f"{place_of(row)} of the training data", row) for row in rows]
    held_out = [(f"{place_of(row)} of the held-out data", row) for row in eval_rows]
    stored = [(f"{place_of(row)} of the pairs", row) for row in pairs]
    # Held-out prompts are answered as they are, whatever the method.
    for where, row in named + stored:
        held = ", ".join(row)
        for column, reader in method.columns.items():
            if row.get(column) in (None, ""):
                raise UsageError(
                    f"'{method.name}' ({reader}) reads the column '{column}', which {where} lacks (it has: {held}): add it "
                    "to the data, or name another column in the method"
                )
    for column, reader in method.sparse_columns.items():
        if rows and all(row.get(column) in (None, "") for row in rows):
            raise UsageError(
                f"'{method.name}' ({reader}) reads the column '{column}', which no row of the training data has (they have: "
                f"{', '.join(dict.fromkeys(name for row in rows for name in row))}): add it to the rows that can have it, or "
                "name another column in the method"
            )
    # Stored completions are not rewarded: their labels are.
    for spec in grader.scorer.specs:
        spec.check_rows(named + held_out)


def log_inapplicable(grader: Grader, prompts: Sequence[Prompt], source: Source | None, log: Log) -> None:
    """Say how many rows of a source the rewards do not apply to, since they have no answer."""
    if source is not None:
        for spec in grader.scorer.specs:
            for text in spec.inapplicable([prompt.row for prompt in prompts], source.where):
                log(text)


def check_space(folder: Path, policy: Policy, config: TrainConfig) -> None:
    """There is room for the run's checkpoints.

    Raises:
        UsageError: there is not.
    """
    trained = sum(p.numel() for p in policy.trainable())
    # Weights, two float32 moments and, for half precision, float32 masters; one more checkpoint while it is written.
    each = sum(p.numel() * p.element_size() for p in policy.model.parameters()) + 12 * trained
    need = each * (config.checkpoint.keep + 1)
    parent = next(p for p in [folder, *folder.parents] if p.exists())
    free = shutil.disk_usage(parent).free
    if free < need:
        raise UsageError(
            f"{parent} has {free / 1e9:.1f} GB free, but {config.checkpoint.keep + 1} checkpoints need {need / 1e9:.1f} GB: "
            "lower checkpoint.keep, or put the run elsewhere with --out"
        )
