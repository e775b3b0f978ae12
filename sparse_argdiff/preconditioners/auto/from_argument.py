"""The argument ``M`` of a solver: an operator, a function of K, "auto" or None.

M, n_matvec = choice(K, rtol)             before a solve with K
choice.record(niter, reduction)           after it
"""

from __future__ import annotations

import math
from typing import Any

from ...operators.linear_operator import LinearOperator, aslinearoperator
from .auto import Auto


class Choice:
    """The preconditioner that the argument ``M`` gives for each operator K.

    Parameters
    ----------
    M : operator, "auto", function or None
        A function takes the operator and returns M ≈ K⁻¹ or None: a builder of
        ``preconditioners``, or an ``Auto`` that a sequence of solves shares.
    """

    def __init__(self, M: Any) -> None:
        if isinstance(M, str):
            if M != "auto":
                raise ValueError(f"M must be an operator, 'auto' or None, found {M!r}")
            M = Auto(patience=2.0)
        # SciPy's operators can be called too, and have a shape.
        builds = callable(M) and not hasattr(M, "shape")
        self.auto = M if isinstance(M, Auto) else None
        self._build: Any = M if builds else None
        self._fixed = None if M is None or builds else aslinearoperator(M)

    def __call__(
        self, K: LinearOperator, rtol: float = 1e-8
    ) -> tuple[LinearOperator | None, int]:
        """Return M for K and the products that its setup took.

        ``rtol``: of the solve that follows; an ``Auto`` decides by it what pays.
        """
        if self.auto is not None:
            return self.auto.choose(K, rtol)
        if self._build is None:
            return self._fixed, 0
        built = self._build(K)
        if built is None:
            return None, 0
        M = aslinearoperator(built)
        if M.shape != K.shape:
            raise ValueError(f"M must have shape {K.shape} like A, found {M.shape}")
        return M, M.n_matvec

    def record(self, niter: int, reduction: float) -> None:
        """Pass the iterations and ‖residual‖ / ‖right-hand side‖ of a solve to ``Auto``."""
        if self.auto is not None and 0.0 <= reduction < 1.0:
            self.auto.observe(niter, -math.log10(max(reduction, 1e-16)))
