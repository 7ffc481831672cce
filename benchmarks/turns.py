"""What later turns of an episode cost, and what a tree of rollouts does: tokens that are encoded, and seconds.

    python -m benchmarks.turns                   episodes of ten turns, turn by turn
    python -m benchmarks.turns --tree            passes with gradient over the paths of a tree

Turns are drawn once with what earlier turns computed kept, as a session does, and once with it forgotten after every turn.
Trees are passed through the model as trees, and once more sharing nothing but the prompt. Seconds are those of the processor.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.vs_trl import SIZES, make_model
from cohort.engine.base import Sampling
from cohort.engine.native.engine import NativeEngine
from cohort.policies import trees
from cohort.policies.causal_lm import CausalLM
from cohort.policies.packing import pack
from cohort.types import Prompt, Request, Segment


def model(most: int) -> CausalLM:
    """The first model of `vs_trl`, for sequences of so many tokens."""
    size = argparse.Namespace(**{name: value for name, (value, _) in SIZES.items()})
    size.prompt_len, size.max_new = most, 0
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), size)
        return CausalLM.load(folder)


def turns(
    policy: CausalLM, *, keep: bool, episodes: int, count: int, prompt: int, said: int, answer: int
) -> list[tuple[int, float]]:
    """(tokens encoded, seconds) of each turn, all episodes together."""
    rng = random.Random(0)
    task = Prompt("task", "", tuple(rng.randrange(3, 50) for _ in range(prompt)), "")
    session = NativeEngine(policy).session(Sampling(stop_ids=frozenset()))
    history: list[tuple[int, ...]] = [()] * episodes
    out = []
    for turn in range(count):
        before, start = session.encoded, time.process_time()
        of = {}
        for i, own in enumerate(history):
            segments = (Segment(own, "environment"),) if own else ()
            of[session.submit(Request(task, task.tokens, 1000 * i + turn, said, segments))] = i
        while session.waiting:
            number, completion = session.next()
            told = tuple(rng.randrange(3, 50) for _ in range(answer))
            history[of[number]] = (*history[of[number]], *completion.tokens, *told)
            if not keep:
                session.forget(number)
        out.append((session.encoded - before, time.process_time() - start))
    session.close()
    return out


def tree(policy: CausalLM, *, branching: list[int], prompt: int, segment: int) -> None:
    """Passes with gradient over the paths of a tree."""
    rng = random.Random(0)
    context = [rng.randrange(3, 50) for _ in range(prompt)]
    level: list[list[int]] = [[]]
    for width in branching:
        level = [[*path, *(rng.randrange(3, 50) for _ in range(segment))] for path in level for _ in range(width)]
    distinct = prompt + segment * sum(torch.tensor(branching).cumprod(0).tolist())
    print(f"{len(level)} paths, {len(level) * (prompt + segment * len(branching))} tokens, {distinct} of them distinct")
    actions = policy.actions_after([context] * len(level), level)
    for name, branch in (("the prompt alone is shared", 10**9), ("the tree is shared", trees.BRANCH)):
        trees.BRANCH = branch
        parts = policy.micro_batches(actions, policy.pass_tokens)
        tokens = sum(len(pack(actions.select(rows), policy.device).ids) for rows in parts)
        start = time.process_time()
        for rows in parts:
            policy.log_probs(actions.select(rows), width=segment * len(branching))["logp"].sum().backward()
        print(f"{name:28} {tokens:7} tokens in {len(parts)} passes, {time.process_time() - start:6.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", action="store_true", help="trees rather than turns")
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--prompt", type=int, default=200, help="tokens of the prompt")
    parser.add_argument("--said", type=int, default=32, help="tokens of a turn, and of a segment of a tree")
    parser.add_argument("--answer", type=int, default=96, help="tokens of what the environment answers")
    size = parser.parse_args()
    torch.manual_seed(0)
    if size.tree:
        tree(model(size.prompt + 200), branching=[6, 6, 6], prompt=size.prompt, segment=size.said)
        return
    policy = model(size.prompt + size.turns * (size.said + size.answer))
    how = {
        "episodes": size.episodes,
        "count": size.turns,
        "prompt": size.prompt,
        "said": size.said,
        "answer": size.answer,
    }
    turns(policy, keep=True, **{**how, "count": 1})  # the code is compiled
    kept, forgotten = (turns(policy, keep=keep, **how) for keep in (True, False))
    print("turn   encoded, kept   seconds   encoded, forgotten   seconds")
    for turn, ((few, fast), (many, slow)) in enumerate(zip(kept, forgotten, strict=True), 1):
        print(f"{turn:4} {few:15} {fast:9.2f} {many:20} {slow:9.2f}")


if __name__ == "__main__":
    main()
