"""`openenv:URL`: environments that an OpenEnv server serves, a WebSocket session an episode.

An observation's fields are shown a line each, one field alone as it is. An action is the text of the policy where the
server's actions have one field, else a JSON object with its fields; of a server of tools it is a call of one of them, and an
answer that calls none ends the episode. The reward is the server's, a step.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cohort.environments.adapters.shared import ROWS, needed, number, said, seeded
from cohort.environments.base import Observation, Step
from cohort.environments.spec import Maker
from cohort.errors import UsageError

if TYPE_CHECKING:
    from cohort.types import Message

# Seconds to wait for the server's answers about itself.
PATIENCE = 10.0
# Titles of the actions of servers that serve tools.
_TOOLS = {"Action", "CallToolAction", "ListToolsAction"}
_FENCED = re.compile(r"```(?:json)?\s*\n(.*?)```", re.S)
# Fields of a message of the server's beside what is to be seen.
_APART = {"done", "reward", "metadata"}


class Server:
    """What a server says of itself.

    Args:
        url: where it is.
        options: `size` and `seed` of the rows, where it has no tasks of its own; `split` of its tasks; `instructions`, shown
            first; `wait`, most seconds to wait for a session, where all are taken or the server is being started again;
            `invalid_reward` of an answer that is no action.

    Raises:
        UsageError: the package is not installed, there is no such server, or an option that there is not.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.openenv = needed("openenv", "openenv")
        self.url = url.rstrip("/") if "://" in url else f"http://{url.rstrip('/')}"
        unknown = sorted(options.keys() - {"size", "seed", "split", "wait", "invalid_reward", "instructions"})
        if unknown:
            raise UsageError(f"it has no option {unknown[0]}")
        self.size = number(options, "size", ROWS, whole=True, least=1)
        self.seed = number(options, "seed", 0, whole=True, least=0)
        self.wait = number(options, "wait", 30.0, least=0)
        self.invalid_reward = number(options, "invalid_reward", 0.0)
        self.split = options.get("split")
        self.action: dict[str, Any] = self._asked("/schema")["action"]
        self.tools = self.action.get("title") in _TOOLS
        about = self._asked("/metadata", {})
        self.prompt = str(options.get("instructions") or about.get("description") or about.get("name") or self.url)

    @property
    def fields(self) -> dict[str, Any]:
        """Name -> schema of an action's fields."""
        return {name: of for name, of in self.action.get("properties", {}).items() if name != "metadata"}

    @property
    def only(self) -> str | None:
        """The field of an action that a text alone says; None if there is more to say."""
        required = [name for name in self.action.get("required", ()) if name in self.fields] or list(self.fields)
        return required[0] if len(required) == 1 else None

    @property
    def told(self) -> str:
        """How the policy is to act."""
        if self.tools or (self.only and self.fields[self.only].get("type") == "string"):
            return ""
        if self.only:
            return f"Answer with {_described(self.only, self.fields[self.only])}."
        parts = "; ".join(_described(name, of) for name, of in self.fields.items())
        return f"Answer with a JSON object of {parts}."

    def rows(self, held_out: bool) -> Sequence[Mapping[str, Any]] | None:
        """Its tasks where it has some, else a row a seed."""
        split = self._split(held_out)
        if split is not None:
            name = self._asked("/list_environments")[0]
            count = self._asked(f"/{name}/num_tasks", split=split)["num_tasks"]
            return [{"prompt": self.prompt, "split": split, "index": i} for i in range(count)]
        if self.split is not None:
            raise UsageError(f"the server has no split {self.split!r} of tasks")
        return seeded(self.prompt, self.size, self.seed, held_out)

    def _split(self, held_out: bool) -> Any:
        names = self._asked("/list_environments", [])
        splits = self._asked(f"/{names[0]}/splits", []) if names else []
        kinds = [(split["name"], str(split.get("type") or split["name"])) for split in splits]
        if self.split is not None and not held_out:
            return next((name for name, _ in kinds if name == self.split), None)
        wanted = ("validation", "valid", "dev", "test") if held_out else ("train",)
        return next((name for want in wanted for name, kind in kinds if want == kind), None)

    def _asked(self, path: str, default: Any = None, **given: Any) -> Any:
        """What the server answers at a path; the default where it does not know that path."""
        import httpx2

        try:
            with httpx2.Client(timeout=PATIENCE) as client:
                answer = client.post(self.url + path, json=given) if given else client.get(self.url + path)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise UsageError(
                f"no OpenEnv server answers at {self.url} ({error}); start it first, and give its address as "
                "openenv:http://HOST:PORT"
            ) from error
        if answer.status_code >= 400 and default is not None:
            return default
        try:
            answer.raise_for_status()
            return answer.json()
        except (httpx2.HTTPError, ValueError) as error:
            raise UsageError(f"what answers at {self.url} is no OpenEnv server ({path}: {error})") from error


class Session:
    """One episode on a server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.client: Any = None
        self.socket: Any = None

    async def reset(self, row: Mapping[str, Any], seed: int) -> Observation:
        """Open a session; all columns of the row but the prompt go to the server's reset."""
        given = {"seed": seed % 2**32, **{key: value for key, value in row.items() if key != "prompt"}}
        result = await self._opened(given)
        tools: list[dict[str, Any]] = []
        if self.server.tools:
            listed = await self.client.step({"type": "list_tools"})
            tools = [_schema(tool) for tool in listed.observation["tools"]]
        parts = (str(row.get("prompt") or self.server.prompt), self.server.told, texts(result.observation))
        return Observation("\n\n".join(filter(None, parts)), tools=tools)

    async def step(self, message: Message) -> Step:
        """Have the server take the policy's action."""
        if self.server.tools and not message.get("tool_calls"):
            return Step(done=True)
        self._still_there()
        if self.server.tools:
            return await self._called(message["tool_calls"])
        try:
            action = self._action(said(message))
            result = await self.client.step(action)
        except ValueError as error:
            return Step(f"This is no action: {error}. {self.server.told}".strip(), self.server.invalid_reward)
        except RuntimeError as error:
            if "VALIDATION_ERROR" not in str(error):
                raise
            return Step(f"The server does not take this action. {self.server.told}".strip(), self.server.invalid_reward)
        self._still_there()
        return Step(texts(result.observation), float(result.reward or 0.0), done=bool(result.done))

    def _still_there(self) -> None:
        """The client would open another session, in which nothing was done yet, where this one was lost."""
        state = getattr(self.socket, "state", None)
        if self.client._ws is not self.socket or (state is not None and state.name != "OPEN"):
            raise ConnectionError("the session with the server was lost")

    async def close(self) -> None:
        """Give the session back."""
        if self.client is not None:
            await self.client.close()

    async def _opened(self, given: dict[str, Any]) -> Any:
        """The first observation, as soon as the server gives a session."""
        pause, waited = 0.05, 0.0
        while True:
            self.client = self.server.openenv.GenericEnvClient(base_url=self.server.url, message_timeout_s=3600)
            try:
                await self.client.connect()
                result = await self.client.reset(**given)
                self.socket = self.client._ws
                return result
            except (ConnectionError, RuntimeError) as error:
                await self.client.close()
                full = "CAPACITY_REACHED" in str(error)
                if not full and not isinstance(error, ConnectionError):
                    raise
                if waited >= self.server.wait:
                    if not full:
                        raise
                    raise RuntimeError(
                        f"the server had no session free for {waited:.0f} s: start it with more (max_concurrent_envs)"
                    ) from error
            await asyncio.sleep(pause)
            waited, pause = waited + pause, min(1.0, 1.5 * pause)

    async def _called(self, calls: Sequence[Mapping[str, Any]]) -> Step:
        """Call the tools that the policy asks for, one after the other."""
        answers, reward, done = [], 0.0, False
        for call in calls:
            function = call.get("function", call)
            arguments = function.get("arguments") or {}
            if isinstance(arguments, str):
                arguments = json.loads(arguments)
            result = await self.client.step(
                {"type": "call_tool", "tool_name": function["name"], "arguments": dict(arguments)}
            )
            reward, done = reward + float(result.reward or 0.0), done or bool(result.done)
            answers.append({"role": "tool", "name": function["name"], "content": _result(result.observation)})
            if "id" in call:
                answers[-1]["tool_call_id"] = call["id"]
            if done:
                break
        return Step(answers, reward, done=done)

    def _action(self, text: str) -> dict[str, Any]:
        """What a text says.

        Raises:
            ValueError: no action.
        """
        fenced = _FENCED.findall(text)
        body = fenced[-1] if fenced else text
        only = self.server.only
        try:
            value = json.loads(body)
        except ValueError:
            if only is None or self.server.fields[only].get("type") in ("object", "array"):
                raise ValueError("it is not JSON") from None
            value = body.strip()
        if isinstance(value, dict) and value.keys() <= {*self.server.fields, "metadata"}:
            return value
        if only is None or isinstance(value, dict):
            raise ValueError(f"it is a JSON object of {', '.join(self.server.fields)}")
        kind = self.server.fields[only].get("type")
        if kind == "string":
            return {only: body.strip()}
        if kind in ("integer", "number") and not isinstance(value, (int, float)):
            found = re.findall(r"-?\d+(?:\.\d+)?", text)
            if not found:
                raise ValueError("it holds no number")
            value = int(found[-1]) if kind == "integer" and "." not in found[-1] else float(found[-1])
        return {only: value}


def load(name: str, options: Mapping[str, Any]) -> Maker:
    """The maker of a server's environments; see `Server`."""
    server = Server(name, options)
    return Maker(lambda: Session(server), waits=True, rows=server.rows)


def texts(observation: Any) -> str:
    """An observation's fields, those that say something; one alone without its name."""
    if not isinstance(observation, Mapping):
        return observation if isinstance(observation, str) else json.dumps(observation, ensure_ascii=False)
    shown = {
        name: value for name, value in observation.items() if name not in _APART and value not in (None, "", [], {})
    }
    told = {n: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for n, v in shown.items()}
    if len(told) == 1:
        return next(iter(told.values()))
    return "\n".join(f"{name}: {value}" for name, value in told.items())


def _described(name: str, schema: Mapping[str, Any]) -> str:
    values = schema.get("enum")
    kind = "one of " + ", ".join(map(json.dumps, values)) if values else str(schema.get("type", "value"))
    about = schema.get("description")
    return f"{name} ({kind}{f', {about}' if about else ''})"


def _schema(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool as chat templates take it."""
    about = {"name": tool["name"], "description": tool.get("description", ""), "parameters": tool["input_schema"]}
    return {"type": "function", "function": about}


def _result(observation: Mapping[str, Any]) -> str:
    """What a tool gave, or why it failed."""
    if error := observation.get("error"):
        return f"error: {error.get('message', error) if isinstance(error, Mapping) else error}"
    result = observation.get("result")
    if isinstance(result, Mapping):
        # What MCP wraps its results in.
        result = result.get("data", result)
    return texts(result)
