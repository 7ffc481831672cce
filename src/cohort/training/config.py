"""Everything a run can be told, in one place; the command line, the file and the resolved `config.yaml` all use it."""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cohort.errors import UsageError

# Groups of options, as the help of a command shows them.
MODEL, DATA, REWARDS, EVALUATION = "Model", "Data", "Rewards", "Evaluation"
SAMPLING, OPTIMISATION, MACHINE, OUTPUT = "Sampling", "Optimisation", "Machine", "Output"


@dataclass(frozen=True)
class Option:
    """Marks a key that has an option of its own, in every command where its group means something (`cohort.cli.options`).

    Attributes:
        panel: group of the help.
        metavar: what stands for the value in the help; None says its type.
    """

    panel: str
    metavar: str | None = None


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, validate_assignment=True)


class CheckpointConfig(_Section):
    """When checkpoints are written."""

    every: int = Field(50, ge=1, description="steps between checkpoints")
    keep: int = Field(2, ge=1, description="checkpoints kept, the newest ones")


# Keys whose value can be a mapping of the user's own.
WHOLE = ("data", "pairs", "eval_data", "logit_bias")


class TrainConfig(_Section):
    """Configuration of a training run."""

    # what
    method: str = Field("grpo", description="a method or a composition, as in dapo+gdpo")
    model: Annotated[str, Option(MODEL)] = Field("nursery", description="model folder, hub id, or nursery")
    data: Annotated[Any, Option(DATA)] = Field(
        None, description="data file, hub id or reasoning_gym:TASK?...; rows, from Python"
    )
    pairs: Annotated[Any, Option(DATA)] = Field(
        None, description="file of completions with preferences or labels, to learn from; rows, from Python"
    )
    reward: Annotated[list[Any], Option(REWARDS, "REWARD")] = Field(
        default_factory=list, description="rewards, each NAME or WEIGHT*NAME"
    )
    prompt_field: Annotated[str | None, Option(DATA, "COLUMN")] = Field(None, description="column to use as the prompt")
    answer_field: Annotated[str | None, Option(DATA, "COLUMN")] = Field(None, description="column to use as the answer")
    system: Annotated[str | None, Option(DATA)] = Field(None, description="system message")
    template: Annotated[str | None, Option(DATA)] = Field(
        None, description="prompt text with the row's fields in braces, or a file with it"
    )
    eval_data: Annotated[Any, Option(EVALUATION, "DATA")] = Field(None, description="held-out data")
    eval_every: Annotated[int, Option(EVALUATION, "STEPS")] = Field(
        0, ge=0, description="steps between evaluations on eval_data; 0: only before and after"
    )
    eval_size: Annotated[int, Option(EVALUATION)] = Field(
        200, ge=1, description="most prompts of eval_data that are used"
    )

    # how much
    steps: Annotated[int, Option(OPTIMISATION)] = Field(100, ge=1, description="training steps")
    max_tokens_sampled: int = Field(
        0, ge=0, description="sampled tokens after which the run ends, also before its last step; 0: no limit"
    )
    prompts_per_step: Annotated[int, Option(SAMPLING)] = Field(16, ge=1, description="prompts drawn each step")
    group_size: Annotated[int, Option(SAMPLING)] = Field(8, ge=1, description="rollouts of each prompt")
    updates: Annotated[int, Option(OPTIMISATION)] = Field(
        1, ge=1, description="minibatches that a step's rollouts are cut into, an update each"
    )
    epochs: Annotated[int, Option(OPTIMISATION)] = Field(1, ge=1, description="passes over a step's rollouts")
    micro_tokens: Annotated[int | None, Option(MACHINE)] = Field(
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
    max_new_tokens: Annotated[int, Option(SAMPLING)] = Field(256, ge=1, description="most tokens of a rollout")
    temperature: Annotated[float, Option(SAMPLING)] = Field(
        1.0, gt=0, description="sampling temperature; the trainer scores at the same"
    )
    top_p: Annotated[float, Option(SAMPLING)] = Field(1.0, gt=0, le=1, description="nucleus sampling")
    top_k: Annotated[int, Option(SAMPLING)] = Field(0, ge=0, description="most likely tokens that can be drawn; 0: all")
    min_p: Annotated[float, Option(SAMPLING)] = Field(
        0.0, ge=0, le=1, description="least share of the most likely token's probability"
    )
    min_new_tokens: Annotated[int, Option(SAMPLING)] = Field(
        0, ge=0, description="tokens of a rollout before which nothing can end it"
    )
    stop: Annotated[list[str], Option(SAMPLING)] = Field(
        default_factory=list, description="texts that end a rollout; they are cut off its text"
    )
    stop_token_ids: list[int] = Field(
        default_factory=list, description="token ids that end a rollout, beside the model's"
    )
    logit_bias: dict[int | str, float] = Field(
        default_factory=dict,
        description="token id, or text of one token -> what is added to its logit (-100 excludes it)",
    )
    slots: int = Field(128, ge=1, description="rollouts decoded at once")
    cache_mb: float | None = Field(
        None, gt=0, description="most megabytes of keys and values while sampling; none sets no bound"
    )
    engine: Annotated[Literal["native", "vllm"], Option(MACHINE)] = Field(
        "native", description="what draws: the embedded engine, or vLLM"
    )
    engine_url: Annotated[str | None, Option(MACHINE, "URL")] = Field(
        None, description="of a vLLM server; without it, vLLM runs in this process"
    )
    engine_weights: Literal["folder", "memory"] | None = Field(
        None,
        description="how weights reach vLLM: through a folder, or by CUDA IPC or NCCL; default: what its place allows",
    )
    engine_folder: str | None = Field(None, description="folder that the vLLM server sees too, for weights to pass")
    engine_memory: float = Field(0.4, gt=0, lt=1, description="share of the GPU's memory for a vLLM in this process")
    engine_timeout: float = Field(600.0, gt=0, description="seconds that a vLLM server may take for a rollout")
    old_logp: Literal["auto", "sampler", "score"] = Field(
        "auto", description="where old log-probabilities come from when a step has several updates"
    )

    correction: Literal["auto", "off"] = Field(
        "auto",
        description="auto: a method without a correction of its own takes rollout-correction's where the engine is not exact",
    )

    # optimisation
    lr: Annotated[float, Option(OPTIMISATION)] = Field(1e-6, gt=0, description="learning rate")
    weight_decay: Annotated[float, Option(OPTIMISATION)] = Field(0.0, ge=0, description="decoupled weight decay")
    warmup: Annotated[int, Option(OPTIMISATION, "STEPS")] = Field(
        0, ge=0, description="steps over which the learning rate rises"
    )
    schedule: Annotated[Literal["constant", "cosine"], Option(OPTIMISATION)] = Field(
        "constant", description="learning rate after the warm-up"
    )
    grad_clip: Annotated[float, Option(OPTIMISATION)] = Field(1.0, gt=0, description="largest gradient norm")

    # the machine
    device: Annotated[str, Option(MACHINE)] = Field("auto", description="auto, cpu, cuda, cuda:1")
    dtype: Annotated[Literal["auto", "float32", "bfloat16"], Option(MODEL)] = Field(
        "auto", description="of the model; auto: by device"
    )
    lora: Annotated[int, Option(MODEL, "RANK")] = Field(
        0, ge=0, description="rank of low-rank adapters; 0 trains the whole model"
    )
    bos: Annotated[bool, Option(MODEL)] = Field(
        False, description="begin every prompt with the beginning-of-sequence token"
    )
    trust_remote_code: Annotated[bool, Option(MODEL)] = Field(False, description="run code that comes with the model")
    threads: Annotated[int, Option(MACHINE)] = Field(0, ge=0, description="CPU threads; 0 leaves torch's choice")

    # rewards
    accuracy: Annotated[str | None, Option(REWARDS, "REWARD")] = Field(
        None, description="reward that says what is correct; default: the first verifier"
    )
    correct_at: float = Field(1.0, description="value of that reward from which a rollout counts as correct")
    reward_timeout: Annotated[float, Option(REWARDS, "SECONDS")] = Field(
        60.0, gt=0, description="seconds that a reward function may take for a batch"
    )
    on_reward_error: Annotated[Literal["stop", "zero", "skip"], Option(REWARDS)] = Field(
        "stop", description="what to do when one fails"
    )

    # the run
    seed: Annotated[int, Option(SAMPLING)] = Field(0, ge=0, description="the same seed gives the same run")
    out: Annotated[str | None, Option(OUTPUT, "DIR")] = Field(
        None, description="folder of the run; default: runs/ and a name made of the above"
    )
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig, description="checkpoints")
    record: Annotated[Literal["none", "rollouts", "sampled", "tokens"], Option(OUTPUT)] = Field(
        "sampled",
        description="of recorded rollouts: nothing, all but their tokens' numbers, these for some groups, or for all",
    )
    record_every: int = Field(1, ge=0, description="steps between recorded rollouts; 0 records none")
    record_limit_mb: int = Field(2000, ge=1, description="most megabytes that a run's recorded rollouts may take")
    show_every: int = Field(25, ge=0, description="steps between rollouts shown on screen; 0 shows none")
    doctor: bool = Field(True, description="say what goes wrong as soon as the metrics show it (see doctor.md)")
    tensorboard: bool = Field(True, description="write TensorBoard events")
    wandb: Annotated[str | None, Option(OUTPUT, "PROJECT")] = Field(
        None, description="Weights & Biases project to log to"
    )

    @field_validator("reward", "stop", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) or callable(value) else value

    def plain(self) -> dict[str, Any]:
        """The configuration as numbers, texts and lists, complete.

        What came from Python and has no text (rows, functions) is described, not stored.
        """
        out = self.model_dump(mode="python")
        out["reward"] = [
            r if isinstance(r, str) else f"<Python function {getattr(r, '__name__', r)}>" for r in self.reward
        ]
        for key in ("data", "pairs", "eval_data"):
            value = out[key]
            if isinstance(value, Path):
                out[key] = str(value)
            elif value is not None and not isinstance(value, str):
                out[key] = f"<{len(value)} rows given from Python>"
        return out

    def save(self, path: Path) -> None:
        """Write the resolved configuration."""
        path.write_text(yaml.safe_dump(self.plain(), sort_keys=False, allow_unicode=True), encoding="utf-8")


def keys() -> list[str]:
    """All configuration keys, sections dotted."""
    out = []
    for name, info in TrainConfig.model_fields.items():
        section = info.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            out += [f"{name}.{inner}" for inner in section.model_fields]
        else:
            out.append(name)
    return out


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        head, _, tail = key.partition(".")
        if tail:
            inner = out.setdefault(head, {})
            if not isinstance(inner, dict):
                raise UsageError(f"configuration: '{head}' is given both as a whole and as '{key}'")
            inner[tail] = value
        elif isinstance(value, Mapping) and isinstance(out.get(head), dict):
            out[head].update(value)
        else:
            out[head] = dict(value) if isinstance(value, Mapping) else value
    return out


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and key in TrainConfig.model_fields and key not in WHOLE:
            out.update(_flat(value, f"{prefix}{key}."))
        else:
            out[prefix + key] = value
    return out


@dataclass(frozen=True)
class Layer:
    """Keys from one place, with how a key and its value are written there, for messages that speak of them."""

    values: Mapping[str, Any]
    written: Callable[[str, Any], str]


def from_options(values: Mapping[str, Any]) -> Layer:
    """Keys given as options of the command line."""
    return Layer(values, lambda key, value: f"--{key.replace('_', '-')} {_quoted(value)}")


def from_set(values: Mapping[str, Any]) -> Layer:
    """Keys given with --set."""
    return Layer(values, lambda key, value: f"--set {key}={_quoted(value)}")


def from_file(path: Path) -> Layer:
    """Keys of a configuration file.

    Raises:
        UsageError: as `read_config`.
    """
    return Layer(read_config(path), lambda key, value: f"{path}: {key} = {value!r}")


def from_python(values: Mapping[str, Any]) -> Layer:
    """Keys given as arguments."""
    return Layer(values, lambda key, value: f"{key}={value!r}")


def _quoted(value: Any) -> str:
    return shlex.quote(value if isinstance(value, str) else json.dumps(value, default=str))


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
            raise UsageError(f"{written[key](key, merged[key])}: there is no key '{key}'; {hint}")
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
    at = written[key](key, value) if key else f"{'.'.join(where)} = {value!r}"
    return f"{at}: {first['msg']}"


def read_config(path: Path) -> dict[str, Any]:
    """Keys of a configuration file (YAML).

    Raises:
        UsageError: no such file, or no mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--config: {path} is no text in UTF-8") from error
    except yaml.YAMLError as error:
        raise UsageError(f"--config: {path} is malformed: {error}") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UsageError(f"--config: {path} holds no keys")
    return values


def parse_set(items: list[str]) -> dict[str, Any]:
    """`KEY=VALUE` texts, values read as YAML.

    Raises:
        UsageError: no `=`.
    """
    out: dict[str, Any] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"--set {item}: write KEY=VALUE")
        try:
            out[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UsageError(
                f"--set {item}: the value cannot be read as YAML; quote a text that holds brackets"
            ) from error
    return out
