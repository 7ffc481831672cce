"""Adam's moments of some rows of a matrix [V, d], for methods that model what the optimizer would do with a gradient.

A state holds `ids` [R] int64 ascending, the rows seen so far; their moments `m` and `v` [R, d]; `t`, the steps made. A
row that was not seen has moments 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cohort.types.declare import State

# beta1, beta2 and eps.
Adam = tuple[float, float, float]


def init_moments() -> State:
    """No step made, no row seen."""
    return {"ids": torch.zeros(0, dtype=torch.int64), "m": torch.zeros(0, 1), "v": torch.zeros(0, 1), "t": 0}


def adam_direction(gradient: Tensor, ids: Tensor, state: State, adam: Adam) -> Tensor:
    """Adam's direction for gradients [M, K, d] of the rows `ids` [M, K], each of the M by itself; the state stays.

    E = [(b1 m + (1 - b1) G) / (1 - b1^(t+1))] / (sqrt((b2 v + (1 - b2) G^2) / (1 - b2^(t+1))) + eps); G itself where no
    row was seen.
    """
    beta1, beta2, eps = adam
    rows, after = state["ids"].to(ids.device), state["t"] + 1
    if not len(rows):
        return gradient
    slot = torch.searchsorted(rows, ids.contiguous()).clamp(max=len(rows) - 1)
    known = (rows[slot] == ids)[..., None].to(gradient.dtype)
    first = beta1 * known * state["m"].to(gradient)[slot] + (1 - beta1) * gradient
    second = beta2 * known * state["v"].to(gradient)[slot] + (1 - beta2) * gradient**2
    step: Tensor = first / (1 - beta1**after) / ((second / (1 - beta2**after)).sqrt() + eps)
    return step


def row_means(factor: Tensor, ids: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [R] that stand in `ids` [M, K], and their means [R, d] of factor_mk h_m over the m that hold them.

    Args:
        factor: [M, K]; h: [M, d]. The products [M, K, d] are never held.
    """
    rows, place = torch.unique(ids, return_inverse=True)
    holder = torch.arange(len(h), device=h.device)[:, None].expand_as(ids)
    index = torch.stack([place.flatten(), holder.flatten()])
    table = torch.sparse_coo_tensor(index, factor.flatten(), (len(rows), len(h)), check_invariants=False)
    return rows, (table @ h) / torch.bincount(place.flatten())[:, None]


def updated_moments(state: State, rows: Tensor, gradient: Tensor, adam: Adam) -> State:
    """The state after a step with gradients [R, d] of some rows, moments of the others left as they are."""
    old = state["ids"].to(rows.device)
    ids = torch.unique(torch.cat([old, rows]))
    there, now = torch.searchsorted(ids, old), torch.searchsorted(ids, rows)
    moments = {}
    for name, moment, beta in (("m", gradient, adam[0]), ("v", gradient**2, adam[1])):
        new = gradient.new_zeros(len(ids), gradient.shape[1])
        new[there] = state[name].to(gradient)
        new[now] = beta * new[now] + (1 - beta) * moment
        moments[name] = new
    return {"ids": ids, **moments, "t": state["t"] + 1}
