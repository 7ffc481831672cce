"""Why a token was pushed up or down: python examples/explain_token.py FOLDER"""

import sys
from pathlib import Path

import cohort
from cohort.analysis.store import open_run
from cohort.analysis.tokens import explain, view


def main(folder: Path) -> None:
    result = cohort.train(
        "dapo",
        steps=2,
        prompts_per_step=4,
        group_size=6,
        max_new_tokens=48,
        eval_size=8,
        record="tokens",
        out=folder / "explained",
        quiet=True,
    )
    run = open_run(result.folder)
    rollouts = run.rollouts(1)
    assert rollouts is not None
    trained = next(i for i, kept in enumerate(rollouts["trained"].to_pylist()) if kept)
    seen = view(run, 1, trained)
    strongest = max(seen["tokens"], key=lambda token: abs(token.get("policy_gradient") or 0.0))
    print(f"{seen['rollout']['completion']!r}, reward {seen['rollout']['reward']:g}")
    for line in explain(run, seen, strongest["index"]):
        print(f"  {line}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples"))
