"""The run's policy as a judge: it answers questions as it is now, the likeliest token each time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cohort.engine.base import Sampling
from cohort.policies.renderer import TextRenderer
from cohort.rewards.judges.reply import Reply
from cohort.rollouts.collect import Collector
from cohort.seeds import derive
from cohort.types import Context, Message, Prompt, Request


def ask_policy(collector: Collector, questions: Sequence[list[dict[str, Any]]], tokens: int) -> list[Reply]:
    """A reply to each question; nothing of it is trained on. See `AskPolicy`.

    The run's system message, stop strings and biases are not the judge's.
    """
    renderer = collector.policy.renderer
    asking = replace(collector, sampling=Sampling(temperature=0.0, stop_ids=collector.sampling.stop_ids))
    limit = renderer.context_length
    replies: list[Reply | None] = []
    requests = []
    for number, messages in enumerate(questions):
        source: str | list[Message] = messages
        if not (isinstance(renderer, TextRenderer) and renderer.templated(source)):
            source = "\n\n".join(str(message["content"]) for message in messages) + "\n\n"
        text, context = renderer.prompt(source)
        room = tokens if limit is None else min(tokens, limit - len(context))
        if room < 1:
            why = f"the question has {len(context)} tokens, and the policy's context ends at {limit}"
            replies.append(Reply(error=f"the judge 'policy': {why}"))
            continue
        replies.append(None)
        seed = derive(0, "judge", number)
        requests.append(Request(Prompt("asked", text, context, source), Context(context), seed, room))
    before = asking.sampled_tokens
    drawn = iter(asking.generate(requests, alone=True) if requests else [])
    collector.sampled_tokens += asking.sampled_tokens - before
    return [_reply(next(drawn)) if reply is None else reply for reply in replies]


def _reply(rollout: Any) -> Reply:
    return Reply(rollout.text, len(rollout.context), len(rollout.tokens), rollout.finished)
