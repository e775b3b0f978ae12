"""The constraint preconditioner: the saddle point matrix K with diag(H) in place of H.

    K = [ H  C' ]     inverse      [ G  C' ]⁻¹              G = diag(H)
        [ C  0  ]                  [ C  0  ]

                      definite     [ G⁻¹          0       ]
                                   [ 0   (C G⁻¹ C')⁺      ]

The first is indefinite and keeps C y = 0: projected CG uses G as its metric.  MINRES on K
needs a positive definite preconditioner, the second; with H = G the preconditioned matrix
has three eigenvalues, 1 and (1 ± √5) / 2.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from ..arrays import Array, as_vector, is_array, namespace
from ..krylov.null_space import (
    NullSpace,
    ProductNullSpace,
    estimated_row_lengths,
    null_space,
)
from ..operators.block_matrices import as_diagonal, is_explicit
from ..operators.linear_operator import LinearOperator, aslinearoperator
from .jacobi import jacobi_of, jacobi_where_definite


class ConstraintPreconditioner:
    """The result of :func:`constraint`: an operator (n + p, n + p) on (y, multipliers).

    Products are those of the positive definite, block diagonal form; ``inverse`` is the
    indefinite one, and ``null_space`` the projection behind both.

    Attributes
    ----------
    null_space : NullSpace
        Of C, in the metric G.
    inverse : LinearOperator (n + p, n + p)
        [G C'; C 0]⁻¹; for dependent rows of C with one choice of the multipliers.
    shape : (int, int)
    """

    def __init__(self, constraints: NullSpace, C: Any) -> None:
        p, n = constraints.shape
        self._C = C
        self.null_space = constraints
        self.shape = (n + p, n + p)
        self.ndim = 2

    def __repr__(self) -> str:
        return f"<ConstraintPreconditioner {self.shape[0]} x {self.shape[1]}>"

    @cached_property
    def inverse(self) -> LinearOperator:
        """[G C'; C 0]⁻¹."""
        return LinearOperator(
            self.shape, self._solve, matmat=self._solve, symmetric=True
        )

    def matvec(self, z: Array) -> Array:
        """Return (G⁻¹ y, (C G⁻¹ C')⁺ c) of z = (y, c), (n + p,) or (n + p, k)."""
        n, N = self.null_space.shape[1], self.null_space
        return namespace(z).concat(
            [N.unmetric(z[:n, ...]), N.gram_inverse(z[n:, ...], 0.01)]
        )

    rmatvec = matmat = rmatmat = matvec

    def __matmul__(self, z: Array) -> Array:
        return self.matvec(z)

    def update(self, H: Any) -> ConstraintPreconditioner:
        """Return the preconditioner for another H with the same C.

        ``H`` is an operator (n, n) that knows its diagonal, or the diagonal itself.
        """
        flat = is_array(H) and H.ndim == 1
        n = self.null_space.shape[1]
        return constraint(H if flat else as_diagonal("H", H, n), self._C)

    def _solve(self, z: Array) -> Array:
        n, N = self.null_space.shape[1], self.null_space
        r, c = z[:n, ...], z[n:, ...]
        y = N.particular(c)
        multipliers = N.multipliers(r) - N.gram_inverse(c)
        return namespace(z).concat([y + N.project(r), multipliers])


def constraint(H_diag: Any, C: Any) -> ConstraintPreconditioner:
    """Return the preconditioner of a saddle point system K = [H C'; C 0].

    Parameters
    ----------
    H_diag : array (n,)
        The positive diagonal of H, or of an approximation.
    C : array or SciPy sparse matrix (p, n)
        The constraints; rows may depend on each other.

    Returns
    -------
    ConstraintPreconditioner
        ``projected_cg(H, C, b, M=constraint(H_diag, C))`` and
        ``minres(K, rhs, M=constraint(H_diag, C))`` both take it.

    Raises
    ------
    TypeError, ValueError
        For a C without entries, and a diagonal that is not finite and positive.

    References
    ----------
    C. Keller, N. I. M. Gould, A. J. Wathen, "Constraint preconditioning for indefinite
    linear systems", SIAM J. Matrix Anal. Appl. 21 (2000) 1300-1317.

    M. F. Murphy, G. H. Golub, A. J. Wathen, "A note on preconditioning for indefinite
    linear systems", SIAM J. Sci. Comput. 21 (2000) 1969-1972.
    """
    H_diag = as_vector("H_diag", H_diag)
    xp = namespace(H_diag)
    if not bool(xp.all((H_diag > 0.0) & xp.isfinite(H_diag))):
        raise ValueError("H_diag must be finite and positive")
    columns = getattr(C, "shape", None)
    if columns is not None and len(columns) == 2 and columns[1] != H_diag.shape[0]:
        raise ValueError(
            f"H_diag must have shape ({columns[1]},) for the columns of C, found "
            f"{tuple(H_diag.shape)}"
        )
    return ConstraintPreconditioner(null_space(C, H_diag), C)


def constraint_of(
    H: LinearOperator, C: Any, scale: Array | None = None
) -> ConstraintPreconditioner | LinearOperator | None:
    """Return the preconditioner for :class:`krylov.saddle_point.SaddlePoint`.

    Without C the diagonal of H; for a matrix C :func:`constraint`; for a C known by
    products diag(G⁻¹, diag(C G⁻¹ C')⁻¹), the second estimated by 16 of them: all unknowns
    and rows then have one scale.  None where the diagonal of H is not known, finite and
    positive and no ``scale`` (n,) is given in its place, and for a factorised null space,
    which has a metric of its own.
    """
    if isinstance(C, NullSpace):
        return None
    M = jacobi_of(H) if scale is None else jacobi_where_definite(scale)
    if M is None or C is None:
        return M
    inverse = M.diagonal()
    if is_explicit(C):
        return constraint(1.0 / inverse, C)
    C = aslinearoperator(C.C if isinstance(C, ProductNullSpace) else C)
    xp = namespace(inverse)
    lengths = estimated_row_lengths(C, xp.sqrt(inverse))
    return jacobi_where_definite(xp.concat([1.0 / inverse, lengths**2]))
