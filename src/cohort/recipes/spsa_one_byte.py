"""Just One Byte (per gradient): A Note on Low-Bandwidth Decentralized Language Model Finetuning. arXiv:2306.10015.

Code ezelikman/justonebyte. Confidence: exact. Two forward passes along a random direction give the gradient's projection on
it, and whoever knows the direction's seed can follow. Of machines with the same weights each probes S times on its part of
the batch, and tells the others one byte a probe:

    z_ks   ~ N(0, I), seeded with iteration t, probe s, machine k
    g_ks   = (l(theta + eps z) - l(theta - eps z)) / (2 eps)
    p      = round(16 ln |g|) in [-127, 127];   g' = sign(g) exp(p / 16)
    theta <- theta - lr / sqrt(n) sum_ks g'_ks z_ks,   n = K S

The loss that is probed is the method's own, to first order in what the policy gives to the tokens: the sum of its derivatives
by log-probabilities times these. Its projections are those of the gradient, also for losses whose value is not what they are
the derivative of. The paper applies g itself, and its 16 and 127 take nine bits; here g' is applied, and scale 8 and cap 63
are a byte, 3.57e-4 to 2800 becoming 3.8e-4 to 2600. Weights are put back from a copy after a probe, where the paper's code
has one every 16 iterations. Left out: the noise on eps, and machines that come and go.

Defaults: eps 1e-3, one probe; a learning rate of 0.1 was used with them, for losses that are means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from cohort.axes.optimizer import decode, encode
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.types.declare import declare

MODULUS = 9223372036854775806


def seed_of(iteration: int, sample: int, seconds: float) -> int:
    """Seed of a direction: of a machine that began so many seconds after the first."""
    return int(f"{iteration}{sample:05d}{round(seconds * 1e6)}") % MODULUS


class OneByte(torch.optim.Optimizer):
    """The update above; its only state is the number of the iteration. Weight decay is AdamW's."""

    def __init__(self, params: Iterable[Any], lr: float, **hyper: float) -> None:
        super().__init__(params, {"lr": lr, **hyper})
        self.param_groups[0]["iteration"] = 0

    @property
    def _first(self) -> dict[str, Any]:
        return self.param_groups[0]

    def directions(self, machine: int, sample: int) -> Iterable[tuple[dict[str, Any], Tensor, Tensor]]:
        """Each parameter with its group and its part of a direction, which is drawn when it is asked for."""
        # A machine's number is its time of beginning, in microseconds.
        seed = seed_of(self._first["iteration"], sample, machine * 1e-6)
        generators: dict[torch.device, torch.Generator] = {}
        for group in self.param_groups:
            for p in group["params"]:
                if p.device not in generators:
                    generators[p.device] = torch.Generator(device=p.device).manual_seed(seed)
                drawn = torch.randn(p.shape, generator=generators[p.device], dtype=p.dtype, device=p.device)
                yield group, p, drawn

    @torch.no_grad()
    def measure(self, loss: Callable[[], float], machine: int) -> list[float]:
        """g of each of this machine's probes; the weights are as before, to the bit."""
        params = [p for group in self.param_groups for p in group["params"]]
        held, epsilon, found = [p.clone() for p in params], self._first["epsilon"], []
        try:
            for sample in range(self._first["probes"]):
                ends = []
                for sign in (1, -1):
                    for (_, p, z), value in zip(self.directions(machine, sample), held, strict=True):
                        p.copy_(value).add_(z, alpha=sign * epsilon)
                    ends.append(loss())
                found.append((ends[0] - ends[1]) / (2 * epsilon))
        finally:
            for p, value in zip(params, held, strict=True):
                p.copy_(value)
        return found

    @torch.no_grad()
    def move(self, found: Sequence[Sequence[float]]) -> None:
        """One update by the projections that each machine has found."""
        count = sum(map(len, found))
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(1 - group["lr"] * group["weight_decay"])
        for machine, values in enumerate(found):
            for sample, value in enumerate(values):
                for group, p, z in self.directions(machine, sample):
                    p.add_(z, alpha=-group["lr"] * value / math.sqrt(count))
        self._first["iteration"] += 1

    def probe(self, loss: Callable[[], float], machine: int) -> bytes:
        """See `Probing`: a byte a probe (two where the cap is above 63)."""
        return encode(self.measure(loss, machine), self._first["scale"], self._first["cap"])

    def norm(self, told: Sequence[bytes]) -> float:
        """See `Probing`: the mean square of projections is the square of the norm, on average."""
        found = decode(b"".join(told), self._first["scale"], self._first["cap"])
        return math.sqrt(sum(g * g for g in found) / len(found))

    def apply(self, told: Sequence[bytes], most: float) -> None:
        """See `Probing`."""
        norm, how = self.norm(told), (self._first["scale"], self._first["cap"])
        cut = min(1.0, most / norm) if norm else 1.0
        self.move([[cut * g for g in decode(codes, *how)] for codes in told])


@declare(probes=True)
def one_byte(
    params: Iterable[Any], lr: float, *, epsilon: float, probes: int, scale: float, cap: int, weight_decay: float
) -> torch.optim.Optimizer:
    """Two-point estimates along directions that machines share. Source: arXiv:2306.10015."""
    return OneByte(params, lr, epsilon=epsilon, probes=probes, scale=scale, cap=cap, weight_decay=weight_decay)


@recipe(
    title="Just One Byte (per gradient): A Note on Low-Bandwidth Decentralized Language Model Finetuning",
    paper="arXiv:2306.10015",
    idea="two forward passes a random direction in place of a gradient, and a byte for each between machines",
    confidence="exact",
)
def spsa_one_byte(
    *,
    epsilon: Annotated[float, "(0, inf)"] = 1e-3,
    probes: Annotated[int, "[1, inf)"] = 1,
    scale: Annotated[float, "(0, inf)"] = 8.0,
    cap: Annotated[int, "[1, 16000]"] = 63,
    weight_decay: Annotated[float, "[0, inf)"] = 0.0,
) -> Method:
    return Method(
        optimizer=use(one_byte, epsilon=epsilon, probes=probes, scale=scale, cap=cap, weight_decay=weight_decay)
    )
