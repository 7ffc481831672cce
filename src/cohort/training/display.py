"""What a run says on screen."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from cohort.types import Rollout


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    minutes, second = divmod(round(max(0.0, seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


# Lines that are shown of what rewards print in a step, messages that are shown of those that fail, and characters of a line.
PRINTED, WIDTH = 5, 200
_PRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def step_values(metrics: Mapping[str, float], *, rewards: Sequence[str], verdict: str, drawn: bool) -> dict[str, float]:
    """What the line of a step shows, by the name it goes under; what is not known is left out.

    Args:
        rewards: names of the components; several stand each by itself.
        verdict: what the share of correct rollouts is called.
        drawn: rollouts were sampled, rather than taken from stored completions, whose accuracy says nothing of the policy.
    """
    named = {"reward": "reward/mean"}
    named |= {name: f"reward/{name}" for name in rewards} if len(rewards) > 1 else {}
    named |= {verdict: "accuracy", "turns": "episode/turns_mean", "entropy": "entropy"}
    if not drawn:
        named = {"loss": "loss", "margin": "margin"}
    named |= {"kl": "kl"}
    # Of what many processes show the most telling number: the others are in metrics.jsonl.
    named |= {"age": "rollouts/age_mean"} if "rollouts/age_mean" in metrics else {"workers": "engine/workers"}
    known = {name: metrics.get(key, math.nan) for name, key in named.items()}
    return {name: value for name, value in known.items() if not math.isnan(value)}


class Display:
    """Live progress on a terminal, lines elsewhere.

    Args:
        quiet: say nothing.
        console: where to say it; standard error if None, so that results on standard output stay clean.
    """

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self.quiet = quiet
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._total = 0
        self._began = 0.0
        self._first = 0
        self._every = 1

    def log(self, text: str) -> None:
        """A line, printed as it is."""
        if self.quiet:
            return
        try:
            self.console.print(Text(text))
        except (OSError, ValueError, SystemExit):
            # Whoever read on is gone (rich ends the process where a pipe is closed): no reason to end a run.
            self.quiet = True

    def hush(self) -> None:
        """Say nothing from now on."""
        self.end()
        self.quiet = True

    def printed(self, text: str, where: object, who: str = "reward") -> None:
        """The last lines of what reward functions, or another part `who`, printed; `where` has the others."""
        # Of a line that was written over again and again, as bars of progress are, the last state.
        lines = [_PRINTABLE.sub("", line.rstrip("\r").rpartition("\r")[2]) for line in text.split("\n")]
        lines = [line for line in lines if line.strip()]
        for line in lines[-PRINTED:]:
            self.log(f"  {who}: {line if len(line) <= WIDTH else line[: WIDTH - 3] + '...'}")
        if len(lines) > PRINTED:
            self.log(f"  {who}: ({len(lines) - PRINTED} more lines before these: {where})")

    def failures(self, messages: Sequence[str]) -> None:
        """The first of a step's messages about rewards that failed, and how many more there are."""
        for message in messages[:PRINTED]:
            self.log(f"  {message}")
        if len(messages) > PRINTED:
            self.log(f"  ({len(messages) - PRINTED} more such messages in this step)")

    def begin(self, what: str, total: int, done: int = 0) -> None:
        """Start showing a phase of `total` steps."""
        self._total, self._first, self._began = total, done, time.monotonic()
        self._every = max(1, (total - done) // 20)
        if self.quiet:
            return
        if self.console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[line]}"),
                console=self.console,
                transient=True,
            )
            self._progress.start()
            self._task = self._progress.add_task(what, total=total, completed=done, line="")

    def step(self, step: int, values: Mapping[str, float | None], *, rate: str = "tok/s") -> None:
        """Progress of the phase; `values` are shown in their order, those that are None left out."""
        if self.quiet:
            return
        spent = time.monotonic() - self._began
        ahead = f"left {clock(spent / (step - self._first) * (self._total - step))}" if step > self._first else ""
        shown = "  ".join(f"{name} {_short(value)}" for name, value in values.items() if value is not None)
        line = f"step {step}/{self._total}  {shown}  {ahead}".rstrip()
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=step, line=line)
        if step % self._every == 0 or step in (self._first + 1, self._total):
            self.log(line)

    def end(self) -> None:
        """The phase is over."""
        if self._progress is not None:
            self._progress.stop()
            self._progress, self._task = None, None

    def rollouts(self, step: int, rollouts: Sequence[Rollout]) -> None:
        """The best and the worst of a few rollouts of one prompt, readable."""
        if self.quiet or not rollouts:
            return
        group = [r for r in rollouts if r.prompt.id == rollouts[0].prompt.id]
        shown = sorted((r for r in group if r.scored), key=lambda r: -r.reward) or group
        shown = shown[:1] if len(shown) == 1 or shown[0].reward == shown[-1].reward else [shown[0], shown[-1]]
        self.log(f"  at step {step}, of the prompt {_excerpt(rollouts[0].prompt.question)}")
        for rollout in shown:
            parts = "  ".join(f"{k} {_short(v)}" for k, v in rollout.components.items() if v is not None)
            earned = f"reward {_short(rollout.reward)} ({parts})" if rollout.scored else "no reward"
            self.log(f"    {earned}  {_excerpt(rollout.text)}")


def _excerpt(text: str, most: int = 160) -> str:
    return repr(text if len(text) <= most else f"{text[: most - 40]} ... {text[-35:]}")


def _short(value: float | None) -> str:
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{value / 1000:.1f}k"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}".rstrip("0").rstrip(".")


def warm_start(display: Display) -> Callable[[str, int, int, Mapping[str, float]], None]:
    """What shows the supervised steps of a model that is trained before the run begins."""
    began = {"at": 0.0}

    def report(phase: str, step: int, steps: int, values: Mapping[str, float]) -> None:
        if step == 1:
            display.begin(phase, steps, done=1)  # its first step is over when the time begins
            began["at"] = time.monotonic()
        rate = values["tokens"] * (step - 1) / max(1e-9, time.monotonic() - began["at"]) if step > 1 else None
        display.step(step, {"loss": values["loss"], "tok/s": rate})
        if step == steps:
            display.end()

    return report
