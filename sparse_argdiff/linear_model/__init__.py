"""Linear models and support vector machines whose penalties are learned."""

from .cross_validation import HeldOutFolds
from .glm import Glm
from .held_out import HeldOutLoss
from .kernel import GaussianKernel, Kernel, linear_kernel
from .leave_one_out import LeaveOneOut
from .losses import Huber, Logistic, Loss, Multinomial, Poisson, Squared, SquaredHinge
from .support_vector import (
    HeldOutDecision,
    Intercept,
    SupportVector,
    SupportVectors,
)

__all__ = [
    "GaussianKernel",
    "Glm",
    "HeldOutDecision",
    "HeldOutFolds",
    "HeldOutLoss",
    "Huber",
    "Intercept",
    "Kernel",
    "LeaveOneOut",
    "Logistic",
    "Loss",
    "Multinomial",
    "Poisson",
    "Squared",
    "SquaredHinge",
    "SupportVector",
    "SupportVectors",
    "linear_kernel",
]
