"""What a caller gives as ``M``: an operator, a function of K, "auto" or nothing.

M = choice(K),   before each solve with K;   choice.observe(niter, reduction),   after it
"""

from __future__ import annotations

import math
from typing import Any

from ...operators.linear_operator import LinearOperator, aslinearoperator
from .auto import Auto


class Choice:
    """What a caller gives as ``M``, as a function of the operator to be solved with.

    Parameters
    ----------
    M : operator, "auto", function or None
        A function takes the operator and returns M ≈ K⁻¹ or None: a builder of
        ``preconditioners``, or an ``Auto`` that a sequence of solves shares.

    Attributes
    ----------
    n_matvec : int
        Products that building took, so far.
    """

    def __init__(self, M: Any) -> None:
        if isinstance(M, str):
            if M != "auto":
                raise ValueError(f"M must be an operator, 'auto' or None, found {M!r}")
            M = Auto(patience=2.0)
        # SciPy's operators can be called too, and have a shape.
        builds = callable(M) and not hasattr(M, "shape")
        self._function: Any = M if builds else None
        self._fixed = None if M is None or builds else aslinearoperator(M)
        self.n_matvec = 0

    def __call__(self, K: LinearOperator, rtol: float = 1e-2) -> LinearOperator | None:
        """Return M for K; an ``Auto`` is told the tolerance of the solve to come."""
        if self._function is None:
            return self._fixed
        knows = isinstance(self._function, Auto)
        return self._counted(K, self._function(K, rtol) if knows else self._function(K))

    @property
    def offer(self) -> float | None:
        """Iterations after which :meth:`now` would have been the better choice."""
        auto = self._function
        return auto.offer if isinstance(auto, Auto) else None

    def now(self, K: LinearOperator) -> LinearOperator | None:
        """Return what an ``Auto`` has offered, for a solve that drags on."""
        return self._counted(K, self._function(K, now=True))

    def _counted(self, K: LinearOperator, built: Any) -> LinearOperator | None:
        if built is None:
            return None
        M = aslinearoperator(built)
        if M.shape != K.shape:
            raise ValueError(f"M must have shape {K.shape} like A, found {M.shape}")
        self.n_matvec += M.n_matvec
        return M

    def observe(self, niter: int, reduction: float) -> None:
        """Tell an ``Auto`` how a solve went: ‖residual‖ / ‖right-hand side‖ at its end."""
        if isinstance(self._function, Auto) and 0.0 <= reduction < 1.0:
            self._function.observe(niter, -math.log10(max(reduction, 1e-16)))
