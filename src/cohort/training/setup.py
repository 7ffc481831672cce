"""From a configuration to everything that a run needs, checked before a folder is made or a token is drawn."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cohort import registry
from cohort.axes.correction import importance_weight
from cohort.data.pairs import load_pairs, read_pairs
from cohort.data.prompts import PromptSpec, Source, check_source, load_prompts, read_source, typed
from cohort.data.rows import place_of
from cohort.errors import UsageError
from cohort.methods import Method, use
from cohort.policies.causal_lm import CausalLM
from cohort.policies.compiling import compile_layers
from cohort.policies.given import GivenModel
from cohort.rewards.judge import check_judge, load_judge
from cohort.rewards.scorer import Scorer
from cohort.rewards.spec import RewardSpec, parse
from cohort.rollouts.collect import ALWAYS, Collector, Grader
from cohort.training import toy
from cohort.training.config import TrainConfig
from cohort.training.engines import check_engine, make_engine, reads_entropies
from cohort.training.limits import check_rank, check_sizes
from cohort.training.offline import LABEL, OfflineCollector, Store, check_labels, check_pairs, is_offline
from cohort.training.precision import MasterWeights
from cohort.training.sampling import make_sampling
from cohort.training.update import SCORED, TAUGHT
from cohort.types import Prompt

Log = Callable[[str], None]
# Fields that the loop can compute when a method declares them.
EARLY = frozenset({"old_logp", "ref_logp", "old_values"})
COMPUTED = SCORED | TAUGHT | EARLY
# Tokens of a forward pass with gradient (see `pass_tokens`), and numbers of a hidden state for all of them.
SMALL_PASS, MIDDLE_PASS, LARGE_PASS, PASS_NUMBERS = 1024, 2048, 16384, 2**19
# Steps from which compiling is taken to pay on a GPU: it costs a minute or two, and saves at best some tenths of a second
# a step.
COMPILE_STEPS = 1000


@dataclass
class Setup:
    """What a run is made of.

    Attributes:
        prompts: those that a step picks from.
        pairs: stored completions that stand beside the step's rollouts, for methods that learn from both.
        compile_seconds: what compiling the layers took, until it stands in a step's metrics.
    """

    config: TrainConfig
    method: Method
    policy: CausalLM
    collector: Collector
    prompts: list[Prompt]
    eval_prompts: list[Prompt]
    pairs: Store | None = None
    compile_seconds: float = 0.0

    @property
    def micro_tokens(self) -> int:
        """Most tokens in one forward pass with gradient."""
        return self.config.micro_tokens or pass_tokens(self.method, self.policy)

    @property
    def rows(self) -> dict[str, int]:
        """prompt id -> row of the data set."""
        return {prompt.id: row for row, prompt in enumerate(self.prompts)}

    def stand(self, step: int) -> None:
        """Let reward functions know how many steps are completed."""
        config = self.config
        self.collector.grader.state.stand(
            step, config.steps, per_step=config.prompts_per_step, prompts=len(self.prompts)
        )

    def close(self) -> None:
        self.collector.close()


def pick_device(name: str) -> torch.device:
    """The device asked for; "auto" takes a GPU where there is one.

    Raises:
        UsageError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name}: no such kind of device; use cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"--device {name}: cohort trains on cpu, cuda, cuda:N and mps")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError(f"--device {name}: torch sees no Apple GPU here; use --device cpu")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: torch sees no GPU here; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {name}: torch sees {torch.cuda.device_count()} GPUs here, counted from 0")
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """float32 on a CPU, bfloat16 (with float32 master weights) on a GPU, unless asked otherwise."""
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def load_policy(
    config: TrainConfig, log: Log, *, report: toy.Report | None = None, given: GivenModel | None = None
) -> CausalLM:
    """The model that a configuration asks for, or that was given, on its device, with adapters if asked."""
    device = pick_device(config.device)
    dtype = pick_dtype(config.dtype, device)
    form: dict[str, Any] = {
        "bos": config.bos,
        "prompt_format": config.prompt_format,
        "special_tokens": config.special_tokens,
    }
    if given is not None:
        auto = None if config.device == "auto" else device, None if config.dtype == "auto" else dtype
        policy = given.policy(device=auto[0], dtype=auto[1], **form)
    else:
        folder = str(toy.folder(log, report)) if config.model == "toy" else config.model
        policy = CausalLM.load(folder, device=device, dtype=dtype, trust_remote_code=config.trust_remote_code, **form)
    if config.lora:
        check_rank(policy.model, config.lora, policy.name or "the model")
        torch.manual_seed(config.seed)
        policy.add_lora(config.lora)
    policy.use_activations(config.activations, log)
    return policy


def pass_tokens(method: Method, policy: CausalLM) -> int:
    """Tokens of a forward pass: on a CPU larger ones hold more memory and are no faster, but for small models (measured for
    widths of 256 and 512). Where rollouts are coupled each step in more than one pass takes a pass more."""
    if policy.device.type != "cpu" or method.couples:
        return LARGE_PASS
    hidden = int(policy.base.get_input_embeddings().weight.shape[1])
    return min(MIDDLE_PASS, max(SMALL_PASS, PASS_NUMBERS // hidden))


def compile_policy(config: TrainConfig, policy: CausalLM, log: Log) -> float:
    """Compile the policy's layers if the run is to, and return the seconds that it took.

    Raises:
        UsageError: that was asked for, and does not work here.
    """
    asked = config.compile is True
    if not asked and not (config.compile == "auto" and policy.device.type == "cuda" and config.steps >= COMPILE_STEPS):
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


def make_grader(config: TrainConfig) -> Grader:
    """Reward functions loaded in their process, and the one that says what is correct."""
    if is_offline(config) and not config.reward:
        if config.eval_data is not None:
            raise UsageError("eval_data was given, but no reward to measure it with: name one with --reward")
        return Grader(Scorer([]), "", config.correct_at, config.max_new_tokens)
    # A column of the data may be called max_new_tokens, and would hide the run's own from it.
    specs = [
        replace(spec, text=f"length:{config.max_new_tokens}") if spec.text == "length" else spec
        for spec in parse(config.reward)
    ]
    accuracy = accuracy_component(config.accuracy, specs)
    scorer = Scorer(
        specs, timeout=config.reward_timeout, on_error=config.on_reward_error, process=config.reward_process
    )
    return Grader(scorer, accuracy, config.correct_at, config.max_new_tokens, verdict_name(config))


def accuracy_component(asked: str | None, specs: list[RewardSpec]) -> str:
    """The reward that says what is correct: the one asked for, else the first verifier, else the first reward."""
    names = [spec.name for spec in specs]
    if asked is not None:
        if asked not in names:
            raise UsageError(f"accuracy = '{asked}' names no reward of this run ({', '.join(names)})")
        return asked
    return next((spec.name for spec in specs if spec.verifies), names[0])


def verdict_name(config: TrainConfig) -> str:
    """What the share of correct rollouts is called: "accuracy" where a verifier, or the reward that the user named, says
    which are; of any other reward what it is, as in "style>=1"."""
    if config.accuracy is not None or not config.reward:
        return "accuracy"
    specs = parse(config.reward)
    name = accuracy_component(None, specs)
    return "accuracy" if any(spec.verifies for spec in specs) else f"{name}>={config.correct_at:g}"


def check_options(config: TrainConfig) -> None:
    """Options go together, as far as that can be said without a model.

    Raises:
        UsageError: they do not; the device is none of this machine.
    """
    pick_device(config.device)
    if config.min_new_tokens > config.max_new_tokens:
        raise UsageError(
            f"min_new_tokens is {config.min_new_tokens}, but a rollout ends at max_new_tokens = {config.max_new_tokens}: "
            "raise one or lower the other"
        )
    if "" in config.stop:
        raise UsageError("stop: an empty text would end every rollout at its first token; leave it out")


def make_collector(config: TrainConfig, policy: CausalLM, grader: Grader, store: Store | None = None) -> Collector:
    """Policy, engine and grader put together for sampling, or for taking rollouts from a store."""
    sampling = make_sampling(config, policy)
    engine = make_engine(config, policy, sampling)
    if store is not None:
        return OfflineCollector(policy, engine, sampling, grader, config.max_new_tokens, system_of(config), store=store)
    return Collector(policy, engine, sampling, grader, config.max_new_tokens, system_of(config))


def prompt_spec(config: TrainConfig) -> PromptSpec:
    """How the run's rows become prompts."""
    return PromptSpec(
        config.prompt_field, config.answer_field, system_of(config), config.template, config.max_new_tokens
    )


def system_of(config: TrainConfig) -> str | None:
    """The run's system message."""
    return None if config.system is None else typed(config.system)


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
    config = toy.with_defaults(config)
    check_sizes(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    method = method if method is not None else registry.method(config.method)
    check_method(method, config)
    check_options(config)
    if given is not None and config.engine != "native":
        raise UsageError(f"--engine {config.engine} loads the model itself: give --model a folder, not an object")
    if config.data is None and config.pairs is None:
        raise UsageError("no data was given: --data takes a file, a hub id or reasoning_gym:TASK?...")
    offline = is_offline(config)
    grader = make_grader(config)
    try:
        # Data before the model: a mistyped file name should not cost a minute of loading.
        spec = prompt_spec(config)
        source = None if config.data is None else read_source(config.data, spec, seed=config.seed, log=log)
        written = None if config.pairs is None else read_pairs(config.pairs, spec, seed=config.seed, log=log)
        held = config.eval_data
        eval_source = None if held is None else read_source(held, spec, seed=config.seed, log=log)
        sources = [each for each in (source, eval_source, written) if each is not None]
        for each in sources:
            check_source(each, spec)
        rows = [[] if each is None else each.rows for each in (source, eval_source, written)]
        check_columns(method, config, grader, rows[0], rows[1][: config.eval_size], rows[2])
        check_arguments(method, grader, source, eval_source)
        policy = load_policy(config, log, report=report, given=given)
        prompts = [] if source is None else load_prompts(source, policy, spec, log=log)
        store: Store | None = None
        if written is not None:
            preferences = load_pairs(written, policy, spec, partial(policy.follow, end=True))
            store = Store.of(preferences)
            if offline:
                check_labels(method, preferences, written.where)
        eval_prompts: list[Prompt] = []
        if eval_source is not None:
            eval_prompts = load_prompts(eval_source, policy, spec, log=log)[: config.eval_size]
            if prompts:
                same = held is config.data or held == config.data
                prompts = separate(prompts, eval_prompts, same=same, log=log)
            if store is not None:
                store = store.only(separate(store.prompts, eval_prompts, same=held == config.pairs, log=log))
        asked = store.prompts if store is not None else []
        # Again: where rows repeat a prompt, later ones are evaluated on too.
        check_columns(method, config, grader, [], [prompt.row for prompt in eval_prompts])
        log_inapplicable(grader, prompts, source, log)
        log_inapplicable(grader, eval_prompts, eval_source, log)
        collector = make_collector(config, policy, grader, store if offline else None)
        method = corrected(method, config, collector, log)
        compiled = compile_policy(config, policy, log)
    except BaseException:
        grader.scorer.close()
        raise
    collector.entropy_tokens = (config.micro_tokens or pass_tokens(method, policy)) if reads_entropies(method) else 0
    if offline:
        return Setup(config, method, policy, collector, asked, eval_prompts, compile_seconds=compiled)
    return Setup(config, method, policy, collector, prompts, eval_prompts, store, compiled)


def corrected(method: Method, config: TrainConfig, collector: Collector, log: Log) -> Method:
    """The method with importance weights between sampler and trainer, where the engine is not exact, the method corrects
    nothing itself, and its loss is one that weights can multiply."""
    exact = collector.engine.exact or not collector.samples
    # The ratio itself is then taken against the sampler.
    bypass = config.old_logp == "sampler" or "sampler_logp" in method.needs(loss=True)
    if config.correction == "off" or exact or bypass or method.correction or method.objective is not None:
        return method
    log(
        "the engine's log-probabilities are not the trainer's: token losses are weighted by exp(trainer - sampler), at most 2 "
        "(rollout-correction; --set correction=off leaves it out)"
    )
    return replace(method, correction=(use(importance_weight),))


def optimizer_of(setup: Setup) -> MasterWeights:
    """The method's optimizer over everything that is trained, and the models that it needs beside the policy.

    They are copies of the policy as the run begins, so this comes before a checkpoint is loaded.
    """
    config, method, policy = setup.config, setup.method, setup.policy
    if "ref_logp" in method.needs(loss=True) | method.needs(loss=False):
        policy.make_reference()
    if method.teacher is not None:
        policy.make_teacher()
    stage = method.stage("optimizer")
    # The run's weight decay, unless the method sets its own.
    decay = {} if "weight_decay" in stage.hyper else {"weight_decay": config.weight_decay}
    scaled: tuple[list[torch.nn.Parameter], float] = ([], 1.0)
    trained = policy.trainable()
    if method.critic is not None:
        torch.manual_seed(config.seed)
        policy.make_critic(str(method.critic["critic"]))
        assert policy.critic is not None
        scaled = (list(policy.critic.parameters()), float(method.critic["critic_lr"] or config.lr) / config.lr)
    return MasterWeights(trained, lambda params: stage(params, config.lr, **decay), scaled=scaled)


def separate(prompts: list[Prompt], eval_prompts: list[Prompt], *, same: bool, log: Log) -> list[Prompt]:
    """Training prompts that are not evaluated on."""
    if same:
        log("eval_data is the training data: the evaluation says nothing of unseen prompts")
        return prompts
    unseen = {prompt.text for prompt in eval_prompts}
    kept = [prompt for prompt in prompts if prompt.text not in unseen]
    if not kept:
        raise UsageError("every training prompt is also in eval_data: nothing would be left to train on")
    if len(kept) < len(prompts):
        log(f"{len(prompts) - len(kept)} training prompts are also in eval_data and were left out of training")
    return kept


def check_method(method: Method, config: TrainConfig) -> None:
    """The method can be trained as configured.

    Raises:
        UsageError: it lacks something, its groups are too small, or it needs a field that nothing provides.
    """
    if method.lacks:
        raise UsageError(f"'{method.name}' needs {method.lacks}, which cohort cannot do yet: it cannot be trained here")
    check_pairs(method, config)
    check_engine(config, method)
    if config.group_size < method.group_size and not is_offline(config):
        raise UsageError(
            f"group_size is {config.group_size}, but '{method.name}' compares rollouts of a prompt with each other: "
            f"set group_size to {method.group_size} or more"
        )
    for reader, name, call, value in method.functions:
        if value is None:
            raise UsageError(
                f"'{method.name}' ({reader}) asks a function of yours, {call}: write it into a file and name it in the "
                f"method, as {name}='path.py:function'"
            )
        load_judge(value)
    given = ALWAYS | {"preference"}
    early = method.needs(loss=False) - given - EARLY - method.provides
    late = method.needs(loss=True) - given - COMPUTED - method.provides
    for name in sorted(early | late):
        raise UsageError(f"'{method.name}' needs the field '{name}' of every rollout, which nothing here provides")


def check_arguments(method: Method, grader: Grader, *sources: Source | None) -> None:
    """Reward functions and judges are given all arguments that they ask for.

    Args:
        sources: data to train on and held-out data, where there are any.

    Raises:
        UsageError: one asks for something that is neither lent nor a column.
    """
    for number, source in enumerate(sources):
        if source is None:
            continue
        columns = list(dict.fromkeys(name for row in source.rows for name in row))
        grader.scorer.check_arguments(columns)
        for _, _, call, judge in method.functions if number == 0 else ():
            texts = re.findall(r"\w+", call.partition("(")[2].partition(")")[0])
            check_judge(judge, [name for name in texts if name != "columns"], columns)


TASK_ONLY = "the reward 'task' is the verifier of reasoning_gym data; for other data use number or math"


def check_columns(
    method: Method,
    config: TrainConfig,
    grader: Grader,
    rows: Sequence[Mapping[str, Any]],
    eval_rows: Sequence[Mapping[str, Any]],
    pairs: Sequence[Mapping[str, Any]] = (),
) -> None:
    """The rows have the columns that rewards and method read, and the run the rewards."""
    for component, reader in method.components.items():
        if is_offline(config) and component != LABEL:
            raise UsageError(
                f"'{method.name}' ({reader}) reads the reward '{component}', but the completions of --pairs have none but "
                f"their label: leave that part of the method out"
            )
        if component not in grader.names and not is_offline(config):
            raise UsageError(
                f"'{method.name}' ({reader}) reads the reward '{component}', which this run lacks (it has: "
                f"{', '.join(grader.names)}): add a function of that name with --reward '0*path.py:{component}' (a weight "
                "of 0 keeps it out of the sum), or name another reward in the method"
            )
    named = [(f"{place_of(row)} of the training data", row) for row in rows]
    held_out = [(f"{place_of(row)} of the held-out data", row) for row in eval_rows]
    stored = [(f"{place_of(row)} of the pairs", row) for row in pairs]
    for where, row in named + ([] if is_offline(config) else held_out) + stored:
        held = ", ".join(row)
        for column, reader in method.columns.items():
            if row.get(column) in (None, ""):
                raise UsageError(
                    f"'{method.name}' ({reader}) reads the column '{column}', which {where} lacks (it has: {held}): add it "
                    "to the data, or name another column in the method"
                )
    # Stored completions are not rewarded: their labels are.
    for where, row in named + held_out:
        held = ", ".join(row)
        for spec in grader.scorer.specs:
            if spec.verifies and "answer" not in row:
                raise UsageError(
                    f"the reward '{spec.name}' compares with the column 'answer', which {where} lacks (it has: {held}): "
                    "name the one to use with --answer-field"
                )
            if spec.asks_task and "metadata" not in row:
                raise UsageError(TASK_ONLY)


def log_inapplicable(grader: Grader, prompts: Sequence[Prompt], source: Source | None, log: Log) -> None:
    """Say how many rows of a source the rewards do not apply to, since they have no answer."""
    if source is not None:
        for spec in grader.scorer.specs:
            for text in spec.inapplicable([prompt.row for prompt in prompts], source.where):
                log(text)


def check_space(folder: Path, policy: CausalLM, config: TrainConfig) -> None:
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
