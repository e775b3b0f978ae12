"""Algebraic multigrid: PyAMG's setup and a symmetric V-cycle as M ≈ A⁻¹.

    x = S r;   x += P A_c⁻¹ P' (r − A x)  (recursively);   x += S (r − A x)

S: two Chebyshev steps on D⁻¹A over [λ/4, λ], with λ = ‖D⁻¹A‖_∞, a true bound.  The same
S before and after makes M symmetric, and the bound makes it positive definite.  Every
level has the dtype of A; a block of columns is treated as a whole.  The cycle is in
``v_cycle.py``, compiled where numba is installed and A is large.  Each level keeps
three vectors (four where not compiled), allocated at the first product; concurrent
products allocate their own.  The setup runs on the host; the levels of a matrix on a
device are copied there once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from ...arrays import Array, is_sparse, namespace, to_namespace
from ...kernels import choose
from ...kernels.workspace import Workspace
from ...operators.linear_operator import LinearOperator, as_operator
from ..cholesky import cholesky
from .v_cycle import Compiled, Level, Reference, v_cycle

_COARSEST = 500


def amg(A: Any, *, method: str = "ruge_stuben", **options: Any) -> LinearOperator:
    """Return one multigrid V-cycle as a preconditioner.

    Parameters
    ----------
    A : sparse matrix (n, n), or operator made from one
        SciPy's or CuPy's; symmetric positive definite.  Best for M-matrices: diffusion,
        graph Laplacians, smoothness penalties.
    method : {"ruge_stuben", "smoothed_aggregation"}
        The setup of PyAMG: the first for M-matrices, the second for systems and where
        off-diagonal entries have both signs.
    **options
        Further arguments of that setup.

    Returns
    -------
    LinearOperator (n, n)
        Symmetric positive definite; a product costs about nine with A.  ``update(A)``
        keeps the prolongations and computes the coarse matrices anew.

    Raises
    ------
    ImportError
        Without PyAMG: ``pip install sparse_argdiff[amg]``.
    ValueError
        When A is not symmetric with a positive diagonal, or not definite on the coarsest
        level.

    References
    ----------
    K. Stüben, "A review of algebraic multigrid", J. Comput. Appl. Math. 128 (2001);
    M. Adams et al., "Parallel multigrid smoothing: polynomial versus Gauss-Seidel",
    J. Comput. Phys. 188 (2003) 593-610.
    """
    if method not in {"ruge_stuben", "smoothed_aggregation"}:
        raise ValueError(
            f"method must be 'ruge_stuben' or 'smoothed_aggregation', found {method!r}"
        )
    try:
        import pyamg  # noqa: PLC0415  (an extra)
    except ImportError:
        raise ImportError(
            "amg needs PyAMG, which is an extra: pip install sparse_argdiff[amg]"
        ) from None
    matrix, xp = _checked(A)
    if matrix.shape[0] <= _COARSEST:
        return _cycle(matrix, [], [], xp)
    options = {"max_coarse": _COARSEST, **options}
    # The setup in double precision, on a copy of its own.
    found = getattr(pyamg, f"{method}_solver")(
        sparse.csr_matrix(matrix, dtype=np.float64, copy=True), **options
    )
    prolongations = [_rows(level.P, matrix.dtype) for level in found.levels[:-1]]
    coarser = [_rows(level.A, matrix.dtype) for level in found.levels[1:]]
    return _cycle(matrix, prolongations, coarser, xp)


def _checked(A: Any) -> tuple[Any, Any]:
    """Return a checked CSR array on the host, and the namespace A came from."""
    matrix = as_operator("A", A).matrix
    if not is_sparse(matrix):
        raise TypeError("A must be a sparse matrix, found no sparse entries")
    xp, matrix = namespace(matrix.data), to_namespace(matrix, np)
    dtype = matrix.dtype if matrix.dtype.kind == "f" else np.float64
    matrix = _rows(matrix, dtype)
    if not np.isfinite(matrix.data).all():
        raise ValueError("A must be finite, found NaN or infinity among its entries")
    diagonal = matrix.diagonal()
    if not (diagonal > 0.0).all():
        raise ValueError(
            f"A must be positive definite, its smallest diagonal entry is "
            f"{diagonal.min()}"
        )
    skew = abs(matrix - matrix.T).max() if matrix.nnz else 0.0
    if skew > np.finfo(dtype).eps ** 0.5 * diagonal.max(initial=0.0):
        raise ValueError(f"A must be symmetric, two entries differ by {skew:.1e}")
    return matrix, xp


def _rows(matrix: Any, dtype: Any) -> Any:
    """Return CSR with 32-bit indices where they suffice; a copy only where it has to be."""
    matrix = sparse.csr_array(matrix, dtype=dtype)
    if matrix.nnz < 2**31 and matrix.indices.dtype != np.int32:
        matrix = sparse.csr_array(
            (
                matrix.data,
                matrix.indices.astype(np.int32),
                matrix.indptr.astype(np.int32),
            ),
            shape=matrix.shape,
        )
    return matrix


def _cycle(
    matrix: Any, prolongations: list[Any], coarser: list[Any], xp: Any
) -> LinearOperator:
    """Return the V-cycle on matrix with given prolongations (fine to coarse), in xp."""
    levels = _levels(matrix, prolongations, coarser, xp)
    last = coarser[-1] if prolongations else matrix
    coarsest = _solver(last.toarray(), xp)

    n, home = matrix.shape[0], xp.empty(0, dtype=matrix.dtype)
    kept = Workspace()
    plain = [(level, Reference(level)) for level in levels]
    fused: list[tuple[Level, Compiled]] | None = None
    plain_float = matrix.dtype in (np.float32, np.float64)
    if plain_float and choose(None, xp.empty(n, matrix.dtype)).name == "compiled":
        fused = [(level, Compiled(level)) for level in levels]

    def into(r: Array, out: Array) -> None:
        namespace(home, r, out)  # a mix is refused by name
        fits = out.flags.c_contiguous and out.dtype == np.result_type(
            matrix.dtype, r.dtype
        )
        if not fits or xp.may_share_memory(r, out):
            out[...] = product(r)
            return
        if r.ndim == 2:  # blocks have many widths; no scratch is kept
            v_cycle(r, out, plain, coarsest, Workspace())
        elif fused is None or out.dtype != matrix.dtype:
            v_cycle(r, out, plain, coarsest, kept)
        else:
            flags = r.flags
            if not flags.c_contiguous or not flags.writeable or r.dtype != matrix.dtype:
                r = np.array(r, dtype=matrix.dtype)  # each type would be compiled again
            v_cycle(r, out, fused, coarsest, kept)

    def product(r: Array) -> Array:
        namespace(home, r)
        x = xp.empty(r.shape, dtype=np.result_type(matrix.dtype, r.dtype))
        into(r, x)
        return x

    def update(other: Any) -> LinearOperator:
        other, there = _checked(other)
        if other.shape != (n, n):
            raise ValueError(f"A must have shape {(n, n)}, found {other.shape}")
        return _cycle(other, prolongations, [], there)

    M = LinearOperator(
        (n, n), product, matmat=product, dtype=matrix.dtype, positive_definite=True
    )
    return M.with_product(into).with_setup(update=update)


def _levels(
    matrix: Any, prolongations: list[Any], coarser: list[Any], xp: Any
) -> list[Level]:
    """Return the levels in xp; the coarse matrices that are missing are appended."""
    levels = []
    for depth, P in enumerate(prolongations):
        A = matrix if depth == 0 else coarser[depth - 1]
        # On the host P by rows is P' by columns; a device reads rows only.
        R = P.T if xp is np else sparse.csr_array(P.T)
        if depth == len(coarser):
            coarser.append(_rows(R @ A @ P, A.dtype))
        inverse = 1.0 / A.diagonal()
        sizes = sparse.csr_array((abs(A.data), A.indices, A.indptr), shape=A.shape)
        bound = float((inverse * (sizes @ np.ones(A.shape[0], A.dtype))).max())
        there = [to_namespace(part, xp) for part in (A, P, R, inverse)]
        levels.append(Level(there[0], there[1], there[2], there[3], bound))
    return levels


def _solver(entries: np.ndarray, xp: Any) -> Callable[[Array], Array]:
    """Return the solver of the coarsest level; of a singular one its pseudo-inverse."""
    try:
        factor = cholesky(to_namespace(entries, xp))
        return lambda r: factor @ r
    except ValueError:
        values, vectors = np.linalg.eigh(entries)
        floor = 100.0 * float(np.finfo(entries.dtype).eps) * float(values[-1])
        if values[0] < -floor:
            raise ValueError(
                "A must be positive definite, the coarsest level has an eigenvalue "
                f"{values[0]:.1e}"
            ) from None
        kept = vectors[:, values > floor]
        inverse = to_namespace((kept / values[values > floor]) @ kept.T, xp)
        return lambda r: inverse @ r
