import torch

from cohort.policies.roles import Roles
from cohort.signals.distill import demonstrations, has_teacher, teacher_inputs
from tests.golden.distillation import random_teacher, with_logits, with_teacher
from tests.golden.runner import make_batch

ELSEWHERE = (
    "its teacher is the policy reading a demonstration, which the policy of the micro task never learnt to do; one that "
    "did is trained in tests/recipes/test_sdpo.py"
)
random_fields = random_teacher


def _demonstrations(batch, config):
    correct = batch.rewards >= config["threshold"]
    return demonstrations(correct, batch.groups, exclude_self=config["exclude_self"])


def batch(case):
    made, leaves = with_logits(case["inputs"])
    return with_teacher(made, _demonstrations(made, case["config"]) >= 0), leaves


OUTPUTS = {
    "demonstration": lambda run: _demonstrations(run.batch, run.config),
    "distill_mask": lambda run: has_teacher(run.batch).double(),
}


def KIND_guidance(case):
    inputs = dict(case["inputs"])
    has_feedback = torch.tensor(inputs.pop("has_feedback")).bool()
    made, _ = make_batch(inputs)
    correct, rows = made.rewards >= case["config"]["threshold"], []
    for row in case["expected"]["rows"]:
        how = {name: row[name] for name in ("exclude_self", "feedback_only_without_solution")}
        demonstration, use_feedback = teacher_inputs(correct, made.groups, has_feedback, **how)
        shown = (demonstration >= 0) | use_feedback
        rows.append(
            {**how, "demonstration": demonstration, "use_feedback": use_feedback, "distill_mask": shown.double()}
        )
    return {"rows": rows}


def KIND_state(case):
    """The weight of a teacher of one weight after each step, moved as the policy's is."""
    student = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    torch.nn.init.constant_(student.weight, case["inputs"]["teacher0"])
    roles = Roles(student)
    roles.make("ema", decay=1 - case["config"]["teacher_update_rate"])
    out = []
    for step, weight in enumerate(case["inputs"]["student_after_step"], 1):
        torch.nn.init.constant_(student.weight, weight)
        roles.move(step)
        out.append(float(roles.models["ema"].weight))
    return {"teacher_after_step": out}


SORTS = "the most likely tokens of the vocabulary at each place"
