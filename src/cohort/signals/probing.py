"""What a linear probe reads from hidden states: pooling, principal components, ridge regression in closed form."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cohort.devices import to_host
from cohort.errors import UsageError
from cohort.types.access import ModelAccess
from cohort.types.declare import State

# Directions whose variance is this small beside the largest hold rounding, not signal.
NEGLIGIBLE = 1e-12
# Padded tokens in one pass: all layers' hidden states of them are held at once.
TOKENS = 8192


def layer_of(access: ModelAccess, asked: int | None, *, default: int) -> int:
    """The layer asked for; with None the default, halved until the model has it.

    Raises:
        UsageError: the model does not have the layer asked for.
    """
    layer = default if asked is None else asked
    while True:
        try:
            # One token is enough to see whether the layer is there.
            access.states([(0,)], layer=layer)
        except IndexError as error:
            if asked is not None or layer == 0:
                raise UsageError(f"the model has no layer {layer}: name another in the method, as layer=...") from error
            layer //= 2
        else:
            return layer


def pooled(states: Tensor, last: int) -> Tensor:
    """[d] mean of the last rows of [C, d]; 0 where there are none."""
    return states[-last:].sum(0) / max(1, min(last, len(states)))


def pooled_states(access: ModelAccess, *, layer: int, last: int) -> tuple[Tensor, Tensor]:
    """Hidden states at the last tokens of every rollout's prompt and of its completion, pooled: [N, d] each, on the CPU.

    Of a rollout of several pieces, those of the last.
    """
    prompts: list[Tensor] = []
    completions: list[Tensor] = []
    chunk: list[tuple[int, ...]] = []
    for i, rollout in enumerate(access.rollouts):
        chunk.append(rollout.before(len(rollout.tokens)))
        if i + 1 < len(access.rollouts) and (len(chunk) + 1) * max(map(len, chunk)) <= TOKENS:
            continue
        for own, states in zip(
            access.rollouts[i + 1 - len(chunk) : i + 1], access.states(chunk, layer=layer), strict=True
        ):
            begin = len(own.context.at(len(own.tokens))[1])
            prompts.append(pooled(states[:begin].float(), last))
            completions.append(pooled(states[begin:].float(), last))
        chunk = []
    first, second = to_host(torch.stack(prompts), torch.stack(completions))
    return first, second


def principal_components(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(mean [D], components [count', D]) of rows [M, D] in float64, largest variance first; count' at most M and D."""
    mean = x.mean(0)
    centred = x - mean
    wide = x.shape[1] > x.shape[0]
    variance, vectors = torch.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    order = variance.argsort(descending=True)[: min(count, *x.shape)]
    variance, vectors = variance[order].clamp(min=0), vectors[:, order]
    if wide:
        vectors = centred.T @ vectors / variance.clamp(min=1e-300).sqrt()
    there = variance > NEGLIGIBLE * variance.sum()
    return mean, torch.where(there[:, None], vectors.T, torch.zeros((), dtype=x.dtype))


def features(fitted: State, parts: Sequence[Tensor], plain: Tensor) -> Tensor:
    """[n, k]: each part [n, D] in its principal components, then `plain` [n, S], all standardised."""
    pairs = zip(parts, fitted["means"], fitted["components"], strict=True)
    projected = [(part.double() - mean) @ components.T for part, mean, components in pairs]
    raw = torch.cat([*projected, plain.double()], 1)
    return raw.sub(fitted["center"]).div(fitted["scale"])


def fit(parts: Sequence[Tensor], plain: Tensor, targets: Tensor, *, dims: Sequence[int], alpha: float) -> State:
    """The probe w.z + c that minimises sum (y - w.z - c)^2 + alpha |w|^2 over M rows, as a state; c = mean y.

    Args:
        parts: [M, D] each, reduced to as many principal components as `dims` says.
        plain: [M, S], taken as they are.
        targets: y [M].
    """
    found = [principal_components(part.double(), count) for part, count in zip(parts, dims, strict=True)]
    width = plain.shape[1] + sum(len(components) for _, components in found)
    fitted: State = {
        "means": [mean for mean, _ in found],
        "components": [components for _, components in found],
        "center": torch.zeros(width, dtype=torch.float64),
        "scale": torch.ones(width, dtype=torch.float64),
    }
    raw, y = features(fitted, parts, plain), targets.double()
    center, spread = raw.mean(0), raw.std(0, correction=0)
    # A constant column leaves a spread of rounding.
    scale = torch.where(spread > NEGLIGIBLE * raw.abs().amax(0), spread, torch.ones_like(spread))
    z = (raw - center) / scale
    weights = torch.linalg.solve(z.T @ z + alpha * torch.eye(width, dtype=torch.float64), z.T @ (y - y.mean()))
    return {**fitted, "center": center, "scale": scale, "weights": weights, "intercept": float(y.mean())}


def predict(fitted: State, parts: Sequence[Tensor], plain: Tensor) -> Tensor:
    """w.z + c: [n] in float64."""
    return features(fitted, parts, plain).matmul(fitted["weights"]).add(fitted["intercept"])
