"""Decoding steps of one shape as CUDA graphs: recorded once, then replayed without the host's work between kernels."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from cohort.errors import out_of_memory

# Gives the logits [B, V] of a step.
Step = Callable[[], Tensor]

# Steps of one shape that are called before the next is recorded: about what recording costs (an estimate: two steps, and
# the collection of garbage), so that shapes that soon pass are not recorded, and others cost at most twice what they must.
PATIENCE = 8


def record(step: Step) -> Step:
    """The step as a CUDA graph; what it gives is overwritten by its next call.

    Raises:
        RuntimeError: it does what cannot be recorded, such as asking for a number on the device.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()  # libraries set themselves up at the first call, which must not be recorded
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step()

    def replay() -> Tensor:
        graph.replay()
        return out

    return replay


class Graphs:
    """What is known of recording the steps of a model: it is done as long as replaying gives what calling gives.

    Args:
        record: makes a step that can be replayed.
    """

    def __init__(self, record: Callable[[Step], Step] = record) -> None:
        self.record = record
        self.works = True
        # Replays that are still compared with the step itself: one may agree by reading what has just been there.
        self.trials = 2

    def give_up(self, why: str) -> None:
        """Record nothing from now on."""
        self.works = False
        warnings.warn(f"decoding goes on without CUDA graphs, kernel by kernel: {why}", RuntimeWarning, stacklevel=2)


class Steps:
    """Steps of one shape, on tensors that stay where they are: called a few times, then recorded and replayed."""

    def __init__(self, graphs: Graphs) -> None:
        self.graphs = graphs
        self.called = 0
        self.replay: Step | None = None

    def __call__(self, step: Step) -> Tensor:
        """What the step gives; the next call may overwrite it."""
        if not self.graphs.works or self.called < PATIENCE:
            self.called += 1
            return step()
        if self.replay is None:
            try:
                self.replay = self.graphs.record(step)
            except RuntimeError as error:
                if out_of_memory(error):
                    raise
                self.graphs.give_up(str(error).splitlines()[0])
                return step()
        return self._tried(step, self.replay) if self.graphs.trials else self.replay()

    def _tried(self, step: Step, replay: Step) -> Tensor:
        right = step().clone()
        found = replay()
        if not float((found - right).abs().max()) <= 0.01 * (1.0 + float(right.abs().max())):
            self.graphs.give_up("replaying gives other numbers")
            return right
        self.graphs.trials -= 1
        return found
