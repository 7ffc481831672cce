"""The section of a configuration that says what rollouts are worth."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from cohort.rewards.judges.judges import JudgeSettings
from cohort.rewards.spec import is_weighted
from cohort.training.sections import Section, one_or_many
from cohort.training.values import REWARDS, Count, Name, Number, Option


def of_rewards(value: list[Any]) -> list[Any]:
    """Each is a reward."""
    for each in value:
        if not (isinstance(each, str) or callable(each) or is_weighted(each)):
            raise ValueError(f"{each!r} is no reward: name one, or give a function or (weight, function)")
    return value


class RewardsConfig(Section):
    """What rollouts are worth, and where that is worked out."""

    reward: Annotated[
        list[Any], BeforeValidator(one_or_many), AfterValidator(of_rewards), Option(REWARDS, "REWARD")
    ] = Field(
        default_factory=list,
        description="builtin (exact, number, math, ...: docs/rewards.md) or file.py:function; WEIGHT*NAME=REWARD weighs and "
        "names it; from Python also functions and (weight, function)",
    )
    reward_gate: Annotated[list[Name], BeforeValidator(one_or_many), Option(REWARDS, "GATE")] = Field(
        default_factory=list, description="when a reward counts, as in math if format, or length if math>=0.5 else -1"
    )
    reward_clip: Annotated[list[Name], BeforeValidator(one_or_many), Option(REWARDS, "CLIP")] = Field(
        default_factory=list, description="the range of a reward, as in length 0..0.5; one end may be left out"
    )
    reward_schedule: Annotated[list[Name], BeforeValidator(one_or_many), Option(REWARDS, "SCHEDULE")] = Field(
        default_factory=list, description="the weight of a reward by completed steps, as in length 0:0 100:0.2"
    )
    reward_once: Annotated[list[Name], BeforeValidator(one_or_many), Option(REWARDS, "NAME")] = Field(
        default_factory=list,
        description="reward of yours that depends on row and completion alone: scored once for each",
    )
    accuracy: Annotated[Name | None, Option(REWARDS, "REWARD")] = Field(
        None, description="reward that says what is correct; default: the first verifier"
    )
    correct_at: Number = Field(1.0, description="value of that reward from which a rollout counts as correct")
    special_tokens: Literal["content", "all", "none"] | list[Name] = Field(
        "content",
        description="special tokens that rewards see: those that do not end, pad or frame a turn; all; none; or their texts",
    )
    reward_timeout: Annotated[Number, Option(REWARDS, "SECONDS")] = Field(
        60.0, gt=0, le=1e6, description="seconds that a reward function, or a judge, may take for a batch"
    )
    on_reward_error: Annotated[Literal["stop", "zero", "skip"], Option(REWARDS)] = Field(
        "stop", description="what to do when a reward function fails: end the run, count 0, or leave the rollout out"
    )
    reward_process: Annotated[Literal["worker", "here"], Option(REWARDS)] = Field(
        "worker",
        description="where reward functions run: in a process of their own, or in this one, with no time limit",
    )
    reward_workers: Annotated[Count, Option(REWARDS, "PROCESSES")] = Field(
        1,
        ge=1,
        le=256,
        description="processes of reward functions, each with a share of a batch, whole groups together",
    )
    judge_calls: Annotated[Count | None, Option(REWARDS, "CALLS")] = Field(
        None, ge=1, description="questions that judges may be asked in the whole run; none sets no limit"
    )
    judge_tokens: Annotated[Count | None, Option(REWARDS, "TOKENS")] = Field(
        None, ge=1, description="tokens that judges may read and write in the whole run; none sets no limit"
    )
    judge_on_spent: Annotated[Literal["stop", "skip"], Option(REWARDS)] = Field(
        "stop",
        description="when judge_calls or judge_tokens are spent: end the run, or go on without the judge's reward",
    )
    judge_concurrency: Annotated[Count, Option(REWARDS, "QUESTIONS")] = Field(
        16, ge=1, description="questions that are sent to a judge's server at once"
    )
    judge_timeout: Annotated[Number, Option(REWARDS, "SECONDS")] = Field(
        120.0, gt=0, le=1e6, description="seconds that a question to a judge may take, with all its tries"
    )
    judge_reply: Annotated[Count, Option(REWARDS, "TOKENS")] = Field(
        1024, ge=1, description="most tokens of a judge's reply"
    )
    judge_key: Annotated[Name, Option(REWARDS, "VARIABLE")] = Field(
        "COHORT_JUDGE_KEY", description="environment variable that holds the key of the judges' servers"
    )
    judge_cache: bool = Field(True, description="keep judges' replies on disk, and never ask the same question twice")

    @property
    def judging(self) -> JudgeSettings:
        """How judges are asked."""
        limits = {"calls": self.judge_calls, "tokens": self.judge_tokens, "on_spent": self.judge_on_spent}
        how = {"concurrency": self.judge_concurrency, "timeout": float(self.judge_timeout), "reply": self.judge_reply}
        return JudgeSettings(**limits, **how, key=self.judge_key, cache=self.judge_cache)  # type: ignore[arg-type]
