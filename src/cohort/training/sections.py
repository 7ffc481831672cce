"""The sections of a configuration: every key with its type, its default and what it means."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictInt

from cohort.analysis.configuration import RENAMED
from cohort.errors import Renamed
from cohort.rewards.spec import is_weighted
from cohort.training.values import (
    DATA,
    EPISODES,
    EVALUATION,
    MACHINE,
    MODEL,
    OPTIMISATION,
    OUTPUT,
    SAMPLING,
    AnyNumber,
    Count,
    Name,
    Number,
    Option,
    Text,
    number,
    text,
)


class Section(BaseModel):
    """Keys that belong together."""

    model_config = ConfigDict(
        extra="forbid", arbitrary_types_allowed=True, validate_assignment=True, allow_inf_nan=False
    )


def one_or_many(value: Any) -> Any:
    """One text, function or (weight, function) as a list of it."""
    return [value] if isinstance(value, str) or callable(value) or is_weighted(value) else value


def urls(value: Any) -> Any:
    """Addresses, as a list; an older run's may be one text, or none at all."""
    return [] if value is None else one_or_many(value)


def of_environment(value: Any) -> Any:
    """A name of an environment, or what makes one, or several by name."""
    if value is None or (callable(value) and not isinstance(value, str)):
        return value
    if isinstance(value, Mapping) and value and all(isinstance(name, str) for name in value):
        return {name: of_environment(each) for name, each in value.items()}
    value = text(value)
    if not isinstance(value, str) or not value:
        raise ValueError("Input should be path.py:Class, the name of an adapter, a class or a function that makes one")
    return value


def of_tools(value: list[Any]) -> list[Any]:
    """Each is a tool."""
    for each in value:
        if not (isinstance(each, str) or callable(each)):
            raise ValueError(f"{each!r} is no tool: name one, as in path.py:function, or give a function")
    return value


def source(value: Any) -> Any:
    """A place that rows can be read from, or rows."""
    if isinstance(value, bool | int | float | bytes) or value == "":
        raise ValueError("Input should be a file, a hub id or rows")
    if isinstance(value, Iterator):
        return list(value)
    return text(value)


def finite(value: dict[int | str, float]) -> dict[int | str, float]:
    """Each bias is a number."""
    for token, bias in value.items():
        if not math.isfinite(bias):
            raise ValueError(f"{token!r} has {bias}, which is no number; -100 is enough to exclude a token")
    return value


def current(model: str) -> str:
    """The name that a model has now; says so of one that it had before."""
    if model not in RENAMED:
        return model
    warnings.warn(f"the model {model} is called {RENAMED[model]} now", Renamed, stacklevel=1)
    return RENAMED[model]


class PolicyConfig(Section):
    """The model that is trained, and how it is loaded."""

    model: Annotated[Name, AfterValidator(current), Option(MODEL)] = Field(
        "toy", description="model folder, hub id, or toy"
    )
    agent_models: Annotated[list[Name], BeforeValidator(one_or_many), Option(MODEL, "AGENT=MODEL")] = Field(
        default_factory=list,
        description="models of agents that have one of their own, as name=folder; the others share the model",
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
    teacher: Annotated[Name | None, Option(MODEL)] = Field(
        None, description="another model with the same tokens, for methods that learn from one: folder, hub id, or toy"
    )


class DatasetConfig(Section):
    """What is learnt from, and how its rows become prompts."""

    data: Annotated[Any, BeforeValidator(source), Option(DATA)] = Field(
        None,
        description="file (.jsonl, .json, .csv, .tsv, .parquet), hub id or reasoning_gym:TASK?...; from Python also rows",
    )
    pairs: Annotated[Any, BeforeValidator(source), Option(DATA)] = Field(
        None,
        description="completions to learn from: rows with chosen and rejected, or completion and label; from Python also rows",
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


class EpisodesConfig(Section):
    """What answers the policy, turn by turn, and where an episode ends that does not end by itself."""

    environment: Annotated[Any, BeforeValidator(of_environment), Option(EPISODES, "ENVIRONMENT")] = Field(
        None,
        description="file.py:Class, or the name of one of another library (gymnasium:ID, ...), or several as "
        "name=file.py:Class,other=file.py:Other (a column environment names a row's); from Python also a class, a function "
        "that makes one, or a mapping of names to these",
    )
    tools: Annotated[list[Any], BeforeValidator(one_or_many), AfterValidator(of_tools), Option(EPISODES, "TOOLS")] = (
        Field(
            default_factory=list,
            description="functions that the policy may call, as file.py:f,g; from Python also functions",
        )
    )
    max_tool_calling_iterations: Count | None = Field(
        None, ge=0, description="most turns whose tool calls are answered; none sets no limit"
    )
    max_turns: Annotated[Count | None, Option(EPISODES, "TURNS")] = Field(
        None, ge=1, description="most turns of an episode; none sets no limit"
    )
    turn_tokens: Annotated[Count | None, Option(EPISODES, "TOKENS")] = Field(
        None,
        ge=1,
        description="most tokens of a turn (max_new_tokens limits the whole episode); a turn that is cut ends it",
    )
    episode_seconds: Annotated[Number | None, Option(EPISODES, "SECONDS")] = Field(
        None, gt=0, le=1e9, description="wall-clock seconds after which an episode ends with the next answer"
    )
    environment_timeout: Annotated[Number, Option(EPISODES, "SECONDS")] = Field(
        60.0, gt=0, le=1e6, description="seconds that an environment may take to begin, and for each answer"
    )
    environment_processes: Annotated[Count | None, Option(EPISODES)] = Field(
        None, ge=1, le=1024, description="processes that environments live in; none: one a processor, at most four"
    )
    history: Annotated[Literal["auto", "append", "rebuild"], Option(EPISODES)] = Field(
        "auto",
        description="turns stand behind what was sampled before (append), in the context that the chat template writes anew "
        "every turn (rebuild), or there only where the template rewrites what was said (auto)",
    )
    failed_episodes: Annotated[Literal["drop", "redraw"], Option(EPISODES)] = Field(
        "drop",
        description="a group that failed environments leave too small is left out, or drawn again (twice at most)",
    )


class EvaluationConfig(Section):
    """What the model is measured on."""

    eval_data: Annotated[Any, BeforeValidator(source), Option(EVALUATION, "DATA")] = Field(
        None, description="held-out data to evaluate on, before, after and every eval_every steps"
    )
    eval_every: Annotated[Count, Option(EVALUATION, "STEPS")] = Field(
        0, ge=0, description="steps between evaluations on eval_data; 0: only before and after"
    )
    eval_size: Annotated[Count, Option(EVALUATION)] = Field(
        200, ge=1, description="most prompts of eval_data that are used"
    )


class SamplingConfig(Section):
    """How many rollouts are drawn, and how."""

    prompts_per_step: Annotated[Count, Option(SAMPLING)] = Field(16, ge=1, description="prompts drawn each step")
    group_size: Annotated[Count, Option(SAMPLING)] = Field(8, ge=1, description="rollouts of each prompt")
    max_new_tokens: Annotated[Count, Option(SAMPLING)] = Field(256, ge=1, description="most tokens of a rollout")
    min_new_tokens: Annotated[Count, Option(SAMPLING)] = Field(
        0, ge=0, description="tokens of a rollout before which nothing can end it"
    )
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
    stop: Annotated[list[Text], BeforeValidator(one_or_many), Option(SAMPLING)] = Field(
        default_factory=list, description="texts that end a rollout; they are cut off its text"
    )
    stop_token_ids: list[Count] = Field(
        default_factory=list, description="token ids that end a rollout, in addition to the model's"
    )
    logit_bias: Annotated[dict[StrictInt | Name, AnyNumber], AfterValidator(finite)] = Field(
        default_factory=dict,
        description="token id, or text of one token -> what is added to its logit (-100 excludes it)",
    )


class SharingConfig(Section):
    """Rollouts that runs share with each other."""

    share_folder: Annotated[Name | None, Option(SAMPLING, "FOLDER")] = Field(
        None, description="folder, or address that fsspec knows (s3://...), through which runs share rollouts as texts"
    )
    share_groups: Annotated[Count, Option(SAMPLING, "GROUPS")] = Field(
        4, ge=0, description="groups of other runs that a step trains on, where it finds as many"
    )
    share_local: Count | None = Field(
        None, ge=1, description="groups of its own that a step trains on; none: all (prompts_per_step)"
    )
    share_rule: Literal["varied", "best", "complete"] = Field(
        "varied",
        description="groups of others: any with different rewards, those of the largest total, or any with group_size answers",
    )
    share_unknown: bool = Field(
        False,
        description="take also questions that the data lacks, with the answers that came with them: trust is needed",
    )


class InferenceConfig(Section):
    """The engine that draws them."""

    engine: Annotated[Literal["native", "vllm", "ray"], Option(MACHINE)] = Field(
        "native", description="what draws: the embedded engine, vLLM, or workers that Ray places"
    )
    workers: Annotated[Count, Option(MACHINE)] = Field(
        1, ge=1, le=4096, description="engines that draw: Ray's actors, or processes with the embedded engine"
    )
    worker_engine: Annotated[Literal["native", "vllm"], Option(MACHINE)] = Field(
        "native", description="what draws in Ray's actors"
    )
    ray_address: Annotated[Name | None, Option(MACHINE, "ADDRESS")] = Field(
        None, description="Ray cluster to join (auto: the one of this machine); without it, one is started here"
    )
    engine_url: Annotated[list[Name], BeforeValidator(urls), Option(MACHINE, "URL")] = Field(
        default_factory=list, description="address of a vLLM server; without it, vLLM runs in this process"
    )
    engine_weights: Literal["folder", "memory"] | None = Field(
        None,
        description="how weights reach vLLM: through a folder, or by CUDA IPC or NCCL; default: what its place allows",
    )
    engine_folder: Name | None = Field(None, description="folder that the vLLM server sees too, for weights to pass")
    engine_memory: Number = Field(0.4, gt=0, lt=1, description="share of the GPU's memory for a vLLM in this process")
    engine_timeout: Number = Field(
        600.0, gt=0, le=1e6, description="seconds that a worker or a vLLM server may take for a rollout"
    )
    engine_wait: Number = Field(
        300.0, ge=0, le=1e6, description="seconds that servers and workers which cannot be reached are waited for"
    )
    ahead: Annotated[Count, Option(MACHINE, "STEPS")] = Field(
        0, ge=0, le=64, description="steps that sampling may run ahead of training; 0: they take turns"
    )
    in_flight: Literal["finish", "continue", "partial"] = Field(
        "finish",
        description="rollouts that are drawn while the weights change: finish with those they began with, go on with new ones, "
        "or end where they are, truncated",
    )
    slots: Count = Field(128, ge=1, description="rollouts decoded at once")
    cache_mb: Number | None = Field(
        None, gt=0, le=1e9, description="most megabytes of keys and values while sampling; none sets no bound"
    )


class OptimisationConfig(Section):
    """The updates, and how long training goes on."""

    steps: Annotated[Count, Option(OPTIMISATION)] = Field(100, ge=1, description="training steps")
    max_tokens_sampled: Annotated[int, BeforeValidator(number)] = Field(
        0, ge=0, lt=2**53, description="sampled tokens after which the run ends, also before its last step; 0: no limit"
    )
    updates: Annotated[Count, Option(OPTIMISATION)] = Field(
        1, ge=1, description="minibatches that a step's rollouts are cut into, an update each"
    )
    epochs: Annotated[Count, Option(OPTIMISATION)] = Field(1, ge=1, description="passes over a step's rollouts")
    replay_groups: Count = Field(
        0, ge=0, description="groups of earlier steps that each step trains on again, from a buffer"
    )
    replay_size: Count = Field(256, ge=1, description="size of that buffer in groups; the oldest groups leave it")
    lr: Annotated[Number, Option(OPTIMISATION)] = Field(1e-6, gt=0, description="learning rate")
    weight_decay: Annotated[Number, Option(OPTIMISATION)] = Field(0.0, ge=0, description="decoupled weight decay")
    warmup: Annotated[Count, Option(OPTIMISATION, "STEPS")] = Field(
        0, ge=0, description="steps over which the learning rate rises"
    )
    schedule: Annotated[Literal["constant", "cosine"], Option(OPTIMISATION)] = Field(
        "constant", description="learning rate after the warm-up"
    )
    grad_clip: Annotated[Number, Option(OPTIMISATION)] = Field(1.0, gt=0, description="largest gradient norm")
    old_logp: Literal["auto", "sampler", "score"] = Field(
        "auto", description="where old log-probabilities come from when a step has several updates"
    )
    correction: Literal["auto", "off"] = Field(
        "auto",
        description="auto: a method without a correction of its own takes rollout-correction's where the engine is not exact "
        "or rollouts are replayed",
    )


class MachineConfig(Section):
    """What a run computes on, and how it fits in there."""

    device: Annotated[Name, Option(MACHINE)] = Field(
        "auto", description="where the model is: auto (a GPU if there is one), cpu, cuda, cuda:N"
    )
    processes: Annotated[Count, Option(MACHINE)] = Field(
        1, ge=1, le=4096, description="processes that train together on this machine; torchrun starts those of several"
    )
    shard: Annotated[Literal["optimizer", "parameters"], Option(MACHINE)] = Field(
        "optimizer",
        description="what each process holds a part of at all times: the optimizer's state, with whole parameters in an "
        "update; or parameters too",
    )
    tensor_parallel: Annotated[Count, Option(MACHINE, "PROCESSES")] = Field(
        1, ge=1, description="processes that share each sequence, by the model's own plan for that"
    )
    restarts: Annotated[Count, Option(MACHINE)] = Field(
        3, ge=0, description="how often all processes are started again after one has died"
    )
    threads: Annotated[Count, Option(MACHINE)] = Field(
        0, ge=0, le=1024, description="CPU threads; 0 leaves torch's choice"
    )
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


class OutputConfig(Section):
    """What a run says and writes down."""

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


class CheckpointConfig(Section):
    """When checkpoints are written."""

    every: Count = Field(50, ge=1, description="steps between checkpoints")
    minutes: Number = Field(10.0, ge=0, description="minutes after which the next step writes one too; 0: never")
    keep: Count = Field(2, ge=1, description="checkpoints kept, the newest ones")
