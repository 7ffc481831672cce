"""S-GRPO: Early Exit via Reinforcement Learning in Reasoning Models. arXiv:2505.07686.

Confidence: reconstructed in parts: that the shared prefix is trained in every member, that inserted tokens are masked,
that equal positions are merged. Known: serial group, inserted text, reward, advantage without standard deviation.

One full path is drawn for a prompt; at positions drawn uniformly along its thought it is cut, told to answer, and
continued. Members of this serial group, ordered by position, are rewarded for exiting early and right:

    r_i = decay^-(k - 1) for the k-th correct member, 0 for a wrong one;  A_i = r_i - mean_g r

A prompt's rollouts are one full path and group_size - 1 exits (fewer where positions coincide).

Defaults: decay 2 and the inserted sentence are the paper's (8 exits a prompt).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import advantage
from cohort.axes.sampling import thought_length
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_order
from cohort.types import Batch, Request, Rollout
from cohort.types.access import Sampler
from cohort.types.declare import declare, needs

EXIT_TEXT = "Time is limited, stop thinking and start answering.\n</think>\n\n"


def exit_positions(length: int, draws: Tensor) -> list[int]:
    """Sorted distinct positions 1 + floor(u * length), from draws u in [0, 1)."""
    return sorted(set((1 + (draws.double() * length).floor()).to(torch.int64).tolist()))


@declare(provides=("exit_position",))
def serial_exits(
    requests: Sequence[Request], sampler: Sampler, *, exit_text: str = EXIT_TEXT, end_of_thinking: str = "</think>"
) -> list[Rollout]:
    """The full path of every prompt, and continuations from inside it after the inserted text.

    The field `exit_position` is the cut in tokens, and one more than the full length for the full path.
    """
    inserted, end = sampler.encode(exit_text), sampler.encode(end_of_thinking)
    groups: dict[str, list[Request]] = {}
    for request in requests:
        groups.setdefault(request.prompt.id, []).append(request)
    paths = sampler.generate([members[0] for members in groups.values()])
    rollouts: list[Rollout] = []
    cuts: list[tuple[Rollout, int, int]] = []
    for path, members in zip(paths, groups.values(), strict=True):
        rollouts.append(path.replace(fields={**path.fields, "exit_position": len(path.tokens) + 1.0}))
        length = thought_length(path, end)
        if length:
            positions = exit_positions(length, torch.rand(len(members) - 1, generator=sampler.rng, dtype=torch.float64))
            cuts += [(path, at, request.seed) for request, at in zip(members[1:], positions, strict=False)]
    paths, places, seeds = [cut[0] for cut in cuts], [cut[1] for cut in cuts], [cut[2] for cut in cuts]
    for at, rollout in zip(places, sampler.extend(paths, places, insert=inserted, seeds=seeds), strict=True):
        rollouts.append(rollout.replace(fields={**rollout.fields, "exit_position": float(at)}))
    return rollouts


@needs("exit_position")
@declare(group_size=2)
def decaying_reward(batch: Batch, *, decay: float = 2.0) -> Tensor:
    """decay^-(k - 1) for the k-th correct rollout of the group by exit position, 0 for a wrong one: [N]."""
    groups, correct = batch.groups, batch["accuracy"]
    order, _, _ = group_order(batch["exit_position"], groups)
    seen = correct[order].cumsum(0)
    before = torch.zeros_like(seen).scatter_reduce(
        0, groups.index[order], seen - correct[order], "amin", include_self=False
    )
    place = torch.empty_like(seen)
    place[order] = seen - before[groups.index[order]]
    return correct * decay ** -(place - 1)


@recipe(
    title="S-GRPO: Early Exit via Reinforcement Learning in Reasoning Models",
    paper="arXiv:2505.07686",
    idea="exits along one path, rewarded for answering early and right",
    confidence="reconstructed: shared prefix trained in every member, inserted tokens masked, equal positions merged",
)
def s_grpo(
    *,
    decay: Annotated[float, "[1, inf)"] = 2.0,
    scale_by_std: bool = False,
    exit_text: str = EXIT_TEXT,
    end_of_thinking: str = "</think>",
) -> Method:
    return Method(
        sampling=use(serial_exits, exit_text=exit_text, end_of_thinking=end_of_thinking),
        shaping=(use(decaying_reward, decay=decay),),
        advantage=use(advantage.zscore if scale_by_std else advantage.centred),
    )
