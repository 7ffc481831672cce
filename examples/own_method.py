"""A method of your own, combined with a published one: python examples/own_method.py FOLDER"""

import sys
from pathlib import Path

import torch

import cohort
from cohort import Batch, Method, use
from cohort.reductions.groups import group_mean
from cohort.types.declare import declare


@declare(group_size=2)
def signs(batch: Batch, *, scale: float = 1.0) -> torch.Tensor:
    """A_i = scale * sign(r_i - mean of the group): [N]."""
    return scale * torch.sign(batch.rewards - group_mean(batch.rewards, batch.groups)[batch.groups.index])


def main(folder: Path) -> None:
    # The advantage is ours; clipping and aggregation are DAPO's, without the sampling that it adds.
    mine = Method(advantage=use(signs, scale=0.5), name="signs")
    method = mine | cohort.method("dapo:surrogate,aggregation")
    print(f"{method.name} fills {', '.join(method.filled)}")
    result = cohort.train(
        method, steps=8, prompts_per_step=8, group_size=8, eval_size=20, out=folder / "own-method", quiet=True
    )
    print(f"sampled accuracy {result.metrics[0]['accuracy']:.0%} -> {result.metrics[-1]['accuracy']:.0%}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples"))
