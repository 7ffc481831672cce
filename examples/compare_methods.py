"""Two methods on the same prompts, problems and seeds: python examples/compare_methods.py FOLDER"""

import sys
from pathlib import Path

import cohort


def main(folder: Path) -> None:
    found = cohort.compare(
        ["grpo", "dr-grpo"],
        seeds=2,
        steps=4,
        samples=2,
        prompts_per_step=4,
        group_size=4,
        max_new_tokens=32,
        eval_size=16,
        out=folder / "compared",
        quiet=True,
    )
    print(f"compared {', '.join(found.findings.entries)}; open {found.report}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples"))
