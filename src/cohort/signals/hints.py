"""Hints that the current policy writes itself from a reference solution."""

from __future__ import annotations

import json
from collections.abc import Mapping

from cohort.signals.questions import question, rewrite_question, with_question
from cohort.types import Prompt, Request
from cohort.types.access import Sampler

LEVELS = 3
ATTEMPTS = 3
WRITE_HINTS = """Question:
{question}

Reference solution:
{solution}

Write three hints that help to solve the question, without revealing the final answer. Answer with a JSON object:
"level_1": the key idea only; "level_2": the method or intermediate steps; "level_3": substantial help."""
WITH_HINT = "{question}\n\nHint: {hint}"


def parse_hints(text: str) -> dict[str, str]:
    """level -> hint, from the JSON object in a fence or after the first brace; empty if there is none."""
    body = text.split("```json", 1)[1].split("```", 1)[0] if "```json" in text else text[text.find("{") :]
    try:
        found, _ = json.JSONDecoder().raw_decode(body.strip())
    except ValueError:
        return {}
    levels = {str(k): found.get(f"level_{k}") for k in range(1, LEVELS + 1)} if isinstance(found, dict) else {}
    return {k: hint.strip() for k, hint in levels.items() if isinstance(hint, str) and hint.strip()}


def write_hints(prompts: Mapping[str, Prompt], sampler: Sampler, solution: str) -> dict[str, dict[str, str]]:
    """prompt id -> hints by level, written by the current policy in at most three attempts each."""
    hints: dict[str, dict[str, str]] = {}
    for _ in range(ATTEMPTS):
        open_ = [prompt for key, prompt in prompts.items() if not hints.get(key)]
        if not open_:
            break
        asked = [
            with_question(p, WRITE_HINTS.format(question=question(p), solution=p.row.get(solution))) for p in open_
        ]
        for prompt, answer in zip(open_, sampler.ask(asked), strict=True):
            hints[prompt.id] = parse_hints(answer)
    return hints


def with_hint(request: Request, hint: str, level: int, sampler: Sampler, salt: int = 0) -> Request:
    """The request on the prompt with the hint."""
    text = WITH_HINT.format(question=question(request.prompt), hint=hint)
    return rewrite_question(request, text, sampler, salt=salt, hint_level=level)
