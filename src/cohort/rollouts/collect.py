"""From prompts to scored rollouts, and from rollouts to a batch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cohort.data.rows import columns_of
from cohort.engine.base import Completion, Engine, Sampling
from cohort.engine.stopping import first_stop
from cohort.methods import Method
from cohort.policies.causal_lm import CausalLM
from cohort.policies.sequences import Sequences
from cohort.rewards.calling import TrainerState
from cohort.rewards.scorer import Scorer
from cohort.seeds import derive, generator
from cohort.training.update import score
from cohort.types import Batch, Message, Prompt, Request, Rollout, Segment
from cohort.types.access import Sampler
from cohort.types.support import Candidates, Support

# Fields that every batch of rollouts has; the loop adds those that come from scoring.
ALWAYS = frozenset(
    {
        "rewards",
        "reward_components",
        "accuracy",
        "row",
        "truncated",
        "token_ids",
        "sampler_logp",
        "old_entropy",
        "version",
    }
)


@dataclass(frozen=True)
class Grader:
    """Rewards of rollouts.

    Attributes:
        scorer: runs the reward functions.
        accuracy: name of the component that says what is correct.
        verdict: what the share of rollouts that it calls correct is called.
        correct_at: value of that component from which a rollout counts as correct.
        max_new_tokens: generation budget, for rewards that depend on it.
        metrics: name -> the numbers that reward functions logged and nobody has taken yet.
        state: where the run stands, for reward functions that ask.
    """

    scorer: Scorer
    accuracy: str
    correct_at: float
    max_new_tokens: int
    verdict: str = "accuracy"
    failures: list[str] = field(default_factory=list)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    state: TrainerState = field(default_factory=TrainerState)
    seconds: dict[str, float] = field(default_factory=lambda: {"reward": 0.0})

    @property
    def weights(self) -> tuple[float, ...]:
        return tuple(spec.weight for spec in self.scorer.specs)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.scorer.specs)

    def grade(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """Rollouts with their components, reward and accuracy; `Rollout` says which have none."""
        if not rollouts:
            return []
        begin = time.perf_counter()
        scores = self.scorer.score(
            [r.prompt.source for r in rollouts],
            [r.text if isinstance(r.prompt.source, str) else [_assistant(r.text)] for r in rollouts],
            [r.tokens for r in rollouts],
            columns_of([r.prompt.row for r in rollouts]),
            where=[r.prompt.where or f"row {i}" for i, r in enumerate(rollouts, 1)],
            state=self.state,
            lent={"max_new_tokens": [self.max_new_tokens] * len(rollouts)},
        )
        self.seconds["reward"] += time.perf_counter() - begin
        self.failures.extend(scores.messages)
        for name, values in scores.metrics.items():
            self.metrics.setdefault(name, []).extend(values)
        out = []
        for i, rollout in enumerate(rollouts):
            components = {name: values[i] for name, values in scores.components.items()}
            failed = self.scorer.on_error == "skip" and i in scores.failed
            reward = math.nan if failed else weighted_sum(self.weights, components.values())
            right = None if failed else components[self.accuracy]
            accuracy = math.nan if right is None else float(right >= self.correct_at)
            logged = {column: values[i] for column, values in scores.extra.items()}
            out.append(
                rollout.but(components=components, reward=reward, accuracy=accuracy, failed=failed, logged=logged)
            )
        return out

    def take_metrics(self) -> dict[str, float]:
        """Means of what reward functions logged since the last call."""
        taken = {name: sum(values) / len(values) for name, values in self.metrics.items() if values}
        self.metrics.clear()
        return taken


def weighted_sum(weights: Iterable[float], values: Iterable[float | None]) -> float:
    """The reward of components with these weights, without those that do not apply (None); NaN if none applies.

    One of weight 0 is no part of it: it stands there for a method that reads it by name.
    """
    parts = list(zip(weights, values, strict=True))
    counted = [part for part in parts if part[0]] or parts
    known = [weight * value for weight, value in counted if value is not None]
    return sum(known) if known else math.nan


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


@dataclass
class Collector:
    """Draws rollouts of prompts.

    Attributes:
        system: system message of the run, for texts rendered while sampling.
        entropy_tokens: most padded tokens in a pass for entropies that are read but which the engine does not report;
            0 if nobody reads them.
        version: of the policy's weights: updates so far.
        unscored: rollouts without a reward that were drawn since `collect` began: guidance and sampling do not see them.
    """

    policy: CausalLM
    engine: Engine
    sampling: Sampling
    grader: Grader
    max_new_tokens: int
    system: str | None = None
    entropy_tokens: int = 0
    version: int = 0
    sampled_tokens: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"sample": 0.0})
    unscored: list[Rollout] = field(default_factory=list)

    @property
    def samples(self) -> bool:
        """True if its rollouts are drawn from the policy as it is."""
        return True

    @property
    def reward_names(self) -> tuple[str, ...]:
        """Of the components of its rollouts' rewards."""
        return self.grader.names

    @property
    def reward_weights(self) -> tuple[float, ...]:
        return self.grader.weights

    @property
    def budget(self) -> int:
        """Most tokens of a rollout."""
        return self.max_new_tokens

    def close(self) -> None:
        """End what runs beside the trainer: the reward functions' process, and what the engine has."""
        self.grader.scorer.close()
        self.engine.close()

    def generate(self, requests: Sequence[Request]) -> list[Rollout]:
        """A rollout for every request, in their order; not scored."""
        begin = time.perf_counter()
        done: list[Rollout | None] = [None] * len(requests)
        for place, completion in self.engine.generate(requests, self.sampling):
            done[place] = self._rollout(requests[place], completion)
            self.sampled_tokens += len(completion.tokens)
        rollouts = [rollout for rollout in done if rollout is not None]
        if self.entropy_tokens and not self.sampling.greedy:
            rollouts = self._with_entropies(rollouts)
        self.seconds["sample"] += time.perf_counter() - begin
        return rollouts

    def _with_entropies(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """Rollouts with the entropies that the engine did not report, from a pass of the policy."""
        out = list(rollouts)
        open_ = [i for i, rollout in enumerate(out) if any(map(math.isnan, rollout.sampler_entropy))]
        if open_:
            entropies = score(
                self.policy,
                Sequences.of([out[i] for i in open_]),
                width=max(len(out[i].tokens) for i in open_),
                temperature=self.sampling.temperature,
                micro_tokens=self.entropy_tokens,
                want=frozenset({"entropy"}),
            )["entropy"].tolist()
            for i, row in zip(open_, entropies, strict=True):
                out[i] = with_entropies(out[i], row)
        return out

    def take_tokens(self) -> int:
        """Tokens sampled since the last call."""
        taken, self.sampled_tokens = self.sampled_tokens, 0
        return taken

    def _rollout(self, request: Request, completion: Completion) -> Rollout:
        logp = completion.sampled_logp if completion.policy_logp is None else completion.policy_logp
        rule = self.sampling.rule(self.policy.stop_ids)
        sets: list[Candidates | None] | None = None if completion.candidates is None else [*completion.candidates]
        drawn = Segment(
            tuple(completion.tokens),
            logp=tuple(logp),
            entropy=tuple(completion.entropy),
            support=None if rule.free and sets is None else Support(rule, sets),
            version=self.version,
        )
        text = self._text([*request.prefix, *drawn.actions], completion.finished, completion.stop)
        return Rollout(request, (*request.history, drawn), completion.finished, text)

    def _text(self, tokens: Sequence[int], finished: bool, stop: str | None = None) -> str:
        before = self.policy.decode(tokens[:-1]) if finished else ""
        if stop is None:
            return before if finished else self.policy.decode(tokens)
        # The token that completes a stop string can begin before it.
        text = self.policy.decode(tokens)
        found = first_stop(text, before, (stop,))
        return text[: found[0]] if found else text

    def sampler(
        self, method: Method, states: Mapping[str, Any], rng: torch.Generator, seed: int, step: int = 0, steps: int = 1
    ) -> Sampler:
        """What the sampling and guidance axes are lent for a step."""

        def render(source: str | list[Message], schemas: Sequence[Mapping[str, Any]] = ()) -> tuple[int, ...]:
            return self.policy.prompt(source, self.system, schemas)[1]

        def draw(requests: Sequence[Request]) -> list[Rollout]:
            drawn = self.grader.grade(method.run("sampling", states, requests, sampler))
            self.unscored += [rollout for rollout in drawn if not rollout.scored]
            return [rollout for rollout in drawn if rollout.scored]

        def grade(rollouts: Sequence[Rollout]) -> list[Rollout]:
            return [rollout for rollout in self.grader.grade(rollouts) if rollout.scored]

        def ask(sources: Sequence[str | list[Message]]) -> list[str]:
            requests = []
            for source in sources:
                context = render(source)
                asked["count"] += 1
                prompt = Prompt("asked", str(source), context, source)
                requests.append(Request(prompt, context, derive(seed, "ask", asked["count"]), self._room(context)))
            return [rollout.text for rollout in self.generate(requests)]

        def cut(rollout: Rollout, count: int) -> Rollout:
            return rollout.but(
                segments=rollout.head(count), finished=False, text=self._text(rollout.tokens[:count], False)
            )

        asked = {"count": 0}
        sampler = Sampler(
            generate=lambda requests: self.generate([self._fitted(r) for r in requests]),
            draw=draw,
            grade=grade,
            ask=ask,
            render=render,
            encode=self.policy.encode,
            follow=self.policy.follow,
            cut=cut,
            rng=rng,
            step=step,
            steps=steps,
        )
        return sampler

    def _room(self, context: Sequence[int], prefix: Sequence[int] = ()) -> int:
        """Tokens that may still be drawn after a context and a prefix."""
        limit = self.policy.context_length or math.inf
        return int(max(1, min(self.max_new_tokens, limit - len(context) - len(prefix))))

    def _fitted(self, request: Request) -> Request:
        room = self._room(request.context, request.prefix)
        return request if request.max_new_tokens <= room else replace(request, max_new_tokens=room)

    def collect(
        self,
        method: Method,
        states: Mapping[str, Any],
        prompts: Sequence[Prompt],
        counts: Sequence[int],
        *,
        seed: int,
        step: int = 0,
        steps: int = 1,
    ) -> list[Rollout]:
        """Rollouts of prompts, `counts` of each, through the method's guidance and sampling, with those without a reward.

        Args:
            step, steps: steps completed, and steps of the run.
        """
        requests = [
            Request(prompt, prompt.tokens, derive(seed, prompt.id, k), self.max_new_tokens)
            for prompt, count in zip(prompts, counts, strict=True)
            for k in range(count)
        ]
        sampler = self.sampler(method, states, generator(seed, "tools"), seed, step, steps)
        self.unscored = []
        rollouts: list[Rollout] = method.run("guidance", states, requests, sampler)
        if self.unscored:
            # In their places, where the method drew what was asked for.
            place = {request.seed: i for i, request in enumerate(requests)}
            rollouts = sorted([*rollouts, *self.unscored], key=lambda r: place.get(r.request.seed, len(requests)))
        check_groups(rollouts, requests)
        return rollouts


def with_entropies(rollout: Rollout, values: Sequence[float]) -> Rollout:
    """The rollout with entropies (one a token, or more) where those of the policy's tokens are not known."""
    segments, at = [], 0
    for segment in rollout.segments:
        found = zip(segment.numbers(segment.entropy), values[at : at + len(segment)], strict=True)
        at += len(segment)
        segments.append(replace(segment, entropy=tuple(new if math.isnan(own) else own for own, new in found)))
    return rollout.but(segments=tuple(segments))


def check_groups(rollouts: Sequence[Rollout], requests: Sequence[Request]) -> None:
    """Rollouts belong to the prompts that were asked for, and one identity means one text.

    Raises:
        RuntimeError: rollouts of different prompts would be compared with each other.
    """
    asked = {request.prompt.id: request.prompt.text for request in requests}
    for rollout in rollouts:
        if asked.get(rollout.prompt.id) != rollout.prompt.text:
            raise RuntimeError(
                f"a rollout of the prompt {rollout.prompt.text!r} came with the identity {rollout.prompt.id}, which "
                f"belongs to {asked.get(rollout.prompt.id)!r}: its group would be wrong"
            )


def make_batch(
    rollouts: Sequence[Rollout],
    rows: Mapping[str, int],
    *,
    extra: Iterable[str] = (),
    notes: Mapping[str, Any] | None = None,
) -> Batch:
    """Rollouts as tensors on the CPU.

    Args:
        rows: prompt id -> row of the data set.
        extra: names in `Rollout.fields` to take over: a number of each rollout, or one of each of its tokens.
        notes: what axes may want to know of the run (`max_new_tokens`, `reward_weights`).
    """
    width = max((len(r.tokens) for r in rollouts), default=0) or 1
    lists = {name for r in rollouts for name, value in r.fields.items() if not isinstance(value, (int, float))}
    groups: dict[str, int] = {}

    def padded(values: Callable[[Rollout], Sequence[float]], dtype: torch.dtype) -> Tensor:
        out = torch.zeros(len(rollouts), width, dtype=dtype)
        for i, rollout in enumerate(rollouts):
            row = values(rollout)
            out[i, : len(row)] = torch.tensor(row, dtype=dtype)
        return out

    def per_rollout(values: Iterable[float], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.tensor(list(values), dtype=dtype)

    names = list(dict.fromkeys(name for r in rollouts for name in r.components))
    components = [[math.nan if (v := r.components.get(n)) is None else v for n in names] for r in rollouts]
    return Batch(
        mask=padded(lambda r: r.mask, torch.bool),
        tokens={
            "token_ids": padded(lambda r: r.tokens, torch.int64),
            "sampler_logp": padded(lambda r: r.sampler_logp, torch.float32),
            "old_entropy": padded(lambda r: r.sampler_entropy, torch.float32),
            "version": padded(lambda r: r.versions, torch.int64),
            **{name: padded(partial(_numbers, name), torch.float32) for name in extra if name in lists},
        },
        rollouts={
            "group": per_rollout((groups.setdefault(r.prompt.id, len(groups)) for r in rollouts), torch.int64),
            "row": per_rollout((rows.get(r.prompt.id, -1) for r in rollouts), torch.int64),
            "rewards": per_rollout(r.reward for r in rollouts),
            "reward_components": torch.tensor(components, dtype=torch.float32).reshape(len(rollouts), len(names)),
            "accuracy": per_rollout(0.0 if math.isnan(r.accuracy) else r.accuracy for r in rollouts),
            "truncated": per_rollout(float(not r.finished) for r in rollouts),
            # 1 and -1: the better and the worse of stored completions; 0: drawn.
            "preference": per_rollout(_number(r.fields.get("preference", 0.0)) for r in rollouts),
            **{name: per_rollout(_number(r.fields.get(name)) for r in rollouts) for name in extra if name not in lists},
        },
        notes=notes,
    )


def _number(value: Any) -> float:
    return math.nan if value is None else value


def _numbers(name: str, rollout: Rollout) -> Sequence[float]:
    found = rollout.fields.get(name)
    return [math.nan] * len(rollout.tokens) if not isinstance(found, Sequence) else found
