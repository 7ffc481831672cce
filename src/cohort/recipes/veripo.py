"""VerIPO: Cultivating Long Reasoning in Video-LLMs via Verifier-Guided Iterative Policy Optimization. arXiv:2505.19000.

Confidence: reconstructed: which rollout of a class is taken, least length, one pair a kind, form of reflections.
    grpo_steps      GRPO on r = r_a + format_weight format;  a verifier looks at each rollout: is it right (r_a = 1), does
                    its answer follow from its reasoning, does it repeat itself, how long is it
    reflect_steps   prompts that no rollout solved: the policy is shown the answer, and goes on behind a wrong rollout and
                    `phrase`; what passes the verifier is preferred to that rollout, as an answer to the plain prompt
    dpo_steps       -log sigmoid(beta sum_t [(logp - ref)_chosen - (logp - ref)_rejected]), the mean over `pairs` pairs a step;
                    ref is the policy after the GRPO steps
    then again, without floor(drop_share n) of the n prompts that were solved throughout

Pairs are the run's own rollouts (`verified_pairs`); without any, GRPO goes on. `quality` names the reward r_a where it is
graded (`relative:strict`). `consistent` names one that is above 0 where the answer follows (a judge's); else a rule says it.

Defaults: format_weight 0.5, beta 0.1, drop_share 0.8, 32 pairs (paper; 8 rollouts, lr 1e-6, then 5e-7); numbers of steps: ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from cohort.axes.curriculum import in_epochs
from cohort.axes.objective import replayed_pairs
from cohort.axes.reflection import PHRASE, WRONG, add_reflected_logp, not_reflected, reflected
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.signals.components import component
from cohort.signals.phases import Plan, phase_at
from cohort.signals.verified import easy_prompts, kept_pairs, referred, replayed, with_verdicts
from cohort.types import Batch, Rollout, StepInfo
from cohort.types.access import ModelAccess, Notes
from cohort.types.declare import State, declare, hooks, needs
from cohort.types.replay import Replay, completions, unpack

Rows = Sequence[Rollout]


def graded(batch: Batch, quality: str | None, info: StepInfo) -> Tensor:
    """r_a [N]."""
    return batch["accuracy"] if quality is None else component(batch, quality, info)


def _start(size: int) -> State:
    place = {"order": torch.empty(0, dtype=torch.int64), "position": 0, "epoch": 0, "round": 0}
    known = {"accuracy": torch.full((size,), torch.nan, dtype=torch.float64), "dropped": torch.zeros(size).bool()}
    return {**place, **known, "pairs": [], "failed": []}


def verify(batch: Batch, access: ModelAccess, info: StepInfo, *, consistent: str | None, most_repeated: float) -> Batch:
    """on_scored hook: the batch with `consistent` and `repetitive` [N], and `reflected_logp` [N, T]."""
    judged = None if consistent is None else component(batch, consistent, info)
    return add_reflected_logp(with_verdicts(batch, access.rollouts, judged, most_repeated=most_repeated), access)


def _collect(
    batch: Batch, state: State, rollouts: Rows, info: StepInfo, *, plan: Plan, quality: str | None, min_length: int
) -> State:
    if not any(rollouts):  # a batch by itself
        return state
    now = phase_at(info.step, plan)
    held = {**state, "pairs": [], "failed": []} if now.name == "grpo" and now.place == 0 else state
    return {**state, **kept_pairs(batch, rollouts, held, graded(batch, quality, info), min_length=min_length)}


def _refer(state: State, access: ModelAccess, info: StepInfo, *, plan: Plan) -> State:
    now = phase_at(info.step, plan)
    return {**state, **referred(state, access, everything=now.name == "grpo" and now.last)}


def _replay(state: State, info: StepInfo, *, plan: Plan, pairs: int) -> Replay | None:
    now = phase_at(info.step, plan)
    return replayed(state["pairs"], pairs, now.place) if now.name == "dpo" else None


@needs("reflection")
@hooks(init=_start, on_scored=verify, on_rollouts=_collect, on_step_end=_refer, replay=_replay)
@declare(provides=("consistent", "repetitive", "reflected_logp"), components=("quality", "consistent"))
def in_phases(
    state: State, *, count: int, rng: torch.Generator, info: StepInfo, plan: Plan, drop_share: float = 0.8
) -> tuple[Tensor, State, Notes]:
    """Prompts that were not dropped, once an epoch; failed ones where they are reflected on; none for pairs."""
    now = phase_at(info.step, plan)
    if now.name == "dpo" and state["pairs"]:
        return torch.empty(0, dtype=torch.int64), state, ()
    failed = {each["row"]: each["rows"] for each in state["failed"] if "ref" in each}
    asked = [*failed][now.place * count : (now.place + 1) * count] if now.name == "reflect" else []
    if asked:
        return torch.tensor(asked), state, [{WRONG: completions(unpack(failed[row]).batch)[0]} for row in asked]
    if now.round > state["round"]:
        easy, most = easy_prompts(state["accuracy"], drop_share)
        gone = state["dropped"].scatter(0, easy[torch.randperm(len(easy), generator=rng)[:most]], True)
        state = {**state, "dropped": gone, "round": now.round, "order": state["order"][:0], "position": 0}
    return (*in_epochs(state, (~state["dropped"]).nonzero()[:, 0], count=count, rng=rng), ())


@declare(components=("quality", "format"))
def with_format(
    batch: Batch, *, quality: str | None, format: str | None, format_weight: float, info: StepInfo
) -> Tensor:
    """r_a + format_weight format: [N]; in place of the run's rewards."""
    return graded(batch, quality, info) + (0.0 if format is None else format_weight * component(batch, format, info))


@recipe(
    title="VerIPO: Cultivating Long Reasoning in Video-LLMs via Verifier-Guided Iterative Policy Optimization",
    paper="arXiv:2505.19000",
    idea="GRPO, then DPO on pairs that a verifier makes of its rollouts, then GRPO without what is solved",
    confidence="reconstructed: which rollout of a class is taken, the least length, the form of reflections",
    rewards=("math", r"0*format:\A<think>.*?</think>\s*<answer>.*?</answer>\s*\Z"),
)
def veripo(
    *,
    quality: str | None = None,
    format: str | None = "format",
    consistent: str | None = None,
    format_weight: Annotated[float, "[0, inf)"] = 0.5,
    beta: Annotated[float, "(0, inf)"] = 0.1,
    grpo_steps: Annotated[int, "[1, inf)"] = 20,
    reflect_steps: Annotated[int, "[0, inf)"] = 1,
    dpo_steps: Annotated[int, "[0, inf)"] = 10,
    pairs: Annotated[int, "[1, inf)"] = 32,
    min_length: Annotated[int, "[0, inf)"] = 0,
    most_repeated: Annotated[float, "[0, 1]"] = 0.5,
    drop_share: Annotated[float, "[0, 1]"] = 0.8,
    answer: str = "answer",
    phrase: str = PHRASE,
) -> Method:
    plan = (("grpo", grpo_steps), ("reflect", reflect_steps), ("dpo", dpo_steps))
    look = {"quality": quality, "consistent": consistent, "min_length": min_length, "most_repeated": most_repeated}
    return Method(
        curriculum=use(in_phases, plan=plan, pairs=pairs, drop_share=drop_share, **look),
        guidance=use(reflected, answer=answer, phrase=phrase),
        shaping=(use(with_format, quality=quality, format=format, format_weight=format_weight),),
        filter=(use(not_reflected),),
        regularizer=(use(replayed_pairs, beta=beta),),
    )
