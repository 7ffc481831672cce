"""A model of what a step costs on 8, 64 and 512 GPUs, from message sizes that were measured on a few processes.

    python -m benchmarks.cost            the table of docs/scale.md

Nothing here was measured on a GPU. What messages hold (bytes a parameter, bytes a token) is what `benchmarks.scale` counts;
speeds of GPUs and links are assumptions, all of them attributes of `Hardware`. GPUs are split into those that draw, each with
a whole copy of the model, and those that train, each with a shard; the split is the one with the shortest step.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Hardware:
    """GPUs and links; the defaults: what makers say of an H100 (SXM) with 400 Gb/s to each, and shares of it that are reached.

    Attributes:
        flops: operations a second in bfloat16; trained: share of them that a training pass reaches; drawn: a decoding step.
        memory: bytes a second; read: share of them that a decoding step reaches.
        node: GPUs of a machine.
        inner, outer: bytes a second that a GPU sends to others of its machine, and of other machines.
        inner_latency, outer_latency: seconds of a message.
        host, host_latency: of messages between the processors of machines, which commands and batches are.
        pull: bytes a second at which a machine reads weights that lie with another.
    """

    flops: float = 989e12
    trained: float = 0.4
    drawn: float = 0.5
    memory: float = 3.35e12
    read: float = 0.6
    node: int = 8
    inner: float = 450e9
    outer: float = 50e9
    inner_latency: float = 5e-6
    outer_latency: float = 15e-6
    host: float = 1e9
    host_latency: float = 1e-4
    pull: float = 10e9


@dataclass(frozen=True)
class Messages:
    """What messages hold.

    Attributes:
        update: bytes a parameter of an update: the sum of gradients, and the new weights for passes and for drawing.
        command: bytes a token that the driver sends to all ranks for a batch, with what comes back.
        weights: bytes a parameter that a worker reads for a version.
        completion: bytes a token of a worker's orders and answers.
    """

    update: float = 16.1
    command: float = 178.0
    weights: float = 2.0
    completion: float = 100.0


@dataclass(frozen=True)
class Work:
    """A step.

    Attributes:
        parameters: of the model; bytes: of each in the pass; cache: bytes of keys and values of a token.
        rollouts, group: rollouts of a step, and of a prompt.
        prompt: tokens of a prompt; longest: most tokens of a rollout. Lengths are uniform from 0 to it.
        passes: operations of the update, a parameter and a token: 6 forward and backward, 2 more to score before it.
    """

    parameters: float = 8.2e9
    bytes: float = 2.0
    cache: float = 147_456.0
    rollouts: int = 1024
    group: int = 16
    prompt: int = 512
    longest: int = 8192
    passes: float = 8.0

    @property
    def tokens(self) -> float:
        """Of all rollouts."""
        return self.rollouts * self.longest / 2

    @property
    def trained(self) -> float:
        """Tokens that the update passes over: a prompt once for its group."""
        return self.tokens + self.rollouts / self.group * self.prompt


@dataclass(frozen=True)
class Cost:
    """Seconds of a step's parts, on so many samplers and trainers.

    Attributes:
        sample: drawing; train: passes; gradient: what ranks exchange in an update; commands: the driver's messages;
        transfer: a version's weights to all samplers.
    """

    samplers: int
    trainers: int
    sample: float
    train: float
    gradient: float
    commands: float
    transfer: float

    @property
    def update(self) -> float:
        """The trainer's part of the step."""
        return self.train + self.gradient + self.commands

    @property
    def together(self) -> float:
        """A step in which one stage waits for the other (`ahead = 0`)."""
        return self.sample + self.update + self.transfer

    @property
    def ahead(self) -> float:
        """A step in which rollouts are drawn ahead: the longer stage, and the samplers' pause for new weights."""
        return max(self.sample + self.transfer, self.update)


def exchange(size: float, ranks: int, hardware: Hardware) -> float:
    """Seconds of summing and scattering, or of gathering, `size` bytes over ranks, by rings within machines and between them.

    A ring over k members passes (k - 1)/k of the bytes through each, in k - 1 messages. Between machines each of the k ranks
    of a machine has 1/k of the bytes to pass.
    """
    inner = min(ranks, hardware.node)
    outer = math.ceil(ranks / inner)
    within = (inner - 1) / inner * size / hardware.inner + (inner - 1) * hardware.inner_latency
    between = (outer - 1) / outer * size / inner / hardware.outer + (outer - 1) * hardware.outer_latency
    return within + between


def spread(size: float, to: int, speed: float, latency: float) -> float:
    """Seconds until `to` others have `size` bytes of one: whoever has them passes them on, so that holders double."""
    return math.ceil(math.log2(to + 1)) * (size / speed + latency) if to else 0.0


def draw(work: Work, samplers: int, hardware: Hardware, slices: int = 256) -> float:
    """Seconds of drawing a step's rollouts, all at once, each sampler with its share.

    A decoding step reads all weights and the keys and values of every rollout that goes on, and takes 2 operations a parameter
    for each of them; it takes the longer of both. Of b rollouts with lengths uniform up to L, b (1 - i/L) go on at token i.
    """
    own = math.ceil(work.rollouts / samplers)
    place = (np.arange(slices) + 0.5) / slices
    alive = np.maximum(1.0, own * (1 - place))
    held = alive * (work.prompt + place * work.longest) * work.cache
    reading = (work.parameters * work.bytes + held) / (hardware.memory * hardware.read)
    working = 2 * work.parameters * alive / (hardware.flops * hardware.drawn)
    return float(np.maximum(reading, working).mean()) * work.longest


def imbalance(work: Work, trainers: int, seed: int = 0) -> float:
    """Most tokens of a rank over the mean, where the longest sequence left is always given to the rank with the least."""
    lengths = np.random.default_rng(seed).uniform(0, work.longest, work.rollouts)
    loads = np.zeros(trainers)
    for length in np.sort(lengths)[::-1]:
        loads[loads.argmin()] += length
    return float(loads.max() / loads.mean())


def cost(work: Work, samplers: int, trainers: int, messages: Messages, hardware: Hardware) -> Cost:
    """What a step costs."""
    passes = work.passes * work.parameters * work.trained / (trainers * hardware.flops * hardware.trained)
    half = messages.update * work.parameters / 2
    machines = math.ceil(trainers / hardware.node)
    commands = spread(messages.command * work.tokens, machines - 1, hardware.host, hardware.host_latency)
    back = messages.completion * work.tokens / hardware.host
    holders = math.ceil(samplers / hardware.node)
    return Cost(
        samplers,
        trainers,
        draw(work, samplers, hardware),
        passes * imbalance(work, trainers),
        2 * exchange(half, trainers, hardware),
        commands + back,
        spread(messages.weights * work.parameters, holders, hardware.pull, hardware.host_latency),
    )


def best(work: Work, gpus: int, messages: Messages, hardware: Hardware, *, ahead: bool) -> Cost:
    """The split of the GPUs with the shortest step; between machines in whole machines, in one by GPUs."""
    part = 1 if gpus <= hardware.node else hardware.node
    splits = [cost(work, gpus - t, t, messages, hardware) for t in range(part, gpus, part)]
    return min(splits, key=lambda each: each.ahead if ahead else each.together)


def table(
    works: Sequence[tuple[str, Work]], sizes: Sequence[int], messages: Messages, hardware: Hardware
) -> list[dict[str, str]]:
    """A row for each size of each kind of work; efficiency is tokens a second a GPU over that of the first size."""
    rows = []
    for name, work in works:
        first = 0.0
        for gpus in sizes:
            # The work of the name "grows" has as many rollouts a GPU at every size.
            scaled = replace(work, rollouts=work.rollouts * gpus // sizes[0]) if name == "grows" else work
            found = best(scaled, gpus, messages, hardware, ahead=True)
            waiting = best(scaled, gpus, messages, hardware, ahead=False)
            rate = scaled.tokens / found.ahead / gpus
            first = first or rate
            rows.append(
                {
                    "work": f"{name}: {scaled.rollouts} rollouts",
                    "GPUs": str(gpus),
                    "draw + train": f"{found.samplers} + {found.trainers}",
                    "drawing": f"{found.sample:.1f} s",
                    "passes": f"{found.train:.1f} s",
                    "gradient": f"{found.gradient:.2f} s",
                    "driver": f"{found.commands:.2f} s",
                    "weights": f"{found.transfer:.1f} s",
                    "step, ahead": f"{found.ahead:.1f} s",
                    "step, in turn": f"{waiting.together:.1f} s",
                    "efficiency": f"{rate / first:.0%}".replace("%", " %"),
                }
            )
    return rows


def markdown(rows: Sequence[dict[str, str]]) -> str:
    """As the page has it."""
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 64, 512])
    for group, defaults in ((Messages, Messages()), (Work, Work()), (Hardware, Hardware())):
        for name, value in vars(defaults).items():
            parser.add_argument(
                f"--{group.__name__.lower()}.{name}", type=type(value), default=value, dest=f"{group.__name__}.{name}"
            )
    asked = vars(parser.parse_args())

    def given(kind: type) -> dict[str, float]:
        return {name.split(".")[1]: value for name, value in asked.items() if name.startswith(f"{kind.__name__}.")}

    work = Work(**given(Work))
    works = [("stays", work), ("grows", work)]
    print(markdown(table(works, asked["gpus"], Messages(**given(Messages)), Hardware(**given(Hardware)))))


if __name__ == "__main__":
    main()
