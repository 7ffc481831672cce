"""An episode for every request, with an environment of its own."""

from __future__ import annotations

from collections.abc import Sequence

from cohort.environments.factory import EnvironmentFactory
from cohort.policies.conversation import History
from cohort.rollouts.episode import Episode, Limits, why
from cohort.types import Request


def begin(
    factory: EnvironmentFactory, requests: Sequence[Request], limits: Limits = Limits(), history: History = "auto"
) -> list[Episode]:
    """An episode for every request; the environments of a prompt are made together."""
    groups: dict[str, list[int]] = {}
    for i, request in enumerate(requests):
        groups.setdefault(request.prompt.id, []).append(i)
    episodes = [
        Episode(
            request,
            None,
            factory.names,
            factory.answers,
            list(request.history),
            again=list(request.turns),
            start=_behind_answers(request) if request.turns else 0,
            limits=limits,
            history=history,
        )
        for request in requests
    ]
    for places in groups.values():
        prompt = requests[places[0]].prompt
        try:
            made = list(factory.make(prompt, len(places)))
            if len(made) != len(places):
                raise ValueError(f"{len(made)} environments were made for {len(places)} rollouts")
        except (Exception, SystemExit) as error:
            for i in places:
                episodes[i].fail(why("the environment could not be made", error))
        else:
            for i, environment in zip(places, made, strict=True):
                episodes[i].environment = environment
    return episodes


def _behind_answers(request: Request) -> int:
    """Where the turn begins that a request goes on with: behind the environment's last answer, or where a piece begins."""
    at, start = 0, request.context.last
    for segment in request.history:
        at += len(segment)
        start = max(start, at) if segment.writer == "environment" else start
    return start
