"""The training step. `one_step` reads like the algorithm box of the GRPO paper; no method has a name here."""

from __future__ import annotations

import functools
import math
import operator
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from cohort.errors import UsageError
from cohort.methods import Method
from cohort.policies.passes import log_probs
from cohort.rewards.judge import ask
from cohort.rollouts.batching import make_batch
from cohort.rollouts.refill import refill
from cohort.seeds import derive, generator
from cohort.training.build import Setup
from cohort.training.diagnostics import measured
from cohort.training.offline import SAMPLED
from cohort.training.precision import MasterWeights
from cohort.training.schedule import factor
from cohort.training.trace import notices, traced
from cohort.training.update import Gradient, gradient
from cohort.types import Batch, Rollout
from cohort.types.access import ModelAccess
from cohort.types.policy import Actions, Layered, Policy
from cohort.types.replay import Recall, completions, concat
from cohort.types.support import Support

# Largest difference between the engine's and the trainer's log-probabilities with which the engine's may stand in for
# old_logp: of the order of float32 rounding over a deep model, far below what moves a ratio.
MISMATCH_BOUND = 1e-3


@dataclass
class Progress:
    """What changes from step to step and goes into a checkpoint.

    Attributes:
        step: steps completed.
        states: of the method's stateful functions.
        tokens: tokens sampled so far; trained: those that went through an update, each time that one did.
        updates: updates made so far.
        skipped: updates skipped because loss or gradient was not finite; in_a_row: the last ones without a good one.
        mismatch: largest difference between engine and trainer at the last update.
    """

    step: int = 0
    states: dict[str, Any] = field(default_factory=dict)
    tokens: int = 0
    trained: int = 0
    updates: int = 0
    skipped: int = 0
    in_a_row: int = 0
    mismatch: float = 0.0


@dataclass
class StepResult:
    """What a step leaves for the record.

    Attributes:
        rollouts: all that were sampled; everything: the same as a batch, with what became of each (see `traced`).
        batch: those trained on, with their advantages and what the last updates made of them; None if there are none.
        trained: for each row of `batch`, the place of its rollout in `rollouts`.
        warnings: what the user should know of the step.
    """

    metrics: dict[str, float]
    rollouts: list[Rollout]
    everything: Batch
    batch: Batch | None = None
    trained: list[int] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def one_step(setup: Setup, optimizer: MasterWeights, progress: Progress) -> StepResult:
    """Sample, score, take advantages, update; `progress` moves on by one step at the very end."""
    config, method = setup.config, setup.method
    step, states = progress.step + 1, progress.states
    clock = Clock(setup)
    setup.collector.version = progress.updates
    setup.stand(progress.step)

    # for each prompt of the batch, sample G rollouts from the current policy, and reward them
    looked: list[Batch] = []
    sampled, kept, states = sample(setup, states, step, looked)
    scored = [rollout for rollout in sampled if rollout.scored]
    # What a filter has already looked at closely, in a single round, need not be looked at again.
    once = len(looked) == 1 and looked[0].size == len(scored)
    seen = looked[0] if once else attached(setup, states, batch_of(setup, scored, step), scored, step)
    states = method.observe(states, batch=seen, rollouts=scored, small_groups=False)

    # advantages, in the groups that carry a signal
    batch, kept = comparable(method, seen, scored, kept)
    batch = provide(setup, progress, batch, kept)
    made = method.prepared(batch, states)
    batch, rollouts = made.batch, [kept[i] for i in made.trained.tolist()]
    place = {id(rollout): i for i, rollout in enumerate(sampled)}
    everything = seen if len(scored) == len(sampled) else batch_of(setup, sampled, step)
    chosen = torch.tensor([place[id(rollout)] for rollout in kept], dtype=torch.int64)
    everything = traced(method, everything, made, chosen)
    clock.mark("score")

    # maximise the objective
    lr = config.optimisation.lr * factor(
        step, config.optimisation.steps, warmup=config.optimisation.warmup, schedule=config.optimisation.schedule
    )
    optimizer.set_lr(lr)
    recalls = method.recall(states) + beside(setup, progress, states, batch, step)
    actions = setup.policy.actions(rollouts)
    single = config.optimisation.updates * config.optimisation.epochs == 1 and not recalls
    batch = batch if single or not rollouts else with_old_logp(setup, progress, batch, actions)
    passes = Passes(setup, optimizer, progress, states)
    for recall in recalls:
        if recall.before:
            passes.update(recall.batch.to(batch.device), remembered(setup.policy, recall), on_policy=False)
    trained, actions = together(setup.policy, batch, actions, [recall for recall in recalls if not recall.before])
    for epoch in range(config.optimisation.epochs if trained.size else 0):
        for rows in minibatches(trained, config.optimisation.updates, generator(config.seed, step, epoch)):
            done = passes.update(trained.select(rows), actions.select(rows), on_policy=single)
            trained = written(trained, rows, done.fields)
            fresh = rows[rows < batch.size]
            if passes.mismatch is None and fresh.numel():
                passes.mismatch, progress.mismatch = mismatch(trained.select(fresh))
    batch = trained.select(torch.arange(batch.size, device=batch.device)) if trained.size else batch
    setup.collector.engine.sync()
    if rollouts:
        states = method.update(states, batch=batch, rollouts=rollouts, access=model_access(setup, rollouts, step))
    clock.mark("update")

    progress.step, progress.states = step, states
    setup.stand(step)
    progress.tokens += setup.collector.take_tokens()
    metrics = measured(everything, sampled, batch, passes.done, passes.norms)
    metrics |= {"mismatch": passes.mismatch or 0.0, "mismatch_max": progress.mismatch}
    metrics |= {"tokens": progress.tokens, "tokens_trained": progress.trained}
    metrics |= {"lr": lr, "skipped_updates": progress.skipped, **clock.times()}
    trained_on = [place[id(r)] for r in rollouts]
    warnings = notices(method, everything, sampled)
    return StepResult(metrics, sampled, everything, batch if rollouts else None, trained_on, warnings)


@dataclass
class Passes:
    """The updates of a step."""

    setup: Setup
    optimizer: MasterWeights
    progress: Progress
    states: Mapping[str, Any]
    done: list[Gradient] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    mismatch: float | None = None

    def update(self, minibatch: Batch, actions: Actions, *, on_policy: bool) -> Gradient:
        """One update; skipped and counted where loss or gradient is not finite."""
        setup, optimizer, progress = self.setup, self.optimizer, self.progress
        done = gradient(
            setup.policy,
            setup.method,
            self.states,
            minibatch,
            actions,
            temperature=setup.config.sampling.temperature,
            micro_tokens=setup.micro_tokens,
            on_policy=on_policy,
        )
        norm = float(torch.nn.utils.clip_grad_norm_(optimizer.params, setup.config.optimisation.grad_clip))
        finite = math.isfinite(norm) and math.isfinite(done.loss)
        if finite:
            optimizer.step()
            progress.updates += 1
            setup.policy.roles.move(progress.updates)
        optimizer.zero_grad()
        progress.in_a_row = 0 if finite else progress.in_a_row + 1
        progress.skipped += not finite
        progress.trained += int(minibatch.mask.sum())
        self.done.append(done)
        self.norms.append(norm)
        return done


def remembered(policy: Policy, recall: Recall) -> Actions:
    """The actions of recalled rollouts."""
    return policy.actions_after(recall.contexts, completions(recall.batch), recall.support)


def together(policy: Policy, batch: Batch, actions: Actions, recalls: Sequence[Recall]) -> tuple[Batch, Actions]:
    """The step's batch with recalled rollouts after its own."""
    if not recalls:
        return batch, actions
    parts = [remembered(policy, recall) for recall in recalls]
    # A step without rollouts has no fields that they would share.
    own = [batch] if batch.size else []
    whole = concat([*own, *(recall.batch.to(batch.device) for recall in recalls)])
    return whole, functools.reduce(operator.add, parts, actions)


def sample(
    setup: Setup, states: dict[str, Any], step: int, looked: list[Batch] | None = None
) -> tuple[list[Rollout], list[Rollout], dict[str, Any]]:
    """All rollouts of the step, those with a reward of the groups to train on, and the states with the curriculum's
    advanced.

    Where a filter refills, prompts are drawn again in place of those it removed.

    Args:
        looked: takes the batch of every round that a filter looked at, with what the method attached to it.
    """
    config, method = setup.config, setup.method
    now, kept_so_far = states, 0
    most = method.refill_rounds
    # Without a second round there is nothing to decide yet.
    filters = most > 1 and any(not stage.declared.after_advantage for stage in method.filter)

    def rounds() -> Any:
        nonlocal now
        number = 0
        while True:
            seed = derive(config.seed, step, number)
            missing = config.sampling.prompts_per_step - kept_so_far
            rows, now = method.pick(now, count=missing, rng=generator(seed, "curriculum"))
            # A prompt drawn twice in a round is one larger group.
            rows, times = torch.unique(rows, return_counts=True)
            counts = method.run("budget", now, rows, group_size=config.sampling.group_size) * times
            prompts = [setup.prompts[i] for i in rows.tolist()]
            rollouts = setup.collector.collect(
                method, now, prompts, counts.tolist(), seed=seed, step=step - 1, steps=config.optimisation.steps
            )
            groups: dict[str, list[Rollout]] = {}
            for rollout in rollouts:
                groups.setdefault(rollout.prompt.id, []).append(rollout)
            yield list(groups.values())
            number += 1

    def keep(groups: Sequence[Sequence[Rollout]]) -> list[bool]:
        nonlocal kept_so_far
        flat = [rollout for group in groups for rollout in group if rollout.scored]
        if not filters:
            return [True] * len(groups)
        batch = attached(setup, now, batch_of(setup, flat, step), flat, step)
        if looked is not None:
            looked.append(batch)
        if method.needs(loss=False) & {"old_logp", "ref_logp"}:
            batch = provide(setup, Progress(), batch, flat)
        batch, flat = comparable(method, batch, flat, flat)
        kept = method.keep(method.shape(batch, now), now, after_advantage=False)
        wanted = {flat[i].prompt.id for i in kept.tolist()}
        flags = [group[0].prompt.id in wanted for group in groups]
        kept_so_far += sum(flags)
        return flags

    drawn = refill(rounds(), keep, target=config.sampling.prompts_per_step, max_rounds=most)
    everything = [rollout for groups in drawn.rounds for group in groups for rollout in group]
    chosen = [rollout for at, group in drawn.chosen for rollout in drawn.rounds[at][group] if rollout.scored]
    return everything, chosen, now


def comparable(
    method: Method, batch: Batch, rollouts: Sequence[Rollout], kept: Sequence[Rollout]
) -> tuple[Batch, list[Rollout]]:
    """Of `kept`, the rows of the batch of `rollouts`, and the rollouts, whose groups are large enough for the method."""
    place = {id(rollout): i for i, rollout in enumerate(rollouts)}
    batch = batch.select(torch.tensor([place[id(rollout)] for rollout in kept], dtype=torch.int64))
    rows = method.comparable(batch)
    return batch.select(rows), [kept[i] for i in rows.tolist()]


def batch_of(setup: Setup, rollouts: Sequence[Rollout], step: int = 1) -> Batch:
    """Rollouts as tensors on the policy's device."""
    config, collector = setup.config, setup.collector
    lr = config.optimisation.lr * factor(
        step, config.optimisation.steps, warmup=config.optimisation.warmup, schedule=config.optimisation.schedule
    )
    notes = {
        "max_new_tokens": collector.budget,
        "reward_weights": collector.reward_weights,
        "reward_names": collector.reward_names,
        "step": step - 1,
        "steps": config.optimisation.steps,
        "seed": config.seed,
        "learning_rate": lr,
        "version": collector.version,
    }
    batch = make_batch(rollouts, setup.rows, extra=sorted(setup.method.drawn), notes=notes)
    return batch.to(setup.policy.device)


def model_access(setup: Setup, rollouts: Sequence[Rollout], step: int) -> ModelAccess:
    """What hooks that look at rollouts more closely are lent."""
    config, policy, renderer = setup.config, setup.policy, setup.policy.renderer

    def passes(
        contexts: Sequence[Sequence[int]],
        completions: Sequence[Sequence[int]],
        *,
        role: str = "policy",
        temperature: float | None = None,
        want: frozenset[str] = frozenset({"logp"}),
        support: Sequence[Support | None] = (),
    ) -> dict[str, torch.Tensor]:
        return log_probs(
            policy,
            policy.actions_after(contexts, completions, support),
            width=max((len(c) for c in completions), default=0) or 1,
            temperature=config.sampling.temperature if temperature is None else temperature,
            micro_tokens=setup.micro_tokens,
            want=want,
            role=role,
        )

    def layered() -> Layered:
        if not isinstance(policy, Layered):
            raise UsageError(f"'{setup.method.name}' looks into the layers of the model, and the policy has none")
        return policy

    def render(source: Any, schemas: Any = ()) -> tuple[int, ...]:
        return renderer.prompt(source, setup.collector.system, schemas)[1]

    return ModelAccess(
        rollouts,
        passes,
        lambda contexts, **how: layered().hidden_states(contexts, **how),
        lambda: layered().head_weight(),
        renderer.encode,
        renderer.decode,
        render,
        ask,
        step - 1,
        config.optimisation.steps,
        config.sampling.temperature,
        renderer.context_length,
    )


def attached(setup: Setup, states: Mapping[str, Any], batch: Batch, rollouts: Sequence[Rollout], step: int) -> Batch:
    """The batch with the fields that the method makes of its rollouts."""
    return setup.method.attach(batch, model_access(setup, rollouts, step), states) if rollouts else batch


def provide(setup: Setup, progress: Progress, batch: Batch, rollouts: Sequence[Rollout]) -> Batch:
    """The batch with the scored fields that the method reads before or during the update, and no others."""
    early, late = setup.method.needs(loss=False), setup.method.needs(loss=True)
    if not rollouts:
        return batch
    actions = setup.policy.actions(rollouts)
    if "old_logp" in early:
        batch = with_old_logp(setup, progress, batch, actions)
    if "ref_logp" in early | late:
        batch = batch.replace(ref_logp=_log_probs(setup, batch, actions, role="reference"))
    if "old_values" in early | late:
        batch = batch.with_tokens(old_values=_log_probs(setup, batch, actions, want="values"))
    return batch


def beside(setup: Setup, progress: Progress, states: Mapping[str, Any], batch: Batch, step: int) -> list[Recall]:
    """Stored completions to train on together with the step's rollouts, where the run has any (`pairs`): as many prompts
    as a step has. Fields that only rollouts have are 0 for them."""
    config, method = setup.config, setup.method
    if setup.pairs is None:
        return []
    rollouts = setup.pairs.draw(config.sampling.prompts_per_step, seed=config.seed, step=step)
    stored = attached(setup, states, batch_of(setup, rollouts, step), rollouts, step)
    if "old_logp" in method.needs(loss=True) | method.needs(loss=False):
        stored = stored.replace(old_logp=_log_probs(setup, stored, setup.policy.actions(rollouts)))
    stored = provide(setup, progress, stored, rollouts)
    tokens, others = {}, {}
    for name, value in batch.items():
        known = stored[name] if name in stored else None
        if name in batch.token_names and (known is None or name in SAMPLED):
            tokens[name] = value.new_zeros(*stored.mask.shape, *value.shape[2:])
        elif name not in batch.token_names and (known is None or known.shape[1:] != value.shape[1:]):
            others[name] = value.new_zeros(stored.size, *value.shape[1:])
    contexts = tuple(rollout.request.context for rollout in rollouts)
    return [Recall(stored.with_tokens(**tokens).with_rollouts(**others).to("cpu"), contexts)]


def with_old_logp(setup: Setup, progress: Progress, batch: Batch, actions: Actions) -> Batch:
    """The batch with the log-probabilities of the policy before the update: the engine's own, where they agree with
    the trainer's, or a pass of their own."""
    if "old_logp" in batch:
        return batch
    choice, collector = setup.config.optimisation.old_logp, setup.collector
    exact = collector.engine.exact and setup.policy.dtype == torch.float32 and progress.mismatch < MISMATCH_BOUND
    if not collector.samples or not (choice == "sampler" or (choice == "auto" and exact)):
        return batch.replace(old_logp=_log_probs(setup, batch, actions))
    drawn = batch["sampler_logp"]
    # What was not drawn in the context that is trained on must be scored there.
    rows = drawn.isnan().any(1).nonzero()[:, 0]
    if rows.numel():
        scored = _log_probs(setup, batch.select(rows), actions.select(rows.cpu()))
        drawn = drawn.index_put((rows,), torch.where(drawn[rows].isnan(), scored.to(drawn.dtype), drawn[rows]))
    return batch.replace(old_logp=drawn)


def _log_probs(
    setup: Setup, batch: Batch, actions: Actions, *, role: str = "policy", want: str = "logp"
) -> torch.Tensor:
    config = setup.config
    return log_probs(
        setup.policy,
        actions,
        width=batch.mask.shape[1],
        temperature=config.sampling.temperature,
        micro_tokens=setup.micro_tokens,
        want=frozenset({want}),
        role=role,
    )[want]


def minibatches(batch: Batch, count: int, rng: torch.Generator) -> list[torch.Tensor]:
    """Rows of `count` minibatches of whole groups, as equal in groups as can be; one minibatch keeps the batch's order."""
    if count == 1:
        return [torch.arange(batch.size, device=batch.device)]
    order = torch.randperm(batch.groups.count, generator=rng).to(batch.device)
    parts = [part for part in order.tensor_split(min(count, len(order))) if part.numel()]
    return [torch.isin(batch.groups.index, part).nonzero()[:, 0] for part in parts]


def written(batch: Batch, rows: torch.Tensor, fields: Mapping[str, torch.Tensor]) -> Batch:
    """The batch with fields of some of its rows written in."""
    new = {}
    for name, value in fields.items():
        whole = batch[name].clone() if name in batch else value.new_zeros(batch.mask.shape)
        whole[rows] = value
        new[name] = whole
    return batch.with_tokens(**new)


def mismatch(batch: Batch) -> tuple[float, float]:
    """Mean and largest difference between the log-probabilities of engine and trainer, for equal weights; NaN where the
    engine drew none of the tokens."""
    difference = (batch.logp - batch["sampler_logp"]).abs()[batch.mask]
    known = difference[~difference.isnan()]
    if known.numel():
        return float(known.mean()), float(known.max())
    return (math.nan, math.nan) if difference.numel() else (0.0, 0.0)


class Clock:
    """Seconds spent in the stages of a step."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.began = self.last = time.perf_counter()
        self.marks: dict[str, float] = {}
        setup.collector.seconds["sample"] = setup.collector.grader.seconds["reward"] = 0.0

    def mark(self, name: str) -> None:
        """The stage that ends now."""
        now = time.perf_counter()
        self.marks[name] = now - self.last
        self.last = now

    def times(self) -> dict[str, float]:
        sampling = self.setup.collector.seconds["sample"]
        reward = self.setup.collector.grader.seconds["reward"]
        compiled, self.setup.compile_seconds = self.setup.compile_seconds, 0.0
        return {
            **({"time/compile": compiled} if compiled else {}),
            "time/sample": sampling,
            "time/reward": reward,
            "time/score": max(0.0, self.marks.get("score", 0.0) - sampling - reward),
            "time/update": self.marks.get("update", 0.0),
            "time/step": time.perf_counter() - self.began,
        }
