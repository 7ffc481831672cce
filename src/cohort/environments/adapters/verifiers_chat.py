"""The harness with which tasks of verifiers are played here: a chat with the task's tools, in this process.

The chat harness of verifiers (`null`) is the same loop as a program of its own that is started for every turn of the user's.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from typing import Any

import httpx
import verifiers.v1 as vf
from verifiers.v1.dialects.chat import message_to_wire
from verifiers.v1.harnesses.utils.mcp import call_mcp, connect_mcp

# What it goes by where verifiers is told of a harness.
ID = "cohort_chat"
__all__ = ["Chat"]


class Chat(vf.Harness[vf.HarnessConfig]):  # type: ignore[misc]
    """Asks the model, and calls the tools that it asks for, until it asks for none."""

    APPENDS_SYSTEM_PROMPT = True
    SUPPORTS_MCP = True
    SUPPORTS_RESUME = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: vf.ModelContext,
        trace: vf.Trace,
        runtime: vf.Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: vf.TaskData,
    ) -> vf.ProgramResult:
        """See verifiers.v1.Harness."""
        system, prompt = self.resolve_prompt(data)
        messages = [{"role": "system", "content": system}] if system else []
        if isinstance(prompt, str):
            messages.append({"role": "user", "content": prompt})
        else:
            messages += [message_to_wire(message) for message in prompt or ()]
        served = {name: {"url": url, "timeout": self.config.tool_timeout} for name, url in mcp_urls.items()}
        async with AsyncExitStack() as stack:
            tools, places, servers = await connect_mcp({"mcpServers": served}, stack)
            client = await stack.enter_async_context(httpx.AsyncClient(timeout=None, trust_env=False, verify=False))
            body: dict[str, Any] = {"model": ctx.model, "messages": messages, **({"tools": tools} if tools else {})}
            while True:
                answer = await client.post(
                    f"{endpoint}/chat/completions", json=body, headers={"Authorization": f"Bearer {secret}"}
                )
                if answer.status_code >= 400:
                    return vf.ProgramResult(1, "", answer.text)
                said = answer.json()["choices"][0]["message"]
                messages.append({name: value for name, value in said.items() if value is not None})
                calls = said.get("tool_calls") or ()
                if not calls:
                    return vf.ProgramResult(0, "", "")
                for call in calls:
                    name = call["function"]["name"]
                    content = await _called(servers, places, name, call["function"]["arguments"])
                    messages.append({"role": "tool", "tool_call_id": call["id"], "name": name, "content": content})


async def _called(servers: Any, places: Any, name: str, arguments: str) -> Any:
    """What a tool gives, or why it cannot be called."""
    try:
        given = json.loads(arguments or "{}")
    except ValueError as error:
        return f"error: invalid JSON in the arguments ({error})"
    if not isinstance(given, dict):
        return f"error: the arguments are a JSON object, not {type(given).__name__}"
    if name not in places:
        return f"error: there is no tool {name!r}; there are {', '.join(places)}"
    try:
        return await call_mcp(servers, places, name, given)
    except asyncio.CancelledError:
        raise
    except Exception as error:
        return f"error: {error}"


# Harnesses are imported by a name of the top level.
sys.modules[ID] = sys.modules[__name__]
