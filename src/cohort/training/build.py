"""From a configuration to everything that a run needs, checked before a folder is made or a token is drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch

from cohort import registry
from cohort.axes.correction import importance_weight
from cohort.data.pairs import load_pairs, read_pairs
from cohort.data.prompts import PromptSpec, check_source, load_prompts, read_source, typed
from cohort.engine.detached import Detached
from cohort.environments.factory import EnvironmentFactory
from cohort.errors import UsageError
from cohort.methods import Method, use
from cohort.policies.agents import AgentPolicies
from cohort.policies.causal_lm import LARGE_PASS, CausalLM
from cohort.policies.given import GivenModel
from cohort.policies.replica import replica
from cohort.rewards.calling import TrainerState
from cohort.rewards.composition import Composition, compose
from cohort.rewards.grader import Grader, own_weight
from cohort.rewards.judges.judges import Judges
from cohort.rewards.reward_models import DEVICE
from cohort.rewards.scorer import Scorer
from cohort.rewards.spec import RewardSpec, parse
from cohort.rollouts.ahead import Ahead
from cohort.rollouts.asking import ask_policy
from cohort.rollouts.collect import Collector
from cohort.rollouts.store import LABEL, Store
from cohort.training import toy
from cohort.training.checks import (
    Log,
    check_arguments,
    check_columns,
    check_method,
    check_options,
    corrects,
    log_inapplicable,
)
from cohort.training.config import TrainConfig
from cohort.training.defaults import with_defaults
from cohort.training.engines import make_engine, reads_entropies
from cohort.training.episodes import Opened, answers, data_of, limits_of, open_environment
from cohort.training.limits import check_sizes
from cohort.training.models import agent_models, compile_policy, give_teachers, load_policy
from cohort.training.offline import check_labels, is_offline
from cohort.training.precision import MasterWeights
from cohort.training.sampling import make_sampling
from cohort.training.teacher import check_teacher
from cohort.training.verdict import accuracy_component, verdict_name
from cohort.types import Prompt
from cohort.types.policy import Policy


@dataclass
class Setup:
    """The parts of a run.

    Attributes:
        prompts: those that a step picks from.
        pairs: stored completions that are trained on with the step's rollouts, for methods that learn from both.
        offline: stored completions that take their place: nothing is sampled but for evaluations.
        compile_seconds: what compiling the layers took, until it stands in a step's metrics.
        ahead: draws rollouts ahead of training, where that is asked for.
    """

    config: TrainConfig
    method: Method
    policy: Policy
    collector: Collector
    prompts: list[Prompt]
    eval_prompts: list[Prompt]
    pairs: Store | None = None
    offline: Store | None = None
    compile_seconds: float = 0.0
    ahead: Ahead | None = None

    @property
    def micro_tokens(self) -> int:
        """Most tokens in one forward pass with gradient."""
        return self.config.machine.micro_tokens or pass_tokens(self.method, self.policy)

    @property
    def reward_names(self) -> tuple[str, ...]:
        """Of the components of its rollouts' rewards."""
        return self.collector.reward_names if self.offline is None else (LABEL,)

    def reward_weights(self, step: int) -> tuple[float, ...]:
        """Of the same components in the sum, after so many completed steps."""
        return self.collector.reward_weights(step) if self.offline is None else (1.0,)

    @property
    def longest(self) -> int:
        """Most tokens of a rollout."""
        most = self.config.sampling.max_new_tokens
        return most if self.offline is None else max(most, self.offline.longest)

    @property
    def rows(self) -> dict[str, int]:
        """prompt id -> row of the data set."""
        return {prompt.id: row for row, prompt in enumerate(self.prompts)}

    def stand(self, step: int, state: TrainerState | None = None) -> None:
        """Let reward functions know how many steps are completed.

        Args:
            state: theirs; None is the run's.
        """
        config, state = self.config, state or self.collector.grader.state
        state.stand(
            step, config.optimisation.steps, per_step=config.sampling.prompts_per_step, prompts=len(self.prompts)
        )

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Nothing is drawn for training inside, and the engine has the weights of now."""
        with nullcontext() if self.ahead is None else self.ahead.drawer.resting():
            yield

    def stop(self) -> None:
        """Draw no more ahead of training."""
        if self.ahead is not None:
            self.ahead.close()

    def close(self) -> None:
        self.stop()
        self.collector.close()
        # What it may have waited for has ended now.
        self.stop()


def pass_tokens(method: Method, policy: Policy) -> int:
    """Tokens of a forward pass. Where rollouts are coupled, each step in more than one pass takes a pass more."""
    return LARGE_PASS if method.couples else policy.pass_tokens


def make_grader(config: TrainConfig, own: Sequence[str] = (), log: Log = lambda _: None) -> Grader:
    """Reward functions loaded in their process, and the one that says what is correct.

    Args:
        own: components of the environment's reward, itself first; empty where there is none.
    """
    if is_offline(config) and not config.rewards.reward:
        if config.evaluation.eval_data is not None:
            raise UsageError("eval_data was given, but no reward to measure it with: name one with --reward")
        return Grader(Scorer([]), "", config.rewards.correct_at, config.sampling.max_new_tokens)
    # A column of the data may be called max_new_tokens, and would hide the run's own from it.
    rewards = parse(config.rewards.reward) if config.rewards.reward or not own else []
    specs = [
        replace(spec, text=f"length:{config.sampling.max_new_tokens}") if spec.text == "length" else spec
        for spec in rewards
    ]
    accuracy = accuracy_component(config.rewards.accuracy, specs, own)
    composition = composition_of(config, specs, own)
    DEVICE.set(config.machine.device)
    scorer = Scorer(
        specs,
        timeout=config.rewards.reward_timeout,
        on_error=config.rewards.on_reward_error,
        process=config.rewards.reward_process,
        judges=Judges(config.rewards.judging, without_policy="", log=log),
        once=config.rewards.reward_once,
        workers=config.rewards.reward_workers,
    )
    return Grader(
        scorer,
        accuracy,
        config.rewards.correct_at,
        config.sampling.max_new_tokens,
        verdict_name(config, own),
        composition=composition,
    )


def composition_of(config: TrainConfig, specs: Sequence[RewardSpec], own: Sequence[str] = ()) -> Composition:
    """Gates, ranges and schedules of the run's rewards.

    Args:
        own: components of the environment's reward, itself first; empty where there is none.

    Raises:
        UsageError: they do not fit the rewards; says which.
    """
    asked = config.rewards
    weights = {name: own_weight(name) for name in own} | {spec.name: spec.weight for spec in specs}
    return compose(weights, gates=asked.reward_gate, clips=asked.reward_clip, schedules=asked.reward_schedule)


def make_collector(
    config: TrainConfig,
    policy: CausalLM | AgentPolicies,
    grader: Grader,
    environments: EnvironmentFactory | None = None,
    *,
    log: Log = lambda _: None,
) -> Collector:
    """Policy, engine, grader and what answers the policy, put together for sampling; `log` as of `make_engine`.

    Where sampling runs ahead of training, policy and engine are apart from those that are trained.
    """
    sampling = make_sampling(config, policy.renderer, policy.vocabulary)
    if config.inference.ahead:
        policy = replica(policy)
    engine = make_engine(config, policy, sampling, log)
    if config.inference.ahead:
        engine = Detached(engine, policy)
    collector = Collector(
        policy,
        engine,
        sampling,
        grader,
        config.sampling.max_new_tokens,
        system_of(config),
        environments=environments,
        limits=limits_of(config),
        history=config.episodes.history,
        redraw=config.episodes.failed_episodes == "redraw",
    )
    grader.scorer.judges.policy = partial(ask_policy, collector)
    return collector


def prompt_spec(config: TrainConfig, opened: Opened | None = None) -> PromptSpec:
    """How the run's rows become prompts.

    Args:
        opened: what answers the policy, whose tools the prompts show.
    """
    return PromptSpec(
        config.dataset.prompt_field,
        config.dataset.answer_field,
        system_of(config),
        config.dataset.template,
        config.sampling.max_new_tokens,
        answers(config),
        {} if opened is None else opened.offer.tools,
    )


def system_of(config: TrainConfig) -> str | None:
    """The run's system message."""
    return None if config.dataset.system is None else typed(config.dataset.system)


def prepare(
    config: TrainConfig,
    *,
    method: Method | None = None,
    log: Log,
    report: toy.Report | None = None,
    given: GivenModel | None = None,
) -> Setup:
    """Load and check everything.

    Args:
        method, given: the method and the model, where they were made in Python.

    Raises:
        UsageError: whatever is wrong with what was asked, before any folder is made.
    """
    config = with_defaults(config)
    check_sizes(config)
    if config.machine.threads:
        torch.set_num_threads(config.machine.threads)
    method = method if method is not None else registry.method(config.method)
    check_method(method, config)
    check_teacher(method, config)
    check_options(config)
    agent_models(config)
    if given is not None and (config.inference.engine == "vllm" or config.inference.worker_engine == "vllm"):
        raise UsageError(
            f"engine={config.inference.engine} loads the model itself, as vLLM does: give --model a folder, not an object"
        )
    if config.dataset.data is None and config.dataset.pairs is None and not answers(config):
        raise UsageError("no data was given: --data takes a file, a hub id or reasoning_gym:TASK?...")
    offline = is_offline(config)
    with ExitStack() as failing:
        opened = open_environment(config)
        if opened is not None:
            failing.callback(opened.close)
        names = () if opened is None else opened.names
        grader = make_grader(config, names, log)
        failing.callback(grader.scorer.close)
        environments = None if opened is None else opened.factory(grader)
        # Data before the model: a mistyped file name should not cost a minute of loading.
        spec = prompt_spec(config, opened)
        given_data = config.dataset.data if opened is None else data_of(config.dataset.data, opened)
        source = None if given_data is None else read_source(given_data, spec, seed=config.seed, log=log)
        written = (
            None if config.dataset.pairs is None else read_pairs(config.dataset.pairs, spec, seed=config.seed, log=log)
        )
        held = config.evaluation.eval_data
        if held is None and opened is not None:
            held = opened.rows(True)
        eval_source = None if held is None else read_source(held, spec, seed=config.seed, log=log)
        sources = [each for each in (source, eval_source, written) if each is not None]
        for each in sources:
            check_source(each, spec)
        rows = [[] if each is None else each.rows for each in (source, eval_source, written)]
        check_columns(method, config, grader, rows[0], rows[1][: config.evaluation.eval_size], rows[2], own=names)
        check_arguments(method, grader, source, eval_source, environments=opened is not None)
        policy = load_policy(config, log, report=report, given=given)
        give_teachers(policy, method, config, log)
        prompts = [] if source is None else load_prompts(source, policy.renderer, spec, log=log)
        store: Store | None = None
        if written is not None:
            preferences = load_pairs(
                written, policy.renderer, spec, partial(policy.renderer.encode_completion, end=True)
            )
            store = Store.of(preferences)
            if offline:
                check_labels(method, preferences, written.where)
        eval_prompts: list[Prompt] = []
        if eval_source is not None:
            eval_prompts = load_prompts(eval_source, policy.renderer, spec, log=log)[: config.evaluation.eval_size]
            if prompts:
                same = held is config.dataset.data or held == config.dataset.data
                prompts = separate(prompts, eval_prompts, same=same, log=log)
            if store is not None:
                store = store.only(separate(store.prompts, eval_prompts, same=held == config.dataset.pairs, log=log))
        asked = store.prompts if store is not None else []
        # Again: where rows repeat a prompt, later ones are evaluated on too.
        check_columns(method, config, grader, [], [prompt.row for prompt in eval_prompts], own=names)
        log_inapplicable(grader, prompts, source, log)
        log_inapplicable(grader, eval_prompts, eval_source, log)
        collector = make_collector(config, policy, grader, environments, log=log)
        method = method if offline else corrected(method, config, collector, log)
        compiled = compile_policy(config, policy, log)
        failing.pop_all()
    collector.entropy_tokens = (
        (config.machine.micro_tokens or pass_tokens(method, policy)) if reads_entropies(method) else 0
    )
    if offline:
        return Setup(config, method, policy, collector, asked, eval_prompts, offline=store, compile_seconds=compiled)
    return Setup(config, method, policy, collector, prompts, eval_prompts, store, compile_seconds=compiled)


def corrected(method: Method, config: TrainConfig, collector: Collector, log: Log) -> Method:
    """The method with importance weights between sampler and trainer, where the engine is not exact or rollouts are stale,
    the method corrects nothing itself, and its loss is one that weights can multiply."""
    exact = collector.engine.exact and not (config.optimisation.replay_groups or config.inference.ahead)
    if exact or method.correction or not corrects(method, config):
        return method
    why = "the engine's log-probabilities are not the trainer's"
    if collector.engine.exact:
        kind = "replayed rollouts" if config.optimisation.replay_groups else "rollouts drawn ahead of training"
        why = f"{kind} are an earlier policy's"
    log(
        f"{why}: token losses are weighted by exp(trainer - sampler), at most 2 (rollout-correction; --set correction=off "
        "leaves it out)"
    )
    return replace(method, correction=(use(importance_weight),))


class Trained(Protocol):
    """What is trained, and how: a whole `Setup`, or the part of one that takes part in its updates alone."""

    @property
    def config(self) -> TrainConfig: ...

    @property
    def method(self) -> Method: ...

    @property
    def policy(self) -> Policy: ...


def optimizer_of(setup: Trained) -> MasterWeights:
    """The method's optimizer over everything that is trained, and the models in the roles that it needs.

    They are copies of the policy as the run begins, so this comes before a checkpoint is loaded.
    """
    make_roles(setup.policy, setup.method, seed=setup.config.seed)
    return optimizer_over(setup)


def optimizer_over(setup: Trained) -> MasterWeights:
    """The method's optimizer over everything that is trained, with the models in roles as they are."""
    config, method, policy = setup.config, setup.method, setup.policy
    stage = method.stage("optimizer")
    # The run's weight decay, unless the method sets its own.
    decay = {} if "weight_decay" in stage.hyper else {"weight_decay": config.optimisation.weight_decay}
    scaled: tuple[list[torch.nn.Parameter], float] = ([], 1.0)
    trained = policy.trainable()
    if method.critic is not None:
        lr = config.optimisation.lr
        scaled = (policy.roles.trained(), float(method.critic.all_hyper.get("critic_lr") or lr) / lr)
    return MasterWeights(trained, lambda params: stage(params, config.optimisation.lr, **decay), scaled=scaled)


def make_roles(policy: Policy, method: Method, *, seed: int) -> None:
    """Make the models in the roles that a method declares: copies of the policy, or a critic that the seed initialises."""
    needs = method.needs(loss=True) | method.needs(loss=False)
    if "ref_logp" in needs:
        policy.roles.make("reference")
    if (teacher := method.teacher) is not None:
        pace: dict[str, Any] = {"decay": float(teacher["teacher_decay"]), "every": int(teacher["teacher_every"])}
        policy.roles.make("ema", unbiased=bool(teacher.get("teacher_unbiased", False)), **pace)
    if method.critic is not None:
        torch.manual_seed(seed)
        hyper = method.critic.all_hyper
        policy.roles.make("critic", kind=str(hyper.get("critic", "model")))
        if "target_values" in needs:
            given = {name: hyper[f"target_{name}"] for name in ("decay", "every") if f"target_{name}" in hyper}
            policy.roles.make("target", **given)


def separate(prompts: list[Prompt], eval_prompts: list[Prompt], *, same: bool, log: Log) -> list[Prompt]:
    """Training prompts that are not evaluated on."""
    if same:
        log("eval_data is the training data: the evaluation says nothing of unseen prompts")
        return prompts
    unseen = {prompt.id for prompt in eval_prompts}
    kept = [prompt for prompt in prompts if prompt.id not in unseen]
    if not kept:
        raise UsageError("every training prompt is also in eval_data: nothing would be left to train on")
    if len(kept) < len(prompts):
        log(f"{len(prompts) - len(kept)} training prompts are also in eval_data and were left out of training")
    return kept
