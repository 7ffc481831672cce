"""A method in words: what it does at each axis, and what it costs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from cohort import registry
from cohort.methods import AXES, Method, Stage

# What it costs when a method reads a field, in model calls and otherwise.
COSTS: Mapping[str, str] = {
    "ref_logp": "one forward pass of the reference policy over every rollout, and its weights (none with LoRA)",
    "old_logp": "nothing on-policy; with several updates a step, the engine's own numbers or one forward pass",
    "entropy": "the full distribution at every token of the update's forward pass",
    "old_entropy": "nothing: the engine reports it; with vLLM, one forward pass of the policy over every rollout",
    "old_values": "one forward pass of the value function over every rollout",
    "target_values": "one forward pass of a slow copy of the value function over every rollout, and its weights",
    "values": "the value function's part of the update's forward pass",
    "logits": "the update keeps the whole vocabulary's logits of every token of a micro-batch",
    "hidden": "the last hidden state of every token of a micro-batch",
    "ema_logp": "a forward pass of a slow copy of the policy at every update",
    "teacher_logits": "a forward pass of the teacher over every rollout that it teaches, and its logits",
}


def explain(expression: str) -> str:
    """What a method does at each axis: equations, defaults, sources, and what it costs in extra model calls."""
    method = registry.method(expression)
    lines = [f"# {method.name}", ""]
    for part in _parts(expression):
        recipe = registry.recipe(part)
        lines += [f"## {part}", "", recipe.doc or recipe.title, ""]
    lines += ["## The step", ""]
    for axis, slot in AXES.items():
        stages = [stage for each, stage in method.stages() if each == axis]
        if not stages:
            continue
        lines.append(f"{axis} ({slot.question})")
        lines += [line for stage in stages for line in _stage(stage)]
        lines.append("")
    lines += ["## What it costs", ""]
    lines += [f"- {text}" for text in costs(method)] or ["- no model call beyond sampling and the update"]
    if method.requires:
        lines += ["", f"It cannot be trained here yet: it needs {method.requires}."]
    return "\n".join(lines)


def costs(method: Method) -> list[str]:
    """Extra model calls and memory that the method's declared needs cost."""
    out = []
    for name in sorted(method.needs(loss=True) | method.needs(loss=False)):
        if name in COSTS:
            out.append(f"{name}: {COSTS[name]}")
    if method.critic is not None:
        out.append("value function: its weights, their gradient and two moments; a whole model with critic='model'")
    if method.teacher is not None:
        out.append("teacher: a second copy of the policy's weights")
    for _, stage in method.stages():
        hook = stage.declared.on_scored
        if hook is not None:
            out.append(f"{', '.join(stage.declared.provides)}: {_first_line(hook)}")
        if stage.declared.replay is not None:
            out.append(f"{stage.name}: {_first_line(stage.declared.replay)}")
    for _, name, call, _ in method.functions:
        out.append(f"{name}: a function of yours, {call}")
    if method.couples:
        out.append("rollouts are coupled: a minibatch larger than micro_tokens takes one more forward pass")
    if method.refill_rounds > 1:
        out.append(f"up to {method.refill_rounds} rounds of sampling a step, in place of filtered groups")
    return list(dict.fromkeys(out))


def _first_line(fn: Callable[..., Any]) -> str:
    first = (inspect.getdoc(fn) or fn.__name__).split("\n\n")[0].replace("\n", " ")
    return first.removeprefix("on_scored hook: ").rstrip(".")


def _parts(expression: str) -> list[str]:
    return [part.name for part in registry.parts(expression)]


def _stage(stage: Stage) -> list[str]:
    doc = inspect.getdoc(stage.fn) or ""
    first = doc.split("\n\n")[0].replace("\n", " ")
    source = next((line.strip() for line in doc.split("\n") if line.strip().startswith("Source:")), "")
    hyper = ", ".join(f"{k}={_plain(v)}" for k, v in stage.all_hyper.items())
    lines = [
        f"  {stage.name}"
        + (f"({hyper})" if hyper else "")
        + (f"   [{stage.source}]" if stage.source else "   [default]")
    ]
    lines.append(f"    {first}")
    if source and source not in first:
        lines.append(f"    {source}")
    return lines


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)
