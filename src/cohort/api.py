"""cohort from Python."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from cohort.data.load import given_rows
from cohort.distributed.run import train as run
from cohort.doctor.watch import observers
from cohort.errors import UsageError
from cohort.methods import Method
from cohort.policies.given import GivenModel
from cohort.training.config import FIELDS, keys, make_config
from cohort.training.display import Display
from cohort.training.evaluate import Evaluation
from cohort.training.run import Result

if TYPE_CHECKING:
    from cohort.experiments.comparison import Comparison

# Rows may also be a table: a data frame, one of Arrow, or a data set of `datasets`.
Data = str | Path | Iterable[Mapping[str, Any]] | Any
Reward = str | Callable[..., Any] | tuple[float, str | Callable[..., Any]]
# A folder, a hub id, or a model of transformers with its tokenizer.
Model = str | Path | tuple[Any, Any] | Any


P = ParamSpec("P")
R = TypeVar("R")
# What is said with an argument alone, beside the keys of the configuration.
_ARGUMENTS = {"samples", "limit", "seeds", "tokens", "transfer", "target"}
_FLAGS = {"resume", "quiet"} | {key for key, info in FIELDS.items() if info.annotation is bool}


def _of_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Have errors speak of arguments where they speak of the command's options."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except UsageError as error:
            error.args = (as_arguments(str(error)),)
            raise

    return run


def as_arguments(text: str) -> str:
    """A message with `--group-size 1` as `group_size=1`, and what is no option of a run as it stands."""

    def written(match: re.Match[str]) -> str:
        name = match[1].replace("-", "_")
        if name in _FLAGS:
            return f"{name}=True{match[2] or ''}{match[3] or ''}"
        if name not in {*keys(), *_ARGUMENTS}:
            return match[0]
        return f"{name}:" if match[3] else f"{name}="

    # A value stands behind an option in quotes, as a number, or before a colon.
    return re.sub(r"--([a-z][a-z-]*[a-z])(?:( )(?=['\"\d]|\S+: )|(:))?", written, text.replace("--set ", ""))


@_of_arguments
def train(
    method: str | Method = "grpo",
    *,
    model: Model = "toy",
    tokenizer: Any = None,
    data: Data | None = None,
    pairs: Data | None = None,
    reward: Reward | Sequence[Reward] | None = None,
    environment: Any = None,
    environment_factory: Any = None,
    tools: Sequence[Any] = (),
    eval_data: Data | None = None,
    resume: bool = False,
    accept_changes: bool = False,
    quiet: bool = False,
    **config: Any,
) -> Result:
    """Post-train a model.

    Args:
        method: a method or a composition, as in "dapo+gdpo", or a Method.
        model: a model folder, a hub id, "toy" (the small embedded model), or a model of transformers with its
            tokenizer, `model=(model, tokenizer)`: the object itself is trained.
        tokenizer: of a model object, where it is not given beside it.
        data: a file, a hub id, `reasoning_gym:TASK?...`, or rows with a `prompt`: mappings, a data frame, an Arrow table.
        pairs: completions to learn from in place of rollouts (beside them, where the method takes both): a file, a hub
            id, or rows with a `prompt` and either `chosen` and `rejected`, or `completion` and `label`.
        reward: one or more of NAME or WEIGHT*NAME (see `cohort score --help`), or functions
            f(prompts, completions, completion_ids, **columns) -> list of numbers; (WEIGHT, function) weighs one. They
            run in a process of their own, so that nothing they change is seen here, unless `reward_process="here"`.
        environment: what answers the policy turn by turn: `file.py:Class`, the name of one of another library
            (`gymnasium:ID`), a class with `reset(row, seed)` and `step(message)`, one with `reset(**row)` and methods that
            the policy may call (as in TRL), a function that makes one, or a mapping of names to these (a row's column
            `environment` names its own). Each episode has its own, in processes of their own. It may reward, so that
            `reward` can be left out.
        environment_factory: the same, by the name that it has in TRL.
        tools: functions that the policy may call, or `file.py:f,g`.
        eval_data: held-out data to evaluate on before and after.
        resume: continue the run that stands in `out`.
        accept_changes: continue it also with other data, rewards, initial weights or settings than before.
        quiet: print nothing.
        config: any further key of the configuration, as `steps=50`; sections as mappings, `checkpoint={"every": 10}`.

    Returns:
        the run's folder, the trained model's folder, metrics, and evaluations.

    Raises:
        UsageError: what was asked cannot be done; nothing was written.

    Example:
        >>> import cohort, tempfile
        >>> rows = [{"prompt": f"{a} + {b} =", "answer": str(a + b)} for a in range(5) for b in range(5)]
        >>> result = cohort.train(
        ...     "grpo", data=rows, reward="number", steps=2, prompts_per_step=2, group_size=4, max_new_tokens=8,
        ...     out=tempfile.mkdtemp() + "/run", quiet=True,
        ... )
        >>> [row["step"] for row in result.metrics]
        [1, 2]
        >>> sorted(p.name for p in result.folder.iterdir())
        ['checkpoints', 'config.yaml', 'final', 'metrics.jsonl', 'rollouts', 'summary.json', 'tensorboard']
    """
    given = GivenModel.of(_name(model), tokenizer)
    layer = {
        **_layer(data=data, pairs=pairs, eval_data=eval_data, reward=reward),
        **_answering(environment, environment_factory, tools),
        "model": _name(model) if given is None else given.name,
        **config,
    }
    made: Method | None = method if isinstance(method, Method) else None
    layer["method"] = made.name or "method" if made is not None else method
    resolved = make_config(layer)
    return run(
        resolved,
        method=made,
        resume=resume,
        accept_changes=accept_changes,
        display=Display(quiet=quiet),
        given=given,
        observers=observers(resolved),
    )


def _layer(*, reward: Any = None, **data: Any) -> dict[str, Any]:
    """Keys of what was given."""
    out = {name: _data(value) for name, value in data.items() if value is not None}
    return out if reward is None else {**out, "reward": reward}


def _answering(environment: Any, environment_factory: Any, tools: Sequence[Any]) -> dict[str, Any]:
    """Keys of what answers the policy.

    Raises:
        UsageError: the environment is given by both of its names.
    """
    if environment is not None and environment_factory is not None:
        raise UsageError("environment and environment_factory are one and the same: give one of them")
    found = environment if environment_factory is None else environment_factory
    out = {} if found is None else {"environment": found}
    return {**out, "tools": tools if isinstance(tools, str) else list(tools)} if tools else out


def _name(model: Any) -> Any:
    """A path as a name, and what is none as it is.

    Raises:
        UsageError: the path leads nowhere; it is never a name of the hub.
    """
    if isinstance(model, Path) and not model.exists():
        raise UsageError(f"model: there is no folder {model}")
    return str(model) if isinstance(model, Path) else model


def _data(value: Any) -> str | list[Any]:
    """Data by its name, or as rows: once and for all, since a generator gives them once.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(value, Path):
        # A path is never a name of the hub.
        return str(value) if value.exists() or len(value.parts) > 1 else f".{os.sep}{value}"
    return value if isinstance(value, (str, list)) else given_rows(value)


@_of_arguments
def evaluate(
    model: Model,
    *,
    tokenizer: Any = None,
    data: Data | None = None,
    reward: Reward | Sequence[Reward] | None = None,
    environment: Any = None,
    environment_factory: Any = None,
    tools: Sequence[Any] = (),
    samples: int = 1,
    limit: int | None = None,
    **config: Any,
) -> Evaluation:
    """Sample completions of every prompt and measure them.

    Args:
        model, tokenizer, data, reward, environment, environment_factory, tools: as in `train`.
        samples: completions of each prompt; one is greedy, several are drawn at `temperature` (default 1).
        limit: most prompts to use.
        config: further keys of the configuration, as `max_new_tokens=64` or `temperature=0.6`.

    Returns:
        pass@1, pass@k, maj@k, rewards and lengths, with 95 % intervals over problems.

    Raises:
        UsageError: what was asked cannot be done.

    Example:
        >>> import cohort
        >>> rows = [{"prompt": f"{a} + 1 =", "answer": str(a + 1)} for a in range(4)]
        >>> result = cohort.evaluate("toy", data=rows, reward="number", samples=2, max_new_tokens=8)
        >>> result.problems, result.samples, 0.0 <= result.accuracy <= 1.0
        (4, 2, True)
    """
    from cohort.training.evaluation import evaluate_model

    _whole("samples", samples, 1)
    _whole("limit", limit, 1)
    given = GivenModel.of(_name(model), tokenizer)
    layer = {
        **_layer(data=data, reward=reward),
        **_answering(environment, environment_factory, tools),
        "model": _name(model) if given is None else given.name,
        **config,
    }
    return evaluate_model(make_config(layer), samples=samples, limit=limit, given=given)


@_of_arguments
def compare(
    what: Sequence[str | Path | Method],
    *,
    seeds: int = 5,
    steps: int | None = None,
    tokens: int | None = None,
    model: str | Path | None = None,
    data: Data | None = None,
    eval_data: Data | None = None,
    reward: Reward | Sequence[Reward] | None = None,
    samples: int = 16,
    transfer: Mapping[str, str | Path] | None = None,
    target: float | None = None,
    out: str | Path | None = None,
    quiet: bool = False,
    **config: Any,
) -> Comparison:
    """Run methods on the same model, prompts, problems and seeds and compare them; or compare finished runs.

    Args:
        what: two or more methods or compositions; or folders of runs (`pathlib.Path`, or texts with a slash).
        seeds: runs of each method, with seeds from 0.
        steps: training steps of a run; default 40.
        tokens: sampled tokens at which each run ends, if it has not made its steps before.
        model, data, eval_data, reward: as in `train`; without `eval_data` a fifth of the data is held out.
        samples: completions of each evaluation problem; 0 measures none.
        transfer: name -> further data to measure on.
        target: accuracy to count tokens until; default: 90 % of the way of the weakest method that improved.
        out: folder of the comparison. Called again with the same one it goes on where it was interrupted.
        config: any further key of the configuration, for all runs.

    Returns:
        the folder with the report (report.html) and tables, and what they say (`findings`).

    Raises:
        UsageError: what was asked cannot be done; nothing was run.

    Example:
        >>> import cohort, tempfile
        >>> rows = [{"prompt": f"{a} + {b} =", "answer": str(a + b)} for a in range(5) for b in range(5)]
        >>> found = cohort.compare(
        ...     ["grpo", "dr-grpo"], data=rows, reward="number", seeds=2, steps=2, samples=2, prompts_per_step=2,
        ...     group_size=4, max_new_tokens=8, out=tempfile.mkdtemp() + "/compared", quiet=True,
        ... )
        >>> found.findings.entries, found.report.name
        (['grpo', 'dr-grpo'], 'report.html')
    """
    from cohort.experiments.compare import compare as run_all

    if model is not None and not isinstance(model, str | Path):
        raise UsageError("every run begins with the same model: give model a folder (model.save_pretrained writes one)")
    if isinstance(seeds, int) and seeds > 10_000:
        raise UsageError(f"seeds={seeds}: more than 10000 runs of each method are no comparison that ends")
    for name, value, least in (("seeds", seeds, 1), ("samples", samples, 0), ("tokens", tokens, 1)):
        _whole(name, value, least)
    options = {**_layer(data=data, eval_data=eval_data, reward=reward), **config}
    options |= {key: value for key, value in (("model", _name(model)), ("steps", steps)) if value is not None}
    make_config(options)
    return run_all(
        what,
        options=options,
        seeds=seeds,
        tokens=tokens,
        samples=samples,
        target=target,
        out=out,
        transfer={name: str(source) for name, source in (transfer or {}).items()},
        display=Display(quiet=quiet),
    )


def _whole(name: str, value: Any, least: int) -> None:
    """A number of things, or None.

    Raises:
        UsageError: it is no whole number from `least` on.
    """
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least or value > 2**53):
        raise UsageError(f"{name}={value!r}: a whole number from {least} on is expected")
