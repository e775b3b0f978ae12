"""Linear models and support vector machines whose penalties are learned."""

from .cross_validation import HeldOutFolds
from .glm import Glm
from .held_out import HeldOutLoss
from .held_out_decision import HeldOutDecision
from .intercept import Intercept
from .kernel import GaussianKernel, Kernel, linear_kernel
from .leave_one_out import LeaveOneOut
from .loss import Loss
from .losses import (
    Gamma,
    Huber,
    Logistic,
    Poisson,
    Quantile,
    Squared,
    SquaredHinge,
    Tweedie,
)
from .multinomial import Multinomial
from .support_vector import SupportVector, SupportVectors

__all__ = [
    "Gamma",
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
    "Quantile",
    "Squared",
    "SquaredHinge",
    "SupportVector",
    "SupportVectors",
    "Tweedie",
    "linear_kernel",
]
