"""Post-train on rows and a reward of your own: python examples/own_reward.py FOLDER"""

import sys
from pathlib import Path

import cohort

# A reward gets the columns of the rows that it names, and gives one number a completion.
ROWS = [{"prompt": f"{a} + {b} =", "total": a + b} for a in range(10) for b in range(10)]


def near(completions: list[str], total: list[int], **_: object) -> list[float]:
    """1 for the right number, less the further away the last number of the completion is, 0 without one."""
    out = []
    for text, want in zip(completions, total, strict=True):
        found = [int(word) for word in text.replace("#", " ").split() if word.isdigit()]
        out.append(max(0.0, 1.0 - abs(found[-1] - want) / 10) if found else 0.0)
    return out


def main(folder: Path) -> None:
    result = cohort.train(
        "dr-grpo",
        data=ROWS,
        reward=near,
        steps=10,
        prompts_per_step=8,
        group_size=8,
        max_new_tokens=48,
        lr=1e-3,
        out=folder / "own-reward",
        quiet=True,
    )
    rewards = [row["reward/mean"] for row in result.metrics]
    print(f"reward {rewards[0]:.2f} in the first step, {rewards[-1]:.2f} in the last; the model: {result.model}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples"))
