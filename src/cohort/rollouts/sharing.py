"""Rollouts that runs share with each other: a source around another one."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from cohort.errors import UsageError, shown
from cohort.rollouts.exchange import Exchange, SharedGroup, packed, unpacked
from cohort.rollouts.sources import Drawn, RolloutSource, restore, snapshot
from cohort.seeds import derive, generator
from cohort.types import Context, Group, Message, Prompt, Request, Rollout, Segment, StepInfo, Turn, grouped
from cohort.types.declare import State
from cohort.types.policy import Renderer

RULES = ("varied", "best", "complete")
# Groups of others that are scored in a step, and characters a token of an answer can have at most.
SCORED, CHARACTERS = 64, 64


def varied(rewards: Sequence[Sequence[float]]) -> list[int]:
    """Groups whose rewards are not all equal. Source: arXiv:2509.08721."""
    return [i for i, group in enumerate(rewards) if max(group) > min(group)]


def best(rewards: Sequence[Sequence[float]], count: int) -> list[int]:
    """The `count` groups of the largest total, ascending, ties by place; never one of total 0. Source: gensyn-ai/genrl."""
    order = sorted(range(len(rewards)), key=lambda i: (sum(rewards[i]), i))
    return [i for i in order if sum(rewards[i]) != 0][-count:] if count else []


def complete(sizes: Sequence[int], size: int) -> list[int]:
    """Groups of exactly `size` answers. Source: gensyn-ai/rl-swarm."""
    return [i for i, each in enumerate(sizes) if each == size]


def plan(local: int, external: int, local_available: int, external_eligible: int) -> tuple[int, int]:
    """(groups of the run's own, groups of others) that a step trains on: as many as wanted, or as there are."""
    return min(local, local_available), min(external, external_eligible)


@dataclass
class Sharing:
    """The groups of a source, and some that other runs drew; its own are shared as texts.

    What comes from others is scored by the run's own rewards, and made of tokens by its own tokenizer, as if its policy had
    drawn it. A file of a run that is not as it must be is refused, and so is an answer that is too long, or has tokens in it
    that no text has. A run whose answers a reward function fails on is not read again.

    Attributes:
        external: groups of others in each step, at most.
        local: groups of the run's own that are trained on; None: all.
        rule: which groups of others (`varied`, `best` or `complete`).
        size: answers of a group of the run's own.
        grade: scores rollouts.
        prompts: prompts of the data set; questions that are none of these are refused, unless `unknown`.
        system: system message of the run, for such questions.
        node: names this run among those that share.
        seen: node -> the file of it that was read last: each is read once.
        refused: node -> why it is not read any more.
    """

    source: RolloutSource
    exchange: Exchange
    renderer: Renderer
    grade: Callable[[Sequence[Rollout]], list[Rollout]]
    prompts: Sequence[Prompt]
    external: int
    size: int
    max_new_tokens: int
    local: int | None = None
    rule: str = "varied"
    unknown: bool = False
    system: str | None = None
    node: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    seen: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._known = {_key(prompt.source): prompt for prompt in self.prompts}

    def next(self, info: StepInfo, states: Mapping[str, State]) -> Drawn:
        """The groups of the source, shared, and then those of others; see `RolloutSource.next`."""
        drawn = self.source.next(info, states)
        notes: list[str] = []
        over = [rollout for rollout in drawn.rollouts if rollout.scored and not rollout.waits]
        own = grouped(rollout for rollout in over if len(rollout.turns) <= 1)
        self._offer(own, info, notes)
        pool = self._pool(info, {rollout.prompt.id for rollout in drawn.replayed}, notes)
        taken = self._pick(pool, info)
        foreign = [rollout for i in taken for rollout in pool[i]]
        metrics = {"shared/groups": float(len(taken)), "shared/offered": float(len(pool))}
        return replace(
            drawn,
            chosen=[*self._local(drawn, info), *foreign],
            replayed=[*drawn.replayed, *foreign],
            metrics={**drawn.metrics, **metrics},
            notes=[*drawn.notes, *notes],
        )

    def _offer(self, groups: Sequence[Group], info: StepInfo, notes: list[str]) -> None:
        shared = [
            SharedGroup(
                group.prompt.source,
                tuple(rollout.text for rollout in group.rollouts),
                tuple(rollout.finished for rollout in group.rollouts),
                group.prompt.row,
            )
            for group in groups
        ]
        try:
            self.exchange.write(self.node, info.step, packed(shared))
        except OSError as error:
            notes.append(f"the step's rollouts could not be shared: {shown(error, 200)}")

    def _pool(self, info: StepInfo, taken: set[str], notes: list[str]) -> list[list[Rollout]]:
        """What others have shared since the last step, as scored rollouts, a group of each question."""
        try:
            files = self.exchange.newest(self.node)
        except OSError as error:
            notes.append(f"what other runs share could not be listed: {shown(error, 200)}")
            return []
        found: list[tuple[str, SharedGroup]] = []
        for node, name in files.items():
            if self.seen.get(node) == name or node in self.refused:
                continue
            self.seen[node] = name
            try:
                groups = unpacked(self.exchange.read(name), longest=CHARACTERS * self.max_new_tokens)
            except (OSError, ValueError) as error:
                notes.append(f"{name}, which another run shared, is refused: {shown(str(error), 200)}")
            else:
                found += [(node, group) for group in groups]
        order = torch.randperm(len(found), generator=generator(info.seed, info.step + 1, "shared")).tolist()
        out, rejected = [], 0
        for node, group in (found[i] for i in order[:SCORED]):
            if node in self.refused:
                continue
            rollouts = self._rollouts(group, info)
            if not rollouts or rollouts[0].prompt.id in taken:
                rejected += 1
                continue
            try:
                scored = [rollout for rollout in self.grade(rollouts) if rollout.scored]
            except Exception as error:
                self.refused[node] = shown(str(error), 200)
                notes.append(
                    f"the run {node} is not read any more: a reward failed on what it shared ({shown(str(error), 200)})"
                )
                continue
            if len(scored) > 1:
                taken.add(scored[0].prompt.id)
                out.append(scored)
        if rejected:
            notes.append(f"{rejected} groups that other runs shared are refused: unknown questions, or no such answers")
        return out

    def _pick(self, pool: Sequence[Sequence[Rollout]], info: StepInfo) -> list[int]:
        """Places of the groups that are trained on."""
        rewards = [[rollout.reward for rollout in group] for group in pool]
        if self.rule == "best":
            return best(rewards, self.external)
        eligible = varied(rewards) if self.rule == "varied" else complete([len(group) for group in pool], self.size)
        order = torch.randperm(len(eligible), generator=generator(info.seed, info.step + 1, "shared groups")).tolist()
        count = plan(0, self.external, 0, len(eligible))[1]
        return sorted(eligible[i] for i in order[:count])

    def _local(self, drawn: Drawn, info: StepInfo) -> list[Rollout]:
        """The run's own rollouts that are trained on."""
        if self.local is None:
            return drawn.chosen
        again = {id(rollout) for rollout in drawn.replayed}
        own = list(dict.fromkeys(rollout.prompt.id for rollout in drawn.chosen if id(rollout) not in again))
        count = plan(self.local, 0, len(own), 0)[0]
        order = torch.randperm(len(own), generator=generator(info.seed, info.step + 1, "local groups")).tolist()
        kept = {own[i] for i in order[:count]}
        return [rollout for rollout in drawn.chosen if id(rollout) in again or rollout.prompt.id in kept]

    def _rollouts(self, group: SharedGroup, info: StepInfo) -> list[Rollout]:
        """Answers of another run as rollouts; none if they cannot be the policy's."""
        prompt = self._known.get(_key(group.question)) or (self._asked(group) if self.unknown else None)
        if prompt is None:
            return []
        out = []
        for k, (text, ended) in enumerate(zip(group.answers, group.ended, strict=True)):
            try:
                tokens = self.renderer.encode_completion(prompt, text, end=ended)
            except UsageError:
                return []
            inside = tokens[:-1] if ended else tokens
            special = self.renderer.special_ids | self.renderer.stop_ids
            if not tokens or len(tokens) > self.max_new_tokens or not special.isdisjoint(inside):
                return []
            seed = derive(info.seed, info.step + 1, "shared", prompt.id, k)
            request = Request(prompt, Context(prompt.tokens), seed, self.max_new_tokens)
            said: Message = {"role": "assistant", "content": text}
            out.append(
                Rollout(
                    request,
                    (Segment(tokens, version=info.version),),
                    "finished" if ended else "truncated",
                    text,
                    f"{seed:016x}",
                    (Turn(0, len(tokens), (said,)),),
                )
            )
        return out

    def _asked(self, group: SharedGroup) -> Prompt | None:
        """The prompt of a question that is none of the run's own."""
        try:
            text, tokens = self.renderer.prompt(group.question, self.system)
        except UsageError:
            return None
        most = self.renderer.context_length
        if not tokens or (most is not None and len(tokens) + self.max_new_tokens > most):
            return None
        row = {**group.columns, "prompt": group.question}
        return Prompt(f"shared {_key(group.question)}", text, tokens, group.question, row, where="a shared question")

    def release(self, rollouts: Sequence[Rollout]) -> None:
        """Passed on."""
        self.source.release(rollouts)

    def snapshot(self) -> Any:
        return dict(self.seen), dict(self.refused), snapshot(self.source)

    def restore(self, held: Any) -> None:
        seen, refused, inner = held
        self.seen, self.refused = dict(seen), dict(refused)
        restore(self.source, inner)

    def state_dict(self) -> dict[str, Any]:
        """Who this run is to others, what it has read of them, and the state of the source."""
        return {
            "node": self.node,
            "seen": dict(self.seen),
            "refused": dict(self.refused),
            "source": self.source.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.node = state.get("node", self.node)
        self.seen, self.refused = dict(state.get("seen", {})), dict(state.get("refused", {}))
        self.source.load_state_dict(state.get("source", {}))


def _key(source: str | list[Message]) -> str:
    """A question as a text that is the same in every run."""
    return json.dumps(source, sort_keys=True)
