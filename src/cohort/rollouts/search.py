"""Tree search over the lines of a completion, guided by tests or by a value model. Source: arXiv:2508.19576 (MCTS, VM-MCTS).

A state is what a completion begins with. A round goes down the tree to a state that was not gone on from, and has `width`
completions drawn from there; the first line of each makes a child:

    UCT(child) = V + exploration sqrt((1 + ln N_parent) / (eps + N_child)),   V = S / N, 0 before the first visit
    on the way back:  N += visits,  S += their rewards

With tests, the visits are the completions that were drawn and their rewards. With a value model, a new child is visited once
for each completion that begins with it, each worth the value of its state; the answer is the completion of the largest value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

# A tree and a text that begins there, whole completions with it included.
State = tuple[int, str]
# Whole completions from each state, those of a state together.
Complete = Callable[[Sequence[State]], list[list[str]]]
# What states and whole completions are worth.
Evaluate = Callable[[Sequence[State]], list[float]]


@dataclass
class Node:
    """A state of the search.

    Attributes:
        text: what was said up to it.
        final: True if the completion ends here.
        children: states that follow, if it was gone on from; those that stay visible come first.
        visits, total: N and S.
    """

    text: str
    final: bool = False
    children: list[Node] = field(default_factory=list)
    visits: float = 0.0
    total: float = 0.0
    expanded: bool = False

    @property
    def value(self) -> float:
        """V; 0 before the first visit."""
        return self.total / self.visits if self.visits else 0.0


def uct(child: Node, parent: Node, *, exploration: float, eps: float) -> float:
    """V + exploration sqrt((1 + ln N_parent) / (eps + N_child))."""
    return child.value + exploration * math.sqrt((1 + math.log(max(1.0, parent.visits))) / (eps + child.visits))


def best_child(node: Node, *, exploration: float, eps: float) -> Node:
    """The child with the largest `uct`, the first where two are equal."""
    return max(node.children, key=lambda child: uct(child, node, exploration=exploration, eps=eps))


def back_up(path: Sequence[Node], visits: float, total: float) -> None:
    """Count visits and what they were worth at every state of a path."""
    for node in path:
        node.visits, node.total = node.visits + visits, node.total + total


@dataclass(frozen=True)
class Search:
    """How trees are searched.

    Attributes:
        rounds: of selection, expansion and back-up; width: completions that a state is gone on from with.
        children: most children of a state that stay visible, those of the largest value.
        guided: True with a value model, False with tests.
    """

    rounds: int = 15
    width: int = 5
    children: int = 5
    exploration: float = 0.1
    eps: float = 0.1
    guided: bool = True


@dataclass
class Tree:
    """What a search has found so far.

    Attributes:
        found: completion -> what it is worth, in the order in which they were drawn.
    """

    root: Node = field(default_factory=lambda: Node(""))
    found: dict[str, float] = field(default_factory=dict)

    @property
    def answer(self) -> str:
        """The completion of the largest value, the first where several are; empty before any."""
        return max(self.found, key=self.found.__getitem__, default="")

    def expanded(self) -> list[Node]:
        """All states that were gone on from."""
        out, open_ = [], [self.root]
        while open_:
            node = open_.pop()
            if node.expanded:
                out.append(node)
                open_ += node.children
        return out


def search(count: int, how: Search, complete: Complete, evaluate: Evaluate) -> list[Tree]:
    """Search `count` trees side by side, a round of all of them at a time."""
    trees = [Tree() for _ in range(count)]
    for _ in range(how.rounds):
        paths = [_down(tree.root, how) for tree in trees]
        for tree, path in zip(trees, paths, strict=True):
            if (end := path[-1]).final:
                back_up(path, 1, end.value if end.visits else tree.found[end.text])
        open_ = [i for i, path in enumerate(paths) if not path[-1].final]
        drawn = complete([(i, paths[i][-1].text) for i in open_])
        nodes = [_children(paths[i][-1].text, texts) for i, texts in zip(open_, drawn, strict=True)]
        asked = [(i, text) for i, texts in zip(open_, drawn, strict=True) for text in texts]
        if how.guided:
            asked += [(i, node.text) for i, own in zip(open_, nodes, strict=True) for node, _ in own]
        asked = list(dict.fromkeys(asked))
        known = dict(zip(asked, evaluate(asked), strict=True))
        for i, texts, own in zip(open_, drawn, nodes, strict=True):
            trees[i].found |= {text: known[i, text] for text in texts}
            visits, total = float(len(texts)), sum(known[i, text] for text in texts)
            if how.guided:
                for node, times in own:
                    back_up([node], times, times * known[i, node.text])
                total = sum(node.total for node, _ in own)
            end = paths[i][-1]
            ranked = sorted((node for node, _ in own), key=lambda node: -node.value)
            end.children, end.expanded = ranked[: how.children], True
            back_up(paths[i], visits, total)
    return trees


def _down(root: Node, how: Search) -> list[Node]:
    """From the root to a state that was not gone on from, or to an end."""
    path = [root]
    while path[-1].expanded:
        path.append(best_child(path[-1], exploration=how.exploration, eps=how.eps))
    return path


def _children(state: str, completions: Sequence[str]) -> list[tuple[Node, int]]:
    """The states that the first lines of completions lead to, and how many begin with each; one line alone is an end."""
    counts: dict[tuple[str, bool], int] = {}
    for whole in completions:
        line, newline, _ = whole.removeprefix(state).partition("\n")
        key = (state + line + newline, not newline)
        counts[key] = counts.get(key, 0) + 1
    return [(Node(text, final), count) for (text, final), count in counts.items()]
