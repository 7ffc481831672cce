"""Environments that take 5 to 500 ms for an answer: the share of sampling in which the engine has nothing to draw.

    python -m benchmarks.environments                   hidden 256, 6 layers, 64 episodes of 4 turns
    python -m benchmarks.environments --episodes 200 --json

Every answer takes a time of its own, log-uniform between 5 and 500 ms. The same number of episodes is run in two ways: as
cohort does, each one's next turn submitted as soon as its own environment has answered; and in lock-step, where all turns are
drawn, then all answers awaited, and so on. In both, an environment is asked as soon as its turn is drawn. The engine is idle
while no turn is left to draw and answers are awaited.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cohort.environments import Step

SIZES = {
    "hidden": 256,
    "layers": 6,
    "heads": 8,
    "kv_heads": 4,
    "vocab": 2000,
    "prompt_len": 40,
    "max_new": 400,
    "episodes": 64,
    "group": 8,
    "turns": 4,
    "turn_tokens": 32,
    "processes": 2,
    "fastest_ms": 5,
    "slowest_ms": 500,
}


class World:
    """Answers so often, each time after a while."""

    def __init__(self, turns: int, fastest_ms: float, slowest_ms: float) -> None:
        self.turns, self.range = turns, (math.log(fastest_ms / 1000), math.log(slowest_ms / 1000))

    def reset(self, row: Any, seed: int) -> Any:
        self.rng, self.turn = random.Random(f"{seed} {id(self)}"), 0
        return row["prompt"]

    def step(self, message: Any) -> Step:
        time.sleep(math.exp(self.rng.uniform(*self.range)))
        self.turn += 1
        return Step("w5 w6 w7 w8", 1.0, done=self.turn == self.turns)


def measure(size: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Seconds, and of these those in which nothing was drawn, by the way in which episodes were run."""
    import torch

    from benchmarks.vs_trl import make_model
    from cohort.engine.base import Sampling
    from cohort.engine.native.engine import NativeEngine
    from cohort.environments.apart import Apart
    from cohort.environments.pool import Pool
    from cohort.environments.spec import parse
    from cohort.policies.causal_lm import CausalLM
    from cohort.rewards.grader import Grader
    from cohort.rewards.scorer import Scorer
    from cohort.rollouts import runner as module
    from cohort.types import Context, Prompt, Request

    torch.set_num_threads(size.threads)
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), size)
        policy = CausalLM.load(folder)
    options = "&".join(f"{name}={getattr(size, name)}" for name in ("turns", "fastest_ms", "slowest_ms"))
    pool = Pool(parse(f"{__file__}:World?{options}"), timeout=60.0, processes=size.processes)
    requests = []
    for i in range(size.episodes):
        text = " ".join(f"w{3 + (i // size.group * 7 + k) % 100}" for k in range(size.prompt_len))
        prompt = Prompt(str(i // size.group), text, policy.renderer.encode(text, start=True), text, {"prompt": text})
        requests.append(Request(prompt, Context(prompt.tokens), i, size.max_new))
    # Turns end at the same length, so that both ways draw the same.
    end = next(iter(policy.renderer.stop_ids))
    sampling = Sampling(min_new_tokens=size.turn_tokens - 1, logit_bias={end: 30.0})

    class LockStep(module._Run):
        def _draw(self) -> None:
            while self.session.waiting:
                super()._draw()
            began = time.perf_counter()
            while self.answers.pending:
                self.answers.wait(0.001)
            self.runner.seconds["idle"] += time.perf_counter() - began

    out: dict[str, dict[str, float]] = {}
    try:
        offer = pool.start()
        grader = Grader(Scorer([]), "", 1.0, size.max_new)
        ways = {"own pace": module._Run, "lock-step": LockStep}
        for name in ("warm-up", *ways):
            run = module.Runner(policy, NativeEngine(policy), sampling, Apart(grader, pool, offer))
            began = time.perf_counter()
            rollouts = ways.get(name, module._Run)(run).finish(module.begin(run.environments, requests))
            seconds = time.perf_counter() - began
            turns = {len(each.turns) for each in rollouts}
            assert turns == {size.turns}, turns
            out[name] = {"seconds": seconds, "idle": run.seconds["idle"], "idle_share": run.seconds["idle"] / seconds}
    finally:
        pool.close()
    del out["warm-up"]
    return out


def main(arguments: list[str] | None = None) -> int:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in SIZES.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    size = parser.parse_args(arguments)
    found = measure(size)
    for name, numbers in found.items():
        print(
            f"{name:10s} {numbers['seconds']:6.2f} s, nothing to draw in {numbers['idle']:6.2f} s ({numbers['idle_share']:.0%})"
        )
    if size.json:
        print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
