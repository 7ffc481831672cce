"""Trees of rollouts: grown by the sampling axis, trained edge by edge, and what is left of them for later steps.

A rollout of a tree is a path from its root to a leaf; an edge is what a node adds to its parent. Paths that share edges share
them where they are drawn and where they are trained (`policies.trees`), and each edge is trained in one path alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cohort.reductions.tree import recent_edges, tree_advantages, tree_values
from cohort.reductions.whitening import whitened
from cohort.seeds import derive, generator
from cohort.types import Batch, Request, Rollout, StepInfo
from cohort.types.access import Sampler
from cohort.types.declare import State, declare, hooks, needs
from cohort.types.replay import Replay, concat, pack_step, select, unpack

# Edges that gain less than this gain nothing.
NOTHING = 1e-12


@declare(provides=("edge", "edge_advantage", "edge_used"))
def grown(
    requests: Sequence[Request],
    sampler: Sampler,
    *,
    branching: Sequence[int] = (6, 6),
    segment_tokens: int = 30,
    edges_per_prompt: int = 32,
) -> list[Rollout]:
    """The paths of trees: a prompt's requests are drawn up to `segment_tokens` tokens, each that has not ended goes on
    `branching[0]` times, and so on; the last level goes on to the end.

    V of a leaf is its reward, of a node the mean of its children's; an edge's advantage is V(node) - V(parent). A path has the
    fields (one number a token) `edge_advantage`, `edge`: the number of the edge where this path is the one that it is trained
    in, else -1; and `edge_used`: 1 at those of its edges that are drawn for this step, at most `edges_per_prompt` of a prompt.
    Leaves without a reward are left out.
    """
    roots: dict[str, int] = {}
    for request in requests:
        roots.setdefault(request.prompt.id, len(roots))
    nodes: list[Rollout] = []
    parents = [-1] * len(roots)
    most = [request.max_new_tokens for request in requests]
    asked = [
        (replace(r, max_new_tokens=_step(len(branching), r.max_new_tokens, segment_tokens)), roots[r.prompt.id])
        for r in requests
    ]
    for left in range(len(branching), -1, -1):
        drawn = sampler.generate([request for request, _ in asked])
        first = len(parents)
        nodes += drawn
        parents += [parent for _, parent in asked]
        room = [limit - len(node.tokens) for limit, node in zip(most, drawn, strict=True)]
        asked, most = [], []
        if not left:
            break
        for i, (node, more) in enumerate(zip(drawn, room, strict=True)):
            # Where another limit than that of its tokens ended an episode, nothing goes on.
            if node.status != "truncated" or node.end in ("turns", "seconds") or more < 1:
                continue
            count, at = branching[len(branching) - left], len(node.tokens)
            seeds = [derive(node.request.seed, "branch", left, k) for k in range(count)]
            limit = _step(left - 1, more, segment_tokens)
            asked += [(replace(r, max_new_tokens=limit), first + i) for r in node.branches(at, seeds)]
            most += [more + at] * count
        if not asked:
            break
    return _paths(nodes, parents, len(roots), sampler, edges_per_prompt)


def _step(left: int, room: int, segment_tokens: int) -> int:
    """Tokens of a node that so many levels follow."""
    return min(room, segment_tokens) if left else room


def _paths(nodes: list[Rollout], parents: list[int], roots: int, sampler: Sampler, most: int) -> list[Rollout]:
    """The paths of a forest whose first `roots` nodes are roots; `nodes` are the others."""
    inner = set(parents)
    leaves = {node.id: roots + i for i, node in enumerate(nodes) if roots + i not in inner}
    graded = {leaves[leaf.id]: leaf for leaf in sampler.grade([nodes[i - roots] for i in leaves.values()])}
    alive = set(graded)
    for i in range(len(parents) - 1, roots - 1, -1):
        alive |= {parents[i]} if i in alive else set()
    kept = [*range(roots), *(i for i in range(roots, len(parents)) if i in alive)]
    place = {i: at for at, i in enumerate(kept)}
    parent = torch.tensor([place.get(parents[i], -1) for i in kept])
    reward = torch.tensor([graded[i].reward if i in graded else 0.0 for i in kept], dtype=torch.float64)
    gain = tree_advantages(parent, tree_values(parent, reward))
    edges = (gain.abs() > NOTHING).nonzero()[:, 0]
    root = parent.clone()
    while bool((parent[root.clamp(min=0)] >= 0).any()):
        root = torch.where(parent[root.clamp(min=0)] >= 0, parent[root.clamp(min=0)], root)
    chosen = recent_edges(root[edges], torch.zeros_like(edges), now=0, most=most, rng=sampler.rng)
    used = set(edges[chosen].tolist())

    owned: set[int] = set()
    out = []
    for leaf, rollout in graded.items():
        path: list[int] = []
        at = leaf
        while at >= roots:
            path, at = [at, *path], parents[at]
        fields: dict[str, list[float]] = {"edge": [], "edge_advantage": [], "edge_used": []}
        for i in path:
            here = place[i]
            value = float(gain[here])
            own = i not in owned and abs(value) > NOTHING
            owned.add(i)
            count = len(nodes[i - roots].tokens) - len(fields["edge"])
            fields["edge"] += [float(here) if own else -1.0] * count
            fields["edge_advantage"] += [value] * count
            fields["edge_used"] += [float(own and here in used)] * count
        out.append(rollout.replace(fields={**rollout.fields, **fields}))
    return out


# what is left for later steps -------------------------------------------------------------------------------------------


def start() -> State:
    """init hook: steps whose edges are not all used (`kept`), and what of them is trained in the next step."""
    return {"kept": [], "next": []}


def replayed(state: State) -> Replay | None:
    """replay hook: edges of earlier steps that were not trained on yet."""
    parts = [unpack(each) for each in state["next"]]
    if not parts:
        return None
    contexts = tuple(context for part in parts for context in part.contexts)
    return Replay(
        concat([part.batch for part in parts]), contexts, support=tuple(s for part in parts for s in part.support)
    )


def keep_unused(
    batch: Batch,
    state: State,
    rollouts: Sequence[Rollout],
    *,
    trained: Tensor,
    edges_per_prompt: int,
    edge_age: int,
    info: StepInfo,
) -> State:
    """on_step_end hook: of each prompt at most `edges_per_prompt` edges, drawn at random among those that no step has used,
    are trained in the next one; edges as old as `edge_age` steps are forgotten. Source: arXiv:2505.23564, its code.

    Args:
        trained: [N, T] bool, tokens that are trained if their edge is.
    """
    left = torch.where((batch["edge"] >= 0) & (batch["edge_used"] <= 0) & batch.mask, batch["edge"], -1.0)
    fresh = pack_step(batch.replace(loss_mask=trained).with_tokens(edge=left), rollouts)
    kept = [*state["kept"], {"made": info.step, "rows": fresh}]
    kept = [each for each in kept if info.step + 1 - each["made"] < edge_age]
    if not kept:
        return start()
    # Of each edge that is left: its step's place, its prompt, its number.
    found = [
        torch.stack([torch.full_like(group, i), group, number], 1)
        for i, each in enumerate(kept)
        for group, number in [_edges(each["rows"])]
    ]
    edges = torch.cat(found).unique(dim=0)
    question = torch.unique(edges[:, :2], dim=0, return_inverse=True)[1]
    made = torch.tensor([each["made"] for each in kept])[edges[:, 0]]
    rng = generator(info.seed, "edges", info.step)
    chosen = edges[recent_edges(question, made, now=info.step + 1, max_age=edge_age, most=edges_per_prompt, rng=rng)]
    after: State = start()
    for i, each in enumerate(kept):
        rows = each["rows"]
        numbers = chosen[chosen[:, 0] == i]
        mine = torch.zeros_like(rows["mask"])
        for _, group, number in numbers.tolist():
            mine |= (rows["rollouts"]["group"] == group)[:, None] & (rows["tokens"]["edge"] == number)
        now = (mine & rows["tokens"]["loss_mask"]).any(1).nonzero()[:, 0]
        if now.numel():
            part = select(rows, now)
            part["tokens"]["loss_mask"] = part["tokens"]["loss_mask"] & mine[now]
            after["next"].append(part)
        rows = {**rows, "tokens": {**rows["tokens"], "edge": rows["tokens"]["edge"].masked_fill(mine, -1.0)}}
        later = (rows["tokens"]["edge"] >= 0).any(1).nonzero()[:, 0]
        if later.numel():
            after["kept"].append({"made": each["made"], "rows": select(rows, later)})
    return after


def _edges(rows: State) -> tuple[Tensor, Tensor]:
    """(group, number) of the edges that are left in rows."""
    number = rows["tokens"]["edge"]
    group = rows["rollouts"]["group"][:, None].expand_as(number)
    there = number >= 0
    return group[there], number[there].to(torch.int64)


def _keep(
    batch: Batch,
    state: State,
    rollouts: Sequence[Rollout],
    *,
    prob_threshold: float,
    edges_per_prompt: int,
    edge_age: int,
    info: StepInfo,
) -> State:
    unsure = batch.mask & (batch.old_logp < math.log(prob_threshold))
    return keep_unused(
        batch, state, rollouts, trained=unsure, edges_per_prompt=edges_per_prompt, edge_age=edge_age, info=info
    )


@needs("edge", "edge_advantage", "edge_used", "old_logp")
@hooks(init=start, replay=replayed, on_step_end=_keep)
def edges(
    batch: Batch,
    *,
    state: State,
    prob_threshold: float = 0.9,
    whiten_advantages: bool = True,
    edges_per_prompt: int = 32,
    edge_age: int = 8,
) -> Batch:
    """A of each token's edge, V(node) - V(parent): [N, T]; the uncertain tokens of the step's edges alone are trained."""
    gain = torch.where(batch.mask, batch["edge_advantage"], torch.zeros_like(batch.old_logp))
    unsure = batch.mask & (batch.old_logp < math.log(prob_threshold)) & (batch["edge_used"] > 0)
    gain = whitened(gain, unsure, batch.mask) if whiten_advantages else gain
    return batch.replace(advantages=gain, loss_mask=unsure)
