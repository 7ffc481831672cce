"""Everything a run can be told, in one place; the command line, the file and the resolved `config.yaml` all use it."""

from __future__ import annotations

import difflib
import json
import math
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, ValidationError, field_validator

from cohort.errors import UsageError, shown
from cohort.files import write_atomically
from cohort.rewards.spec import described, is_weighted
from cohort.training.reading import read_yaml, write_yaml
from cohort.training.values import (
    DATA,
    EVALUATION,
    MACHINE,
    MODEL,
    OPTIMISATION,
    OUTPUT,
    REWARDS,
    SAMPLING,
    AnyNumber,
    Count,
    Name,
    Number,
    Option,
    Text,
    kinds,
    number,
    text,
)


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", arbitrary_types_allowed=True, validate_assignment=True, allow_inf_nan=False
    )


class CheckpointConfig(_Section):
    """When checkpoints are written."""

    every: Count = Field(50, ge=1, description="steps between checkpoints")
    minutes: Number = Field(10.0, ge=0, description="minutes after which the next step writes one too; 0: never")
    keep: Count = Field(2, ge=1, description="checkpoints kept, the newest ones")


# Keys that rows can be given for, from Python, and those whose value can be a mapping of the user's own.
ROWS = ("data", "pairs", "eval_data")
WHOLE = (*ROWS, "logit_bias")


def _described_rows(rows: Any) -> str:
    size = f"{len(rows)} rows" if hasattr(rows, "__len__") else "rows"
    return f"<{size} given from Python>"


class TrainConfig(_Section):
    """Configuration of a training run."""

    # what
    method: Name = Field("grpo", description="a method or a composition, as in dapo+gdpo")
    model: Annotated[Name, Option(MODEL)] = Field("toy", description="model folder, hub id, or toy")
    data: Annotated[Any, Option(DATA)] = Field(
        None,
        description="file (.jsonl, .json, .csv, .tsv, .parquet), hub id or reasoning_gym:TASK?...; from Python also rows",
    )
    pairs: Annotated[Any, Option(DATA)] = Field(
        None,
        description="completions to learn from: rows with chosen and rejected, or completion and label; from Python also rows",
    )
    reward: Annotated[list[Any], Option(REWARDS, "REWARD")] = Field(
        default_factory=list,
        description="builtin (exact, number, math, task, format:REGEX, length[:N]) or file.py:function; WEIGHT*REWARD "
        "weighs it; from Python also functions and (weight, function)",
    )
    prompt_field: Annotated[Name | None, Option(DATA, "COLUMN")] = Field(
        None, description="column to use as the prompt"
    )
    answer_field: Annotated[Name | None, Option(DATA, "COLUMN")] = Field(
        None, description="column to use as the answer"
    )
    system: Annotated[Text | None, Option(DATA)] = Field(None, description="system message")
    template: Annotated[Name | None, Option(DATA)] = Field(
        None, description="prompt text with the row's fields in braces, or a file with it"
    )
    prompt_format: Annotated[Literal["auto", "chat", "text"], Option(DATA)] = Field(
        "auto",
        description="prompts that are plain texts: as they are (text), through the chat template (chat), or if there is one",
    )
    eval_data: Annotated[Any, Option(EVALUATION, "DATA")] = Field(
        None, description="held-out data to evaluate on, before, after and every eval_every steps"
    )
    eval_every: Annotated[Count, Option(EVALUATION, "STEPS")] = Field(
        0, ge=0, description="steps between evaluations on eval_data; 0: only before and after"
    )
    eval_size: Annotated[Count, Option(EVALUATION)] = Field(
        200, ge=1, description="most prompts of eval_data that are used"
    )

    # how much
    steps: Annotated[Count, Option(OPTIMISATION)] = Field(100, ge=1, description="training steps")
    max_tokens_sampled: Annotated[int, BeforeValidator(number)] = Field(
        0, ge=0, lt=2**53, description="sampled tokens after which the run ends, also before its last step; 0: no limit"
    )
    prompts_per_step: Annotated[Count, Option(SAMPLING)] = Field(16, ge=1, description="prompts drawn each step")
    group_size: Annotated[Count, Option(SAMPLING)] = Field(8, ge=1, description="rollouts of each prompt")
    updates: Annotated[Count, Option(OPTIMISATION)] = Field(
        1, ge=1, description="minibatches that a step's rollouts are cut into, an update each"
    )
    epochs: Annotated[Count, Option(OPTIMISATION)] = Field(1, ge=1, description="passes over a step's rollouts")
    micro_tokens: Annotated[Count | None, Option(MACHINE)] = Field(
        None,
        ge=1,
        description="most tokens in one forward pass with gradient; none: as many as the machine works best with",
    )
    activations: Annotated[Literal["keep", "checkpoint", "stream"], Option(MACHINE)] = Field(
        "keep",
        description="what is kept for the backward pass: all; each layer's input; the same, in chunks of the sequence",
    )
    compile: Annotated[bool | Literal["auto"], Option(MACHINE)] = Field(
        "auto", description="compile the model's layers for the update; auto: on a GPU, in runs of 1000 steps or more"
    )

    # sampling
    max_new_tokens: Annotated[Count, Option(SAMPLING)] = Field(256, ge=1, description="most tokens of a rollout")
    temperature: Annotated[Number, Option(SAMPLING)] = Field(
        1.0, ge=1e-6, le=1e4, description="sampling temperature; the trainer scores at the same"
    )
    top_p: Annotated[Number, Option(SAMPLING)] = Field(1.0, gt=0, le=1, description="nucleus sampling")
    top_k: Annotated[Count, Option(SAMPLING)] = Field(
        0, ge=0, description="most likely tokens that can be drawn; 0: all"
    )
    min_p: Annotated[Number, Option(SAMPLING)] = Field(
        0.0, ge=0, le=1, description="least share of the most likely token's probability"
    )
    min_new_tokens: Annotated[Count, Option(SAMPLING)] = Field(
        0, ge=0, description="tokens of a rollout before which nothing can end it"
    )
    stop: Annotated[list[Text], Option(SAMPLING)] = Field(
        default_factory=list, description="texts that end a rollout; they are cut off its text"
    )
    stop_token_ids: list[Count] = Field(
        default_factory=list, description="token ids that end a rollout, beside the model's"
    )
    special_tokens: Literal["content", "all", "none"] | list[Name] = Field(
        "content",
        description="special tokens that rewards see: those that do not end, pad or frame a turn; all; none; or their texts",
    )
    logit_bias: dict[StrictInt | Name, AnyNumber] = Field(
        default_factory=dict,
        description="token id, or text of one token -> what is added to its logit (-100 excludes it)",
    )
    slots: Count = Field(128, ge=1, description="rollouts decoded at once")
    cache_mb: Number | None = Field(
        None, gt=0, le=1e9, description="most megabytes of keys and values while sampling; none sets no bound"
    )
    engine: Annotated[Literal["native", "vllm"], Option(MACHINE)] = Field(
        "native", description="what draws: the embedded engine, or vLLM"
    )
    engine_url: Annotated[Name | None, Option(MACHINE, "URL")] = Field(
        None, description="address of a vLLM server; without it, vLLM runs in this process"
    )
    engine_weights: Literal["folder", "memory"] | None = Field(
        None,
        description="how weights reach vLLM: through a folder, or by CUDA IPC or NCCL; default: what its place allows",
    )
    engine_folder: Name | None = Field(None, description="folder that the vLLM server sees too, for weights to pass")
    engine_memory: Number = Field(0.4, gt=0, lt=1, description="share of the GPU's memory for a vLLM in this process")
    engine_timeout: Number = Field(600.0, gt=0, le=1e6, description="seconds that a vLLM server may take for a rollout")
    old_logp: Literal["auto", "sampler", "score"] = Field(
        "auto", description="where old log-probabilities come from when a step has several updates"
    )

    correction: Literal["auto", "off"] = Field(
        "auto",
        description="auto: a method without a correction of its own takes rollout-correction's where the engine is not exact",
    )

    # optimisation
    lr: Annotated[Number, Option(OPTIMISATION)] = Field(1e-6, gt=0, description="learning rate")
    weight_decay: Annotated[Number, Option(OPTIMISATION)] = Field(0.0, ge=0, description="decoupled weight decay")
    warmup: Annotated[Count, Option(OPTIMISATION, "STEPS")] = Field(
        0, ge=0, description="steps over which the learning rate rises"
    )
    schedule: Annotated[Literal["constant", "cosine"], Option(OPTIMISATION)] = Field(
        "constant", description="learning rate after the warm-up"
    )
    grad_clip: Annotated[Number, Option(OPTIMISATION)] = Field(1.0, gt=0, description="largest gradient norm")

    # the machine
    device: Annotated[Name, Option(MACHINE)] = Field(
        "auto", description="where the model is: auto (a GPU if there is one), cpu, cuda, cuda:N"
    )
    dtype: Annotated[Literal["auto", "float32", "bfloat16"], BeforeValidator(text), Option(MODEL)] = Field(
        "auto", description="type of the weights; auto: float32 on a CPU, bfloat16 on a GPU"
    )
    lora: Annotated[Count, Option(MODEL, "RANK")] = Field(
        0, ge=0, description="rank of low-rank adapters; 0 trains the whole model"
    )
    bos: Annotated[bool, Option(MODEL)] = Field(
        False, description="begin every prompt with the beginning-of-sequence token"
    )
    trust_remote_code: Annotated[bool, Option(MODEL)] = Field(False, description="run code that comes with the model")
    threads: Annotated[Count, Option(MACHINE)] = Field(
        0, ge=0, le=1024, description="CPU threads; 0 leaves torch's choice"
    )

    # rewards
    accuracy: Annotated[Name | None, Option(REWARDS, "REWARD")] = Field(
        None, description="reward that says what is correct; default: the first verifier"
    )
    correct_at: Number = Field(1.0, description="value of that reward from which a rollout counts as correct")
    reward_timeout: Annotated[Number, Option(REWARDS, "SECONDS")] = Field(
        60.0, gt=0, le=1e6, description="seconds that a reward function, or a judge, may take for a batch"
    )
    on_reward_error: Annotated[Literal["stop", "zero", "skip"], Option(REWARDS)] = Field(
        "stop", description="what to do when a reward function fails: end the run, count 0, or leave the rollout out"
    )
    reward_process: Annotated[Literal["worker", "here"], Option(REWARDS)] = Field(
        "worker",
        description="where reward functions run: in a process of their own, or in this one, with no time limit",
    )

    # the run
    seed: Annotated[int, BeforeValidator(number), Option(SAMPLING)] = Field(
        0, ge=0, lt=2**63, description="the same seed gives the same run"
    )
    out: Annotated[Name | None, Option(OUTPUT, "DIR")] = Field(
        None, description="folder of the run; default: runs/ and a name made of method and model"
    )
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig, description="checkpoints")
    record: Annotated[Literal["none", "rollouts", "sampled", "tokens"], Option(OUTPUT)] = Field(
        "sampled",
        description="of recorded rollouts: nothing, all but their tokens' numbers, these for some groups, or for all",
    )
    record_every: Count = Field(1, ge=0, description="steps between recorded rollouts; 0 records none")
    record_limit_mb: Count = Field(2000, ge=1, description="most megabytes that a run's recorded rollouts may take")
    show_every: Count = Field(
        25, ge=0, description="steps between rollouts shown on screen, from the first on; 0: none"
    )
    doctor: bool = Field(True, description="say what goes wrong as soon as the metrics show it (see doctor.md)")
    tensorboard: bool = Field(True, description="write TensorBoard events")
    wandb: Annotated[Name | None, Option(OUTPUT, "PROJECT")] = Field(
        None, description="Weights & Biases project to log to"
    )

    @field_validator("reward", "stop", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        alone = isinstance(value, str) or callable(value) or is_weighted(value)
        return [value] if alone else value

    @field_validator("reward")
    @classmethod
    def _rewards(cls, value: list[Any]) -> list[Any]:
        for each in value:
            if not (isinstance(each, str) or callable(each) or is_weighted(each)):
                raise ValueError(f"{each!r} is no reward: name one, or give a function or (weight, function)")
        return value

    @field_validator("data", "pairs", "eval_data", mode="before")
    @classmethod
    def _source(cls, value: Any) -> Any:
        if isinstance(value, bool | int | float | bytes) or value == "":
            raise ValueError("Input should be a file, a hub id or rows")
        if isinstance(value, Iterator):
            return list(value)
        return text(value)

    @field_validator("logit_bias")
    @classmethod
    def _finite(cls, value: dict[int | str, float]) -> dict[int | str, float]:
        for token, bias in value.items():
            if not math.isfinite(bias):
                raise ValueError(f"{token!r} has {bias}, which is no number; -100 is enough to exclude a token")
        return value

    def plain(self) -> dict[str, Any]:
        """The configuration as numbers, texts and lists, complete.

        What came from Python and has no text (rows, functions) is described, not stored.
        """
        out = self.model_dump(mode="python", exclude=set(ROWS))
        out = {key: out.get(key) for key in TrainConfig.model_fields}
        out["reward"] = [described(each) for each in self.reward]
        for key in ROWS:
            value = getattr(self, key)
            out[key] = value if value is None or isinstance(value, str) else _described_rows(value)
        return out

    def save(self, path: Path) -> None:
        """Write the resolved configuration."""
        text = write_yaml(self.plain())
        write_atomically(path, lambda aside: aside.write_text(text, encoding="utf-8"))


SECTIONS = {
    name: info.annotation
    for name, info in TrainConfig.model_fields.items()
    if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)
}


def keys() -> list[str]:
    """All configuration keys, sections dotted."""
    return [
        key
        for name in TrainConfig.model_fields
        for key in ([f"{name}.{inner}" for inner in SECTIONS[name].model_fields] if name in SECTIONS else [name])
    ]


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        head, dot, tail = key.partition(".")
        if dot and not isinstance(out.setdefault(head, {}), dict):
            raise UsageError(f"'{head}' is given both as a whole and as '{key}'")
        if dot:
            out[head][tail] = value
        else:
            out[head] = value
    return out


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of sections dotted: {"checkpoint": {"every": 3}} -> {"checkpoint.every": 3}."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        if key in SECTIONS and isinstance(value, Mapping):
            out.update({f"{key}.{inner}": each for inner, each in value.items()})
        else:
            out[key] = value
    return out


@dataclass(frozen=True)
class Layer:
    """Keys from one place, with how a key and its value are written there, for messages that speak of them."""

    values: Mapping[str, Any]
    written: Callable[[str, Any], str]


def from_options(values: Mapping[str, Any]) -> Layer:
    """Keys given as options of the command line."""
    return Layer(values, lambda key, value: f"--{key.replace('_', '-')} {_quoted(value)}")


def from_set(items: list[str]) -> Layer:
    """Keys given as `KEY=VALUE` with --set.

    Raises:
        UsageError: as `parse_set`.
    """
    return Layer(parse_set(items), lambda key, value: f"--set {key}={_quoted(value)}")


def from_file(path: Path) -> Layer:
    """Keys of a configuration file.

    Raises:
        UsageError: as `read_config`; or what a key names was given from Python, and does not stand in the file.
    """
    values = read_config(path)
    for key in (*ROWS, "model", "reward"):
        for value in values[key] if isinstance(values.get(key), list) else [values.get(key)]:
            if isinstance(value, str) and value.endswith(">") and _GIVEN.search(value):
                raise UsageError(
                    f"{path}: {key} was given from Python ({value}): name it, or start the run from Python"
                )
    return Layer(values, lambda key, value: f"{path}: {key} = {shown(value)}")


_GIVEN = re.compile(r"<(?:Python function .*|.* given from Python)>$")


def from_python(values: Mapping[str, Any]) -> Layer:
    """Keys given as arguments."""
    return Layer(values, lambda key, value: f"{key}={shown(value)}")


def _quoted(value: Any) -> str:
    return _cut(shlex.quote(value if isinstance(value, str) else json.dumps(value, default=str)))


def _cut(text: str, most: int = 200) -> str:
    return text if len(text) <= most else f"{text[: most - 40]}...{text[-30:]}"


def make_config(*layers: Layer | Mapping[str, Any]) -> TrainConfig:
    """A configuration from layers of keys, later ones winning; sections may be nested or dotted.

    Raises:
        UsageError: unknown key (with near names), or a value of the wrong type or out of range.
    """
    merged: dict[str, Any] = {}
    written: dict[str, Callable[[str, Any], str]] = {}
    for layer in (each if isinstance(each, Layer) else from_python(each) for each in layers):
        flat = _flat(layer.values)
        merged.update(flat)
        written.update(dict.fromkeys(flat, layer.written))
    known = keys()
    for key in merged:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"keys are {', '.join(known)}"
            raise UsageError(f"{written[key](key, merged[key])}: there is no key '{_cut(key)}'; {hint}")
    try:
        return TrainConfig(**_nested(merged))
    except ValidationError as error:
        raise UsageError(_said(error, written)) from error


def _said(error: ValidationError, written: Mapping[str, Callable[[str, Any], str]]) -> str:
    """The first thing that is wrong, as it was written where it was given."""
    first = error.errors()[0]
    where = [str(part) for part in first["loc"]]
    key = next((k for size in range(len(where), 0, -1) if (k := ".".join(where[:size])) in written), "")
    value = first.get("input")
    at = written[key](key, value) if key else f"{'.'.join(where)}={shown(value)}"
    return f"{at}: {first['msg'].removeprefix('Value error, ')}"


def read_config(path: Path) -> dict[str, Any]:
    """Keys of a configuration file (YAML).

    Raises:
        UsageError: no such file, or no mapping of keys.
    """
    try:
        written = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        why = "it is no text in UTF-8" if isinstance(error, UnicodeDecodeError) else getattr(error, "strerror", error)
        raise UsageError(f"--config: {path} cannot be read: {why}") from error
    values = read_yaml(written, f"--config: {path}")
    if not isinstance(values, dict):
        what = "nothing" if values is None else shown(values)
        raise UsageError(f"--config: {path} holds no keys but {what}: write KEY: VALUE, a line each")
    for key in values:
        if not isinstance(key, str):
            raise UsageError(f"--config: {path}: {key!r} is no key: keys are texts, as in steps: 50")
    _refuse_rows(values, lambda key: f"--config: {path}: {key}")
    return values


def parse_set(items: list[str]) -> dict[str, Any]:
    """`KEY=VALUE` texts, values read as YAML; where a key takes a text, as they stand.

    Raises:
        UsageError: no `=`, or a value that cannot be read.
    """
    out: dict[str, Any] = {}
    for item in items:
        key, equals, written = item.partition("=")
        key = key.strip()
        if not equals:
            raise UsageError(f"--set {_cut(item)}: write KEY=VALUE")
        value = read_yaml(written, f"--set {_cut(item)}")
        # The text 5 of a key that takes texts is no number.
        if takes_text(key) and isinstance(value, bool | int | float):
            value = written.strip()
        out[key] = value
    _refuse_rows(out, lambda key: f"--set {key}")
    return out


def takes_text(key: str) -> bool:
    """True for a key whose value is a text, also where it looks like a number."""
    info = TrainConfig.model_fields.get(key)
    types = set() if info is None else kinds(info.annotation)
    return key in (*ROWS, "reward", "stop") or (str in types and bool not in types)


def _refuse_rows(values: Mapping[str, Any], name: Callable[[str], str]) -> None:
    """Rows come from Python or stand in a file of their own: config.yaml could not repeat the run."""
    for key in ROWS:
        if isinstance(values.get(key), list | dict):
            raise UsageError(
                f"{name(key)} takes a file, a hub id or reasoning_gym:TASK?...: write the rows into a file"
            )
