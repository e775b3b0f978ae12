"""Sparse generalised linear models whose penalties are learned."""

from .glm import Glm, HeldOutLoss
from .losses import Huber, Logistic, Loss, Multinomial, Poisson, Squared

__all__ = [
    "Glm",
    "HeldOutLoss",
    "Huber",
    "Logistic",
    "Loss",
    "Multinomial",
    "Poisson",
    "Squared",
]
