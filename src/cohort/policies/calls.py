"""Tool calls in what a policy says: formats by name, recognised by the chat template, and read from text.

A format reads the calls of a turn, and what was said beside them. A call that cannot be read is no reason to give up the
turn: the message tells what is wrong with it (`call_errors`), so that the policy can be told, too.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

from cohort.errors import shown
from cohort.types import Message

Tools = Sequence[Mapping[str, Any]]
Call = tuple[str, dict[str, Any]]  # name, arguments


class BrokenCallError(ValueError):
    """A call cannot be read; says why."""


@dataclass(frozen=True)
class Format:
    """How a model writes tool calls.

    Attributes:
        name: of the format.
        marks: the chat templates that write it hold one of these texts.
        calls: regular expression of a call, or of the beginning of one that does not end.
        read: its match, and the tools -> the calls in it; raises BrokenCallError.
    """

    name: str
    marks: tuple[str, ...]
    calls: re.Pattern[str]
    read: Callable[[re.Match[str], Tools], list[Call]]

    def message(self, text: str, tools: Tools = ()) -> Message:
        """What was said, without the calls, and these.

        Args:
            tools: schemas of the functions that can be called: values that the format writes as bare texts get their types.
        """
        calls: list[Call] = []
        errors: list[str] = []
        for match in self.calls.finditer(text):
            try:
                calls += self.read(match, tools)
            except BrokenCallError as error:
                errors.append(f"{error}: {shown(match[0].strip(), 200)}")
        said = self.calls.sub("", text).strip() if calls or errors else text
        return as_message(said, calls, errors)


def as_message(said: str, calls: Sequence[Call], errors: Sequence[str] = ()) -> Message:
    """A message of the assistant's; its calls have ids of nine characters, as some templates ask for."""
    out: Message = {"role": "assistant", "content": said}
    if calls:
        out["tool_calls"] = [
            {"type": "function", "id": f"call{i:05d}", "function": {"name": name, "arguments": arguments}}
            for i, (name, arguments) in enumerate(calls)
        ]
    if errors:
        out["call_errors"] = list(errors)
    return out


def without_thoughts(text: str) -> tuple[str | None, str]:
    """What was thought, None if nothing was, and what was said after it. The template may have opened the thoughts."""
    thought, closed, said = text.partition("</think>")
    if not closed:
        return None, text
    return thought.strip().removeprefix("<think>").strip() or None, said.lstrip()


# JSON -----------------------------------------------------------------------------------------------------------------


def _json(text: str) -> Any:
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg} (character {error.pos + 1})" if isinstance(error, json.JSONDecodeError) else str(error)
        raise BrokenCallError(f"the call is no JSON, {reason}") from None


def _object(value: Any, key: str = "arguments") -> Call:
    """The call that an object says."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise BrokenCallError(f"a call is an object with a name and {key}")
    given = value.get(key, value.get("arguments"))
    return value["name"], _arguments({} if given is None else given)


def _arguments(given: Any) -> dict[str, Any]:
    if isinstance(given, str):
        given = _json(given or "{}")
    if not isinstance(given, dict):
        raise BrokenCallError("the arguments are no object of names and values")
    return given


def _closed(match: re.Match[str], what: str) -> None:
    if match["end"] == "":
        raise BrokenCallError(f"the call does not end with {what}")


def _hermes(match: re.Match[str], tools: Tools) -> list[Call]:
    _closed(match, "</tool_call>")
    return [_object(_json(match["body"]))]


def _llama(match: re.Match[str], tools: Tools) -> list[Call]:
    """Objects one behind the other, parted by semicolons or lines."""
    rest = match["body"].strip()
    out: list[Call] = []
    decoder = json.JSONDecoder(strict=False)
    while rest.startswith("{") or not out:
        try:
            value, end = decoder.raw_decode(rest)
        except (ValueError, RecursionError):
            raise BrokenCallError("the call is no JSON object with a name and parameters") from None
        out.append(_object(value, "parameters"))
        rest = rest[end:].lstrip("; \n\t")
    return out


def _mistral(match: re.Match[str], tools: Tools) -> list[Call]:
    """A list of objects; or a name, and behind it the arguments (since version 11 of the tokenizer)."""
    body = match["body"].strip()
    if body.startswith(("[{", "{", "[]")):
        value = _json(body)
        return [_object(each) for each in (value if isinstance(value, list) else [value])]
    named = re.match(r"([\w.-]+)\s*(?:\[CALL_ID\]\s*[\w-]+\s*)?(?:\[ARGS\])?\s*(\{.*)", body, re.DOTALL)
    if named is None:
        raise BrokenCallError("[TOOL_CALLS] stands before a list of objects, or before a name and arguments")
    return [(named[1], _arguments(_json(named[2])))]


def _deepseek(match: re.Match[str], tools: Tools) -> list[Call]:
    """`function<sep>NAME`, and a block of JSON; or `NAME<sep>JSON` (since V3.1)."""
    _closed(match, "<｜tool▁call▁end｜>")
    first, _, second = match["body"].partition("<｜tool▁sep｜>")
    fenced = re.match(r"\s*(?P<name>\S+)\s*```(?:json)?\s*(?P<given>.*?)\s*```", second, re.DOTALL)
    name, given = (fenced["name"], fenced["given"]) if fenced else (first.strip(), second)
    if not name:
        raise BrokenCallError("the call has no name")
    return [(name, _arguments(_json(given)))]


# marks of their own around every argument -------------------------------------------------------------------------------


def _qwen(match: re.Match[str], tools: Tools) -> list[Call]:
    _closed(match, "</tool_call>")
    found = re.fullmatch(r"\s*<function=(?P<name>[^>\n]+)>(?P<body>.*?)</function>\s*", match["body"], re.DOTALL)
    if found is None:
        raise BrokenCallError("a call is <function=NAME>, its parameters, and </function>")
    return [(found["name"].strip(), _marked(found, r"<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>", tools))]


def _glm(match: re.Match[str], tools: Tools) -> list[Call]:
    _closed(match, "</tool_call>")
    found = re.fullmatch(r"\s*(?P<name>[^\s<]+)(?P<body>.*)", match["body"], re.DOTALL)
    if found is None:
        raise BrokenCallError("a call begins with the function's name")
    return [(found["name"], _marked(found, r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", tools))]


def _marked(found: re.Match[str], pattern: str, tools: Tools) -> dict[str, Any]:
    """Arguments between marks of a format; there must be nothing else."""
    each = re.compile(pattern, re.DOTALL)
    rest = each.sub("", found["body"]).strip()
    if rest:
        raise BrokenCallError(f"{shown(rest, 60)} stands between the arguments")
    known = _parameters(found["name"].strip(), tools)
    return {key.strip(): typed(value, known.get(key.strip())) for key, value in each.findall(found["body"])}


def typed(value: str, schema: Mapping[str, Any] | None) -> Any:
    """A bare text as a value of the type that the schema names; without one, as the JSON that it is, or else as it stands."""
    kinds = (schema or {}).get("type")
    if kinds == "string" or (isinstance(kinds, list) and "string" in kinds):
        return value
    try:
        return json.loads(value, strict=False)
    except (ValueError, RecursionError):
        # Pythonic spellings that models fall into.
        return {"True": True, "False": False, "None": None}.get(value.strip(), value)


def _parameters(name: str, tools: Tools) -> Mapping[str, Any]:
    """The schemas of a function's parameters, in their order."""
    for tool in tools:
        function = tool.get("function", tool)
        if function.get("name") == name:
            return (function.get("parameters") or {}).get("properties") or {}
    return {}


def _gemma(match: re.Match[str], tools: Tools) -> list[Call]:
    """Names without quotes, texts between marks of their own, and else JSON."""
    _closed(match, "the mark that ends it")
    found = re.fullmatch(r"\s*call:(?P<name>[\w.-]+)\s*(?P<given>\{.*\})\s*", match["body"], re.DOTALL)
    if found is None:
        raise BrokenCallError("a call is call:NAME{...}")
    texts: list[str] = []

    def held(text: re.Match[str]) -> str:
        texts.append(text["text"])
        return f'"\\u0000{len(texts) - 1}"'

    given = re.sub(r"(?P<mark><\|\"\|>|<escape>)(?P<text>.*?)(?P=mark)", held, found["given"], flags=re.DOTALL)
    given = re.sub(r"([{,]\s*)([\w-]+)\s*:", r'\1"\2":', given)

    def put_back(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: put_back(each) for key, each in value.items()}
        if isinstance(value, list):
            return [put_back(each) for each in value]
        return texts[int(value[1:])] if isinstance(value, str) and value.startswith("\0") else value

    return [(found["name"], _arguments(put_back(_json(given))))]


# Python ---------------------------------------------------------------------------------------------------------------


def _plain(match: re.Match[str], tools: Tools) -> list[Call]:
    """`name(1, b="x")`: calls with literals, by place or by name."""
    _closed(match, "the mark that ends it")
    return [_called(node, tools) for node in _expressions(match["body"])]


def _expressions(text: str) -> Iterator[ast.expr]:
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise BrokenCallError("a call is written name(argument=value, ...)") from None
    yield from tree.elts if isinstance(tree, (ast.List, ast.Tuple)) else [tree]


def _called(node: ast.expr, tools: Tools) -> Call:
    if not isinstance(node, ast.Call):
        raise BrokenCallError("a call is written name(argument=value, ...)")
    try:
        name = ast.unparse(node.func)
    except RecursionError:
        raise BrokenCallError("the name of the function is too long") from None
    if any(each.arg is None for each in node.keywords):
        raise BrokenCallError(f"name the arguments of {shown(name, 60)}, instead of unpacking a mapping with **")
    known = list(_parameters(name, tools))
    if len(node.args) > len(known):
        raise BrokenCallError(f"{name} takes {len(known)} arguments" if known else f"name the arguments of {name}")
    given = dict(zip(known, node.args, strict=False)) | {each.arg: each.value for each in node.keywords if each.arg}
    try:
        return name, {key: ast.literal_eval(value) for key, value in given.items()}
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise BrokenCallError("arguments are numbers, texts, or lists and the like of them") from None


def _between(start: str, end: str) -> re.Pattern[str]:
    """What stands between two marks; a beginning without an end takes all that follows."""
    return re.compile(rf"{start}(?P<body>.*?)(?P<end>{end}|\Z)", re.DOTALL)


_TAGGED = _between("<tool_call>", "</tool_call>")
PLAIN_CALL = "<call>"
PLAIN = Format("plain", (), _between(PLAIN_CALL, "</call>"), _plain)
# In the order in which they are looked for: what is more special comes first.
FORMATS = (
    Format("qwen-xml", ("<function=",), _TAGGED, _qwen),
    Format("glm", ("<arg_key>",), _TAGGED, _glm),
    Format("hermes", ("<tool_call>",), _TAGGED, _hermes),
    Format(
        "mistral",
        ("[TOOL_CALLS]",),
        re.compile(r"\[TOOL_CALLS\](?P<body>(?:(?!\[TOOL_CALLS\]).)*)", re.DOTALL),
        _mistral,
    ),
    Format(
        "deepseek",
        ("<｜tool▁call▁begin｜>",),
        re.compile(
            r"(?:<｜tool▁calls▁begin｜>\s*)?<｜tool▁call▁begin｜>(?P<body>.*?)(?P<end><｜tool▁call▁end｜>|\Z)(?:\s*<｜tool▁calls▁end｜>)?",
            re.DOTALL,
        ),
        _deepseek,
    ),
    Format(
        "gemma",
        ("<|tool_call>", "<start_function_call>"),
        _between(r"(?:<\|tool_call>|<start_function_call>)", r"<tool_call\|>|<end_function_call>"),
        _gemma,
    ),
    Format("lfm", ("<|tool_call_start|>",), _between(r"<\|tool_call_start\|>", r"<\|tool_call_end\|>"), _plain),
    Format(
        "llama",
        ("<|python_tag|>", 'Respond in the format {"name": function name, "parameters"'),
        re.compile(r"(?:<\|python_tag\|>|(?=\{\s*\"name\"\s*:))(?P<body>.*)\Z", re.DOTALL),
        _llama,
    ),
)


def format_of(template: str) -> Format:
    """The format of a model with such a chat template; the plain one where it writes none of the others."""
    return next((each for each in FORMATS if any(mark in template for mark in each.marks)), PLAIN)


# the plain format -----------------------------------------------------------------------------------------------------


def described(tools: Tools) -> str:
    """What a policy is told of functions where no chat template tells it: how to call one, and a line for each."""
    lines = ["Call a function by writing <call>name(argument=value)</call>. What it gives stands in <result></result>."]
    for tool in tools:
        function = tool.get("function", tool)
        known = _parameters(function["name"], tools)
        given = ", ".join(f"{name}: {_kind(schema)}" for name, schema in known.items())
        notes = [f"{name}: {schema['description']}" for name, schema in known.items() if schema.get("description")]
        said = " ".join(text.rstrip(".") + "." for text in [function.get("description") or "", *notes] if text)
        lines.append(f"{function['name']}({given}): {said}")
    return "\n".join(lines)


def _kind(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type", "any")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def results(messages: Sequence[Message]) -> list[Message]:
    """Messages with those of tools as a user's, for templates that know no tools: `<result>12</result>`, a line each."""
    out: list[Message] = []
    joined = False
    for message in messages:
        if message["role"] != "tool":
            out.append(message)
            joined = False
            continue
        text = f"<result>{message['content']}</result>"
        if joined:
            out[-1] = {**out[-1], "content": f"{out[-1]['content']}\n{text}"}
        else:
            out.append({"role": "user", "content": text})
        joined = True
    return out


def parsed(tokenizer: Any, text: str, tools: Tools, before: str) -> Message:
    """What a tokenizer of transformers with a `response_template` makes of a turn.

    Args:
        before: what the policy was shown, the beginning of its turn at the end.
    """
    # Older ones do not know the schemas.
    known = {"tools": list(tools)} if tools and "tools" in signature(tokenizer.parse_response).parameters else {}
    try:
        said = dict(tokenizer.parse_response(text, prefix=before, **known))
        calls = [_object(each.get("function", each)) for each in said.pop("tool_calls", None) or []]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return as_message(text, [], [str(error).partition("\n")[0]])
    return {**said, **as_message(said.pop("content", None) or "", calls)}
