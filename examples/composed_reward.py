"""A right answer counts if its working is shown, short ones more and more: python examples/composed_reward.py FOLDER"""

import sys
from pathlib import Path

import cohort

# The working begins with a number and goes on to a result: "5+2=7+6=13"; "maybe 13" is a guess.
REWARDS = ["number", r"0*work=format:^\d.*=", "length:32"]


def main(folder: Path) -> None:
    result = cohort.train(
        "grpo",
        reward=REWARDS,
        reward_gate=["number if work", "length if number"],
        reward_clip=["length ..0.5"],
        reward_schedule=["length 0:0 8:0.2"],
        steps=10,
        prompts_per_step=8,
        group_size=8,
        out=folder / "composed-reward",
        quiet=True,
    )
    for row in (result.metrics[0], result.metrics[-1]):
        print(
            f"step {row['step']}: right {row['accuracy']:.2f}, right with working {row['reward/number']:.2f}, "
            f"shortness counts {row['reward/length']:.2f} with a weight of {row['weight/length']:.2f}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples"))
