"""Upper-level methods, min_x f^U(x, g(x)), one file a method."""

from .minimize import minimize
from .prior import Sum, prior
from .result import BilevelResult, HistoryRecord
from .run import Run

__all__ = ["BilevelResult", "HistoryRecord", "Run", "Sum", "minimize", "prior"]
