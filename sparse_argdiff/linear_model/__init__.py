"""Sparse generalised linear models whose penalties are learned."""

from .cross_validation import HeldOutFolds
from .glm import Glm
from .held_out import HeldOutLoss
from .losses import Huber, Logistic, Loss, Multinomial, Poisson, Squared

__all__ = [
    "Glm",
    "HeldOutFolds",
    "HeldOutLoss",
    "Huber",
    "Logistic",
    "Loss",
    "Multinomial",
    "Poisson",
    "Squared",
]
