"""Runs episodes: has turns drawn, asks environments what comes of them, and makes rollouts of it all.

    reset the environment                   its observation is the context
    repeat:
        draw a turn behind what stands there
        step the environment with it        its observation is appended
    until it is done, or the budget is

Episodes do not wait for each other: the next turn of one is submitted as soon as its environment has answered, while
others are being drawn. Sampled actions are appended to, never turned into text and back.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cohort.engine.base import Completion, Engine, Sampling
from cohort.engine.stopping import first_stop
from cohort.environments.base import beginning, observed, stepped
from cohort.environments.factory import EnvironmentFactory
from cohort.errors import UsageError
from cohort.policies.conversation import History
from cohort.policies.passes import log_probs
from cohort.rollouts.answers import GRACE, Answered, Answers
from cohort.rollouts.beginning import begin
from cohort.rollouts.episode import Episode, EpisodeError, Limits, in_texts, why
from cohort.types import Request, Rollout, Segment
from cohort.types.policy import Policy
from cohort.types.rollout import over_parts
from cohort.types.soft import Mixer
from cohort.types.support import Candidates, Support


@dataclass(frozen=True)
class Runner:
    """Runs one episode for every request.

    Attributes:
        environments: what answers the policy.
        system: system message of the run, for what environments show first.
        limits: where episodes end that do not end by themselves.
        seconds: `idle` counts those in which nothing was drawn, since all episodes waited for their environments.
        version: of the policy's weights: updates so far.
        entropy_tokens: most padded tokens in a pass for entropies that are read but which the engine does not report;
            0 if the method does not read them.
        history: what becomes of what was said before where the chat template rewrites it; see
            `cohort.policies.conversation`.
    """

    policy: Policy
    engine: Engine
    sampling: Sampling
    environments: EnvironmentFactory
    system: str | None = None
    version: int = 0
    entropy_tokens: int = 0
    limits: Limits = field(default_factory=Limits)
    history: History = "auto"
    seconds: dict[str, float] = field(default_factory=lambda: {"idle": 0.0})

    def run(self, requests: Sequence[Request]) -> list[Rollout]:
        """A rollout for every request, in their order; not scored.

        What fails in an environment ends its own episode (status "failed"), and no other.
        """
        episodes = _Run(self).finish(begin(self.environments, requests, self.limits, self.history))
        return over_parts(self.with_entropies, [episode.rollout() for episode in episodes])

    def text(self, tokens: Sequence[int], finished: bool, stop: str | None = None) -> str:
        """The text of a turn's tokens, without the stop token that ends it, or the stop string and what follows it."""
        before = self.policy.renderer.decode(tokens[:-1]) if finished else ""
        if stop is None:
            return before if finished else self.policy.renderer.decode(tokens)
        # The token that completes a stop string can begin before it.
        text = self.policy.renderer.decode(tokens)
        found = first_stop(text, before, (stop,))
        return text[: found[0]] if found else text

    def cut(self, rollout: Rollout, count: int) -> Rollout:
        """A rollout shortened to its first `count` tokens, unfinished, its text renewed."""
        turns = [turn for turn in rollout.turns if turn.start < count]
        start = turns[-1].start if turns else 0
        said = {"role": "assistant", "content": self.text(rollout.tokens[start:count], False)}
        if turns and turns[-1].end >= count:
            turns[-1] = replace(turns[-1], end=count, messages=(said,), text=None)
        texts = [text for turn in turns for text in turn.texts]
        text = "\n\n".join(texts) if turns else str(said["content"])
        end = rollout.end and "tokens"
        return rollout.replace(segments=rollout.head(count), turns=tuple(turns), status="truncated", text=text, end=end)

    def with_entropies(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """Rollouts with the entropies that no engine reported, from a pass of the policy, where the method reads them."""
        out = list(rollouts)
        if not self.entropy_tokens or self.sampling.greedy:
            return out
        open_ = [i for i, rollout in enumerate(out) if any(map(math.isnan, rollout.sampler_entropy))]
        if open_:
            entropies = log_probs(
                self.policy,
                self.policy.actions([out[i] for i in open_]),
                width=max(len(out[i].tokens) for i in open_),
                temperature=self.sampling.temperature,
                micro_tokens=self.entropy_tokens,
                want=frozenset({"entropy"}),
            )["entropy"].tolist()
            for i, row in zip(open_, entropies, strict=True):
                out[i] = with_entropies(out[i], row)
        return out


def with_entropies(rollout: Rollout, values: Sequence[float]) -> Rollout:
    """The rollout with entropies (one a token, or more) where those of the policy's tokens are not known."""
    segments, at = [], 0
    for segment in rollout.segments:
        found = zip(segment.numbers(segment.entropy), values[at : at + len(segment)], strict=True)
        at += len(segment)
        segments.append(replace(segment, entropy=tuple(new if math.isnan(own) else own for own, new in found)))
    return rollout.replace(segments=tuple(segments))


# An episode, and what its environment was asked to do.
Asked = tuple[Episode, str]


class _Run:
    """Episodes that run together."""

    def __init__(self, runner: Runner) -> None:
        self.runner, self.renderer = runner, runner.policy.renderer
        self.session = runner.engine.session(runner.sampling)
        self.rule = runner.sampling.rule(self.renderer.stop_ids)
        self.answers: Answers[Asked] = Answers()
        self.drawing: dict[int, Episode] = {}
        # By conversation, the number of the turn that was drawn last, which its next one goes on from.
        self.last: dict[int, int] = {}
        self.open: set[int] = set()

    def finish(self, episodes: list[Episode]) -> list[Episode]:
        """Run them to their ends."""
        try:
            for episode in episodes:
                if episode.environment is not None:
                    self.open.add(id(episode))
                    self._ask(episode, "reset", episode.request.prompt.row, episode.seed())
            self._take_answers()
            if self.runner.environments.turns == 1 and not self.answers.pending:
                self.session.end()
            while self.session.waiting or self.answers.pending:
                self._draw()
                self._take_answers()
        finally:
            self._close(episodes)
        return episodes

    def _draw(self) -> None:
        """Wait for the next turn, or for an answer, whichever comes first."""
        if not self.session.waiting:
            began = time.perf_counter()
            self.answers.wait()
            self.runner.seconds["idle"] += time.perf_counter() - began
            return
        found = self.session.next_unless(self.answers.came) if self.answers.pending else self.session.next()
        if found is None:
            return
        number, completion = found
        episode = self.drawing.pop(number)
        self._forget(episode)
        self.last[id(episode)] = number
        tokens = episode.actions[episode.start :]
        text = self.runner.text([*tokens, *completion.tokens], completion.finished, completion.stop)
        parts = completion.parts or [(self.runner.version, completion)]
        segments = [self._segment(part, episode.request.mixer, version) for version, part in parts]
        episode.drawn(segments, text, completion.finished, self.renderer)
        if episode.status is None:
            self._ask(episode, "step", episode.said)
        else:
            self._end(episode)

    def _segment(self, completion: Completion, mixer: Mixer | None, version: int) -> Segment:
        logp = completion.sampled_logp if completion.policy_logp is None else completion.policy_logp
        sets: list[Candidates | None] | None = None if completion.candidates is None else [*completion.candidates]
        return Segment(
            tuple(completion.tokens),
            logp=tuple(logp),
            entropy=tuple(completion.entropy),
            support=None
            if self.rule.free and sets is None and mixer is None
            else Support(self.rule, sets, completion.soft, mixer),
            version=version,
        )

    # environments --------------------------------------------------------------------------------------------------

    def _ask(self, episode: Episode, what: str, *given: Any) -> None:
        self.answers.ask((episode, what), lambda: getattr(episode.environment, what)(*given))

    def _take_answers(self) -> None:
        while (answer := self.answers.take()) is not None:
            episode, what = answer.who
            follows = episode
            if what == "close":
                if answer.error is not None:
                    warnings.warn(why("an environment did not close", answer.error), RuntimeWarning, stacklevel=4)
                continue
            if what in ("finish", "lend"):
                self._take_last(episode, what, answer)
                continue
            try:
                if answer.error is not None:
                    raise EpisodeError(why(f"the environment's {what} failed", answer.error))
                follows = self._take(episode, what, answer.value)
            except EpisodeError as error:
                episode.fail(str(error))
            except (TypeError, ValueError, UsageError) as error:
                # What it gave is not what an environment gives, or cannot be shown to this policy.
                episode.fail(f"the environment's {what}: {error}")
            if follows.status is not None:
                self._end(follows)
            elif follows.again:
                self._ask(follows, "step", follows.again[0].messages[0])
            elif follows.spoken(self.rule.stop_ids):
                follows.say(self.runner.text(follows.actions[follows.start :], True), True, self.renderer)
                self._ask(follows, "step", follows.said)
            else:
                self.drawing[self.session.submit(follows.order(self.renderer))] = follows

    def _take(self, episode: Episode, what: str, value: Any) -> Episode:
        """Take an answer; the conversation that goes on with it, or ended the episode."""
        if what == "reset":
            first = beginning(in_texts(observed(value, first=True)), episode.request.prompt.source)
            episode.begin(first, self.renderer, self.runner.system)
            return episode
        step = stepped(value, self.runner.environments.components)
        seen = None if step.done else in_texts(observed(step.observation))
        if episode.again:
            episode.live_again(step, seen)
            return episode
        return episode.take(step, seen, self.renderer, self.runner.system)

    def _forget(self, episode: Episode) -> None:
        """Nothing goes on any more from the turn that was drawn last."""
        if id(episode) in self.last:
            self.session.forget(self.last.pop(id(episode)))

    def _end(self, episode: Episode) -> None:
        episode.end()
        for each in episode.cast:
            self._forget(each)
        first = episode.cast[0]
        if id(first) in self.open:
            self.open.discard(id(first))
            factory = self.runner.environments
            if factory.finishes and first.cut and first.status != "failed":
                first.last.append("finish")
            if factory.lends and first.status != "failed":
                first.last.append("lend")
            self._ask_last(first)

    def _ask_last(self, episode: Episode) -> None:
        """Ask the next of what an environment is asked at the end."""
        what = episode.last.pop(0) if episode.last else "close"
        self._ask(episode, what)

    def _take_last(self, episode: Episode, what: str, answer: Answered[Asked]) -> None:
        try:
            if answer.error is not None:
                raise EpisodeError(why(f"the environment's {what} failed", answer.error))
            if what == "lend":
                episode.lent = answer.value
            else:
                episode.count(stepped(answer.value, self.runner.environments.components))
        except (EpisodeError, TypeError, ValueError) as error:
            for each in episode.cast:
                each.fail(str(error))
            episode.last.clear()
        self._ask_last(episode)

    def _close(self, episodes: list[Episode]) -> None:
        """Give all back. Where the run is given up, environments have a moment to close."""
        self.session.close()
        for episode in episodes:
            self._end(episode)
        while self.answers.pending and self.answers.wait(GRACE):
            self._take_answers()
        self._take_answers()
        self.answers.close()
