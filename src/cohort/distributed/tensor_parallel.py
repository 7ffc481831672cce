"""A model whose every layer is computed by several ranks together, by the plan that transformers has for its class.

A plan says of the linear layers which dimension of their weights is cut, so that each rank has some of the attention heads and
some of the feed-forward's width. Each of these ranks makes the same passes, over the same rows.
"""

from __future__ import annotations

from typing import Any

from torch.distributed.device_mesh import DeviceMesh
from transformers.distributed.parallel_utils import replace_layer_number_by_wildcard
from transformers.distributed.tensor_parallel import apply_tensor_parallelism

# The style of a part that every rank has whole, but takes a gradient from its own heads alone. transformers adds such gradients
# up after each pass, and with them what earlier passes have left there.
PARTIAL, WHOLE = "replicated_with_grad_allreduce", "replicate"


def parallelize(model: Any, mesh: DeviceMesh) -> set[str]:
    """Cut a whole model's parameters over the ranks of a mesh, in place.

    Returns:
        names of the parameters whose gradients are to be added up over these ranks.
    """
    plan: dict[str, str] = {}
    partial: set[str] = set()
    # A tied parameter has one name here.
    there = dict(model.named_parameters())
    for name, module in model.named_modules():
        style = model.tp_plan.get(replace_layer_number_by_wildcard(name))
        for own, _ in module.named_parameters(recurse=False):
            full = f"{name}.{own}" if name else own
            of_own = model.tp_plan.get(replace_layer_number_by_wildcard(full), style)
            if full not in there:
                continue
            if of_own == PARTIAL:
                partial.add(full)
            elif of_own is not None:
                plan[full] = of_own
        if style is not None:
            plan[name] = WHOLE if style == PARTIAL else style
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    apply_tensor_parallelism(model, mesh, plan)
    if tied:
        model.tie_weights()
    return partial
