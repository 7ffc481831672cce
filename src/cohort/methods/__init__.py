"""Methods: axis functions with hyperparameters in the slots of the training step, their composition, and their work.

What a method computes stands in `cohort.axes` and `cohort.recipes`; everything here is bookkeeping.
"""

from cohort.methods.axis import AXES, DRAWING_AXES, LOSS_AXES, MANY, ONE
from cohort.methods.execution import BoundMethod, Loss, Prepared
from cohort.methods.method import Method
from cohort.methods.stage import HOOKS, ConflictError, MethodError, Stage, use

__all__ = [
    "AXES",
    "DRAWING_AXES",
    "HOOKS",
    "LOSS_AXES",
    "MANY",
    "ONE",
    "BoundMethod",
    "ConflictError",
    "Loss",
    "Method",
    "MethodError",
    "Prepared",
    "Stage",
    "use",
]
