"""`verifiers:ID`: environments of verifiers 0.4, with their tasks, their tools and their rewards.

verifiers runs an episode by itself, and asks a model through an endpoint as OpenAI's are. Here the endpoint is the policy:
each request becomes an observation (of the messages that are new to it), and the policy's turn the response. The reward is
the sum of the task's rewards; an environment of several agents gives each its own.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import json
import pkgutil
import re
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from cohort.environments.adapters.shared import ROWS, needed, number
from cohort.environments.base import Observation, Step
from cohort.environments.spec import Maker
from cohort.errors import UsageError, shown

if TYPE_CHECKING:
    from cohort.types import Message

# What the header says which rollout a request belongs to.
SESSION = "X-Session-ID"


class Verifiers:
    """An environment of verifiers.

    Args:
        name: ID of a taskset: a package that is installed (`owner/name` of its hub, too).
        options: `env`, the ID of an environment that plays its tasks; `size`, most tasks; those with a dot set what stands
            there in the environment's configuration (`agent.max_turns=8`); all others are the taskset's.

    Raises:
        UsageError: the package is not installed, there is no such taskset, or its configuration is not taken.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.vf = needed("verifiers.v1", "verifiers")
        self.name = name
        self.size = number(options, "size", ROWS, whole=True, least=1)
        chat = importlib.import_module("cohort.environments.adapters.verifiers_chat")
        given: dict[str, Any] = {"taskset": {"id": name}}
        for key, value in options.items():
            if key == "env":
                given["id"] = value
            elif key != "size":
                _put(given, key if "." in key else f"taskset.{key}", value)
        try:
            config = self.vf.resolve_env_config(given)
            config = _local(self.vf, config, chat.ID)
            self.env = self.vf.load_environment(config)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise UsageError(_said_wrong(error)) from error
        self.alone = isinstance(self.env, self.vf.SingleAgentEnv)
        self.seats = [seat for seat, value in config if isinstance(value, self.vf.AgentConfig)]
        self._coming: Iterator[Any] = itertools.islice(self.env.taskset, self.size)
        self._tasks: list[Any] = []
        # They are loaded in threads, since a data set may be fetched for them.
        self._loading = threading.Lock()
        self.components = self._named()
        self.endpoint: Endpoint | None = None
        self._opening = asyncio.Lock()

    def task(self, place: int) -> Any:
        """The task at a place of the taskset.

        Raises:
            UsageError: there is none, or the taskset cannot be loaded.
        """
        with self._loading:
            while len(self._tasks) <= place:
                try:
                    self._tasks.append(next(self._coming))
                except StopIteration:
                    raise UsageError(f"the taskset has {len(self._tasks)} tasks, and none at {place}") from None
                except Exception as error:
                    raise UsageError(f"its tasks cannot be loaded: {shown(error, 500)}") from error
        return self._tasks[place]

    def rows(self, held_out: bool) -> Sequence[Mapping[str, Any]] | None:
        """A row a task; it says itself which of its tasks are for what."""
        if held_out:
            return None
        rows = []
        for place in itertools.count():
            try:
                data = self.task(place).data
            except UsageError:
                if place == 0:
                    raise
                break
            about = data.model_dump(mode="json", exclude_defaults=True, exclude={"prompt", "system_prompt", "idx"})
            rows.append({**about, "prompt": _prompt(data, self.name), "task": place})
            if len(rows) == self.size:
                break
        return rows

    def _named(self) -> tuple[str, ...]:
        """Names of the rewards and metrics of its tasks, as far as they are known before."""
        first = self.task(0)
        judges = [judge.reward_name for judge in first.plugged_judges()]
        hooks = [hook.__name__ for kind in ("reward", "metric") for hook in first.hooks(kind)]
        return tuple(dict.fromkeys([*hooks, *judges]))

    async def served(self) -> Endpoint:
        """The endpoint, and what else its episodes need, for as long as this process lives."""
        async with self._opening:
            if self.endpoint is None:
                self._serving = self.env.serving()
                await self._serving.__aenter__()
                endpoint = Endpoint()
                await endpoint.open()
                self.endpoint = endpoint
        return self.endpoint

    async def close(self) -> None:
        """End what `served` began, in the loop in which it did."""
        if self.endpoint is not None:
            await self.endpoint.close()
            await self._serving.__aexit__(None, None, None)


@dataclass
class Asked:
    """A request of a rollout's, and where its response goes."""

    trace: Any
    messages: list[Message]
    tools: list[dict[str, Any]]
    answer: asyncio.Future[Message]


class Endpoint:
    """Takes requests as OpenAI's endpoint does, and hands each to the episode whose rollout asks."""

    def __init__(self) -> None:
        self.episodes: dict[str, Episode] = {}
        self.secret = uuid.uuid4().hex
        self.url = ""

    async def open(self) -> None:
        """Listen on a port of this machine that is free."""
        from aiohttp import web

        app = web.Application(client_max_size=256_000_000)
        app.router.add_post(f"/{self.secret}/v1/chat/completions", self._complete)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        host, port = self.runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/{self.secret}/v1"

    async def close(self) -> None:
        """Listen no longer."""
        await self.runner.cleanup()

    async def _complete(self, request: Any) -> Any:
        from aiohttp import web

        body = await request.json()
        episode = self.episodes.get(request.headers.get(SESSION, ""))
        if episode is None:
            return web.json_response({"error": {"message": "no episode asks this"}}, status=404)
        said = await episode.ask(request.headers[SESSION], body["messages"], body.get("tools") or [])
        reply = _completion(said, body.get("model", ""))
        if not body.get("stream"):
            return web.json_response(reply)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for part in _streamed(reply):
            await response.write(f"data: {part}\n\n".encode())
        return response


class Episode:
    """One episode of an environment of verifiers."""

    def __init__(self, of: Verifiers) -> None:
        self.of = of
        self.running: asyncio.Task[Any] | None = None
        self.asked: asyncio.Queue[Asked] = asyncio.Queue()
        self.open: Asked | None = None
        self.answers: set[asyncio.Future[Message]] = set()
        # Of each rollout: its trace, who speaks in it, and what was said so far.
        self.traces: dict[str, Any] = {}
        self.agents: dict[str, str] = {}
        self.said: dict[str, list[Message]] = {}

    async def reset(self, row: Mapping[str, Any], seed: int) -> Observation:
        """Begin the episode of the row's task; the seed picks one where it names none."""
        self.endpoint = await self.of.served()
        place = row.get("task")
        task = await asyncio.to_thread(self.of.task, int(place if place is not None else seed % self.of.size))
        vf = self.of.vf
        client = vf.EvalClientConfig(base_url=self.endpoint.url, api_key_var="COHORT_NO_KEY")
        context = vf.ModelContext(model="policy", client=client)
        self.running = asyncio.create_task(self.of.env.run_episode(task, context, on_trace=self._begun))
        asked = await self._next()
        if asked is None:
            episode = self.running.result()
            raise RuntimeError(_why(episode) or "the episode ended before anything was asked")
        return self._seen(asked)

    async def step(self, message: Message) -> Step:
        """Answer what was asked, and wait for the next question, or the end."""
        answered = self.open
        assert answered is not None
        assert self.running is not None
        self.said[answered.trace] = [*answered.messages, message]
        answered.answer.set_result(message)
        asked = await self._next()
        if asked is not None:
            return Step(self._seen(asked))
        episode = self.running.result()
        if problem := _why(episode):
            raise RuntimeError(problem)
        return self._scored(episode, answered.trace)

    async def close(self) -> None:
        """End what goes on."""
        for trace in self.traces:
            self.endpoint.episodes.pop(trace, None)
        if self.running is not None and not self.running.done():
            self.running.cancel()
            await asyncio.gather(self.running, return_exceptions=True)
        for answer in self.answers:
            answer.cancel()

    async def ask(self, trace: str, messages: list[Message], tools: list[dict[str, Any]]) -> Message:
        """What the policy says to a request of a rollout's."""
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self.answers.add(answer)
        try:
            await self.asked.put(Asked(trace, messages, tools, answer))
            return await answer
        finally:
            self.answers.discard(answer)

    def _begun(self, trace: Any) -> None:
        """A rollout begins: whose it is. Of a seat that plays several, each is an agent of its own."""
        seat = trace.agent.name or self.of.seats[0]
        before = sum((other.agent.name or self.of.seats[0]) == seat for other in self.traces.values())
        name = "" if self.of.alone else seat
        self.agents[trace.id] = name if before == 0 else f"{seat} {before + 1}"
        self.traces[trace.id], self.said[trace.id] = trace, []
        self.endpoint.episodes[trace.id] = self

    async def _next(self) -> Asked | None:
        """What is asked next; None if the episode is over."""
        assert self.running is not None
        coming = asyncio.create_task(self.asked.get())
        await asyncio.wait({coming, self.running}, return_when=asyncio.FIRST_COMPLETED)
        if coming.done():
            self.open = coming.result()
        else:
            coming.cancel()
            self.open = None
        return self.open

    def _seen(self, asked: Asked) -> Observation:
        """What of a request is new to its rollout; all of it, in a new context, where it does not go on from what was said."""
        before = self.said[asked.trace]
        goes_on = _goes_on(before, asked.messages)
        new = asked.messages[len(before) :] if goes_on else asked.messages
        agent = self.agents[asked.trace]
        return Observation([_plain(m) for m in new], tools=asked.tools, agent=agent, fresh=not goes_on)

    def _scored(self, episode: Any, last: str) -> Step:
        """The rewards of all agents, that of the one who spoke last as the turn's."""
        rewards = {self.agents[trace.id]: float(trace.reward) for trace in episode.traces if trace.id in self.agents}
        mine = self.traces[last]
        named = {name: reward and reward.value for name, reward in mine.rewards.items()}
        parts = {name: value for name, value in {**mine.metrics, **named}.items() if name in self.of.components}
        return Step(
            reward=rewards.pop(self.agents[last], 0.0),
            components={name: float(value) for name, value in parts.items() if value is not None},
            done=True,
            rewards={name: value for name, value in rewards.items() if name},
        )


def load(name: str, options: Mapping[str, Any]) -> Maker:
    """The maker of its environments; see `Verifiers`."""
    of = Verifiers(name, options)
    return Maker(lambda: Episode(of), of.components, waits=True, rows=of.rows)


def _said_wrong(error: Exception) -> str:
    """What is wrong with a configuration, in a line."""
    if not hasattr(error, "errors"):
        return str(error)
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())


def ids() -> list[str]:
    """The tasksets that come with it, and the packages installed that need it: their tasksets are called as they are."""
    tasksets = needed("verifiers.v1.tasksets", "verifiers")
    own = [each.name for each in pkgutil.iter_modules(tasksets.__path__)]
    needing = [
        each.name.replace("-", "_").lower()
        for each in metadata.distributions()
        if any(re.match(r"verifiers\b", needs) for needs in each.requires or ())
    ]
    return sorted({*own, *needing})


def _put(config: dict[str, Any], path: str, value: Any) -> None:
    """Set what stands at a path of names."""
    *way, last = path.split(".")
    for name in way:
        config = config.setdefault(name, {})
    config[last] = value


def _local(vf: Any, config: Any, chat: str) -> Any:
    """The configuration with agents that chat, on this machine, where it does not say otherwise."""
    given: dict[str, Any] = {}
    usual = vf.default_harness_id(config.taskset.id) == "bash"
    for seat, agent in config:
        if isinstance(agent, vf.AgentConfig):
            update: dict[str, Any] = {}
            if "runtime" not in agent.model_fields_set:
                update["runtime"] = vf.SubprocessConfig()
            if usual and (agent.harness is None or agent.harness.id == "null"):
                update["harness"] = vf.HarnessConfig(id=chat)
            given[seat] = agent.model_copy(update=update)
    return config.model_copy(update=given)


def _prompt(data: Any, name: str) -> str | list[Message]:
    """What a task shows first, or its name where that is not known before it is played."""
    if data.prompt is None:
        return data.description or data.name or f"{name}, task {data.idx}"
    system = [{"role": "system", "content": data.system_prompt}] if data.system_prompt else []
    if isinstance(data.prompt, str):
        return [*system, {"role": "user", "content": data.prompt}]
    return [*system, *(_plain(message.model_dump(exclude_none=True)) for message in data.prompt)]


def _plain(message: Message) -> Message:
    """A message whose content is a text, as far as it is made of texts."""
    content = message.get("content")
    if isinstance(content, list) and all(part.get("type") == "text" for part in content):
        content = "\n".join(part["text"] for part in content)
    return {**message, "content": content if content is not None else ""}


def _goes_on(before: Sequence[Message], now: Sequence[Message]) -> bool:
    """Whether messages begin with those of a conversation."""

    def same(a: Message, b: Message) -> bool:
        texts = [str(_plain(each)["content"]).strip() for each in (a, b)]
        return bool(a["role"] == b["role"]) and texts[0] == texts[1]

    return len(before) < len(now) and all(map(same, before, now))


def _why(episode: Any) -> str:
    """Why an episode failed; empty if it did not."""
    errors = [*episode.errors, *(error for trace in episode.traces for error in trace.errors)]
    if episode.ok:
        return ""
    return "; ".join(f"{error.type}: {error.message}" for error in errors[:3]) or "the episode did not end well"


def _completion(said: Message, model: str) -> dict[str, Any]:
    """What the policy said, as a response of the endpoint."""
    calls = [_call(call) for call in said.get("tool_calls") or ()]
    message = {"role": "assistant", "content": said.get("content") or ("" if not calls else None)}
    if thought := said.get("reasoning_content"):
        message["reasoning_content"] = thought
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
    about = {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": "chat.completion", "created": int(time.time())}
    return {**about, "model": model, "choices": [choice]}


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function", call)
    arguments = function.get("arguments") or {}
    written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    about = {"name": function["name"], "arguments": written}
    return {"id": call.get("id") or f"call_{uuid.uuid4().hex[:12]}", "type": "function", "function": about}


def _streamed(reply: Mapping[str, Any]) -> Iterator[str]:
    """A response as the events of a stream: all of it in one."""
    choice = reply["choices"][0]
    delta = dict(choice["message"])
    if "tool_calls" in delta:
        delta["tool_calls"] = [{"index": i, **call} for i, call in enumerate(delta["tool_calls"])]
    chunk = {"index": 0, "delta": delta, "finish_reason": choice["finish_reason"]}
    yield json.dumps({**reply, "object": "chat.completion.chunk", "choices": [chunk]})
    yield "[DONE]"
