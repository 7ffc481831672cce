"""The models that a configuration asks for, loaded, with adapters and teachers, and compiled."""

from __future__ import annotations

import re
from typing import Any

import torch

from cohort.errors import UsageError, shown
from cohort.methods import Method
from cohort.policies.agents import AgentPolicies, members_of
from cohort.policies.causal_lm import CausalLM
from cohort.policies.compiling import compile_layers
from cohort.policies.given import GivenModel
from cohort.training import toy
from cohort.training.checks import Log
from cohort.training.config import TrainConfig
from cohort.training.device import pick_device, pick_dtype
from cohort.training.episodes import answers
from cohort.training.limits import check_rank, check_shared
from cohort.training.teacher import give_teacher

# Steps from which compiling is taken to pay on a GPU: it costs a minute or two, and saves at best some tenths of a second
# a step.
COMPILE_STEPS = 1000


def load_policy(
    config: TrainConfig, log: Log, *, report: toy.Report | None = None, given: GivenModel | None = None
) -> CausalLM | AgentPolicies:
    """The model that a configuration asks for, or that was given, on its device, with adapters if asked; and those of agents
    that have one of their own.

    Raises:
        UsageError: a model cannot be loaded, or agents' models do not go together.
    """
    shared = load_model(config, config.policy.model, log, report=report, given=given)
    own = agent_models(config)
    if not own:
        return shared
    return AgentPolicies(shared, {agent: load_model(config, model, log, report=report) for agent, model in own.items()})


def agent_models(config: TrainConfig) -> dict[str, str]:
    """Agent -> the model of its own.

    Raises:
        UsageError: it is not said so that it can be read, or nothing here has agents.
    """
    out: dict[str, str] = {}
    for given in config.policy.agent_models:
        agent, _, model = given.partition("=")
        if not re.fullmatch(r"[\w.-]+( [\w.-]+)*", agent) or agent in (".", "..") or not model or agent in out:
            raise UsageError(
                f"agent_models: {shown(given)} should be AGENT=MODEL, each agent once, with letters, digits, '-', '_', '.' and "
                "spaces between them"
            )
        out[agent] = model
    if out and not answers(config):
        raise UsageError("agent_models gives agents of an environment their own models: name one with --environment")
    if out and (config.inference.engine != "native" or config.inference.workers > 1):
        raise UsageError(
            "agent_models needs the embedded engine in this process: elsewhere one model is drawn with "
            "(--engine native, without --workers)"
        )
    return out


def give_teachers(policy: CausalLM | AgentPolicies, method: Method, config: TrainConfig, log: Log) -> None:
    """Give each model the other one that it learns from, if the method has it learn from one."""
    for each in members_of(policy).values():
        if isinstance(each, CausalLM):
            give_teacher(each, method, config, log)


def load_model(
    config: TrainConfig, name: str, log: Log, *, report: toy.Report | None = None, given: GivenModel | None = None
) -> CausalLM:
    """A model as a configuration has it loaded, or one that was given."""
    device = pick_device(config.machine.device)
    dtype = pick_dtype(config.policy.dtype, device)
    form: dict[str, Any] = {
        "bos": config.policy.bos,
        "prompt_format": config.dataset.prompt_format,
        "special_tokens": config.rewards.special_tokens,
    }
    if given is not None:
        auto = None if config.machine.device == "auto" else device, None if config.policy.dtype == "auto" else dtype
        policy = given.policy(device=auto[0], dtype=auto[1], **form)
    else:
        folder = str(toy.folder(log, report, name=name)) if name in toy.EXAMPLES else name
        policy = CausalLM.load(
            folder, device=device, dtype=dtype, trust_remote_code=config.policy.trust_remote_code, **form
        )
    if config.policy.lora:
        check_rank(policy.model, config.policy.lora, policy.name or "the model")
        torch.manual_seed(config.seed)
        policy.add_lora(config.policy.lora)
    if config.machine.tensor_parallel > 1:
        check_shared(policy.model, config.machine.tensor_parallel, policy.name)
    policy.use_activations(config.machine.activations, log)
    return policy


def compile_policy(config: TrainConfig, policy: CausalLM | AgentPolicies, log: Log) -> float:
    """Compile the policy's layers if the run is to, and return the seconds that it took.

    Raises:
        UsageError: that was asked for, and does not work here.
    """
    if isinstance(policy, AgentPolicies):
        return sum(compile_policy(config, each, log) for each in policy.members.values() if isinstance(each, CausalLM))
    asked = config.machine.compile is True
    if not asked and not (
        config.machine.compile == "auto"
        and policy.device.type == "cuda"
        and config.optimisation.steps >= COMPILE_STEPS
        and config.machine.tensor_parallel == 1
    ):
        return 0.0
    log("compiling the model's layers")
    try:
        seconds = compile_layers(policy)
    except UsageError as error:
        if asked:
            raise
        log(f"going on without: {error}")
        return 0.0
    log(f"compiled in {seconds:.0f} s")
    return seconds
