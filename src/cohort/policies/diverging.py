"""Where a model's numbers stop being numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cohort.errors import Diverged


@torch.no_grad()
def first_not_finite(model: Any, tokens: Sequence[int]) -> str | None:
    """The first part of a model that gives NaN or infinity for a sequence, by its name, or the first weight that is one.

    None if the model gives finite logits for the sequence.
    """
    for name, weight in model.named_parameters():
        if not bool(weight.isfinite().all()):
            return f"the weight {name}"
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(module: Any, given: Any, out: Any) -> None:
            first = out[0] if isinstance(out, tuple) and out else out
            if (
                not found
                and isinstance(first, Tensor)
                and first.is_floating_point()
                and not bool(first.isfinite().all())
            ):
                found.append(f"the layer {name}")

        return hook

    hooks = [module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name]
    try:
        device = next(model.parameters()).device
        logits = model(input_ids=torch.tensor([list(tokens)], device=device), use_cache=False).logits
    finally:
        for each in hooks:
            each.remove()
    if found:
        return found[0]
    return None if bool(logits.isfinite().all()) else "the output layer"


def diverged(where: str | None, doing: str) -> Diverged:
    """The error of a model whose logits are not finite.

    Args:
        where: what `first_not_finite` found.
        doing: what the model was used for.
    """
    said = f"the first that is NaN or infinite is {where}" if where else "though a pass of its own over the sequence is"
    return Diverged(
        f"the model's logits are not finite while {doing}: {said}. Lower the learning rate (--lr), and go on from a "
        "checkpoint whose weights are whole"
    )
