import torch

from cohort.recipes.srpo import routed
from cohort.signals.distill import demonstrations, has_teacher
from tests.golden.distillation import random_teacher, token_statistics, with_logits, with_teacher


def _routes(batch, config):
    correct = batch.rewards >= config["threshold"]
    available = demonstrations(correct, batch.groups) >= 0
    return correct, available, routed(correct, available)


def batch(case):
    made, leaves = with_logits(case["inputs"])
    _, entropy = token_statistics(made["teacher_logits"], made["token_ids"])
    made = with_teacher(made, _routes(made, case["config"])[2])
    return made.with_tokens(teacher_entropy=entropy), leaves


def _distilled(run):
    return run.batch.mask & has_teacher(run.batch)[:, None]


OUTPUTS = {
    "correct": lambda run: _routes(run.batch, run.config)[0].double(),
    "teacher_available": lambda run: _routes(run.batch, run.config)[1].double(),
    "route_sdpo": lambda run: has_teacher(run.batch).double(),
    # Before distilled rollouts give theirs up.
    "advantages": lambda run: run.scatter(run.assigned["outcome_advantage"]),
    "teacher_entropy": lambda run: torch.where(_distilled(run), run.batch["teacher_entropy"], 0.0),
    "token_weight": lambda run: torch.where(_distilled(run), run.assigned["distil_weight"], 0.0),
}


def KIND_filter(case):
    correct, available = (torch.tensor(case["inputs"][name]).bool() for name in ("correct", "teacher_available"))
    z = routed(correct, available)
    return {"route_sdpo": z.double(), "route_grpo": (~z).double()}


def random_fields(batch, generator):
    batch = random_teacher(batch, generator)
    entropy = torch.rand(batch.mask.shape, generator=generator, dtype=torch.float64) * 3
    return batch.with_tokens(teacher_entropy=entropy)


# The policy of the micro task cannot read a demonstration: its teacher sees the question alone.
HYPER_TRAIN = "(solution_text='', ending='')"
