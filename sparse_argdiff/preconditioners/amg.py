"""Algebraic multigrid: PyAMG's setup, one V-cycle of our own as M ≈ A⁻¹.

    x = S r;   x += P A_c⁻¹ P' (r − A x)  (recursively);   x += S (r − A x)

S: two Chebyshev steps on D⁻¹A over [λ/4, λ], with λ = ‖D⁻¹A‖_∞, a true bound.  The same
S before and after makes M symmetric, and the bound makes it positive definite.  Every
level has the dtype of A, and a block of columns goes through the levels at once.  Each
level keeps five vectors, made at the first product; products at one time have their own.
The setup is on the host; the levels of a matrix on a device move there once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from ..arguments import as_operator
from ..arrays import Array, is_sparse, moved, namespace
from ..krylov.workspace import Workspace
from ..linear_operator import LinearOperator
from .cholesky import cholesky

try:  # not public: without it products allocate
    from scipy.sparse import _sparsetools
except ImportError:
    _sparsetools = None

_COARSEST = 500


class _Level(NamedTuple):
    A: Any
    P: Any  # from the next coarser level
    R: Any  # P', stored by rows
    inverse_diagonal: Array
    bound: float  # of the spectrum of D⁻¹A


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
    xp, matrix = namespace(matrix.data), moved(matrix, np)
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
    levels = []
    for depth, P in enumerate(prolongations):
        A = matrix if depth == 0 else coarser[depth - 1]
        R = sparse.csr_array(P.T)
        if depth == len(coarser):
            coarser.append(_rows(R @ A @ P, A.dtype))
        inverse = 1.0 / A.diagonal()
        bound = float((abs(A).sum(axis=1) * inverse).max())
        there = [moved(part, xp) for part in (A, P, R, inverse)]
        levels.append(_Level(there[0], there[1], there[2], there[3], bound))
    last = coarser[-1] if prolongations else matrix
    coarsest = _solver(last.toarray(), xp)

    n, home = matrix.shape[0], xp.empty(0, dtype=matrix.dtype)
    kept = Workspace()

    def cycle(r: Array, x: Array, pool: Workspace, depth: int = 0) -> None:
        """Write the cycle's answer to r into x."""
        if depth == len(levels):
            x[...] = coarsest(r)
            return
        level = levels[depth]
        with (
            pool.lend(x, 3) as (left, step, work),
            pool.lend(x, 2, (level.R.shape[0], *x.shape[1:])) as (coarse, correction),
        ):
            _smooth(level, r, x, left, step, work)
            _multiply(level.R, left, coarse)
            cycle(coarse, correction, pool, depth + 1)
            _multiply(level.P, correction, step)
            x += step
            _multiply(level.A, step, work)
            xp.subtract(left, work, out=left)
            _smooth(level, left, x, left, step, work, last=True)

    def into(r: Array, out: Array) -> None:
        namespace(home, r, out)  # a mix is refused by name
        fits = out.flags.c_contiguous and out.dtype == np.result_type(
            matrix.dtype, r.dtype
        )
        if not fits or xp.may_share_memory(r, out):
            out[...] = product(r)
            return
        # Blocks come in many widths, and none is kept.
        cycle(r, out, kept if r.ndim == 1 else Workspace())

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

    return LinearOperator(
        (n, n),
        product,
        matmat=product,
        into=into,
        dtype=matrix.dtype,
        positive_definite=True,
        update=update,
    )


def _smooth(
    level: _Level,
    r: Array,
    x: Array,
    left: Array,
    step: Array,
    work: Array,
    *,
    last: bool = False,
) -> None:
    """Take two Chebyshev steps for the residual r, and leave what remains in ``left``.

    The first smoother begins at zero, x = S r; the last adds, x += S r, and what remains
    is of no more use: ``left`` may be r.
    """
    inverse = level.inverse_diagonal if r.ndim == 1 else level.inverse_diagonal[:, None]
    center, reach = 0.625 * level.bound, 0.375 * level.bound  # [λ/4, λ]
    xp = namespace(r)
    xp.multiply(inverse, r, out=step)
    step /= center
    if last:
        x += step
    else:
        x[...] = step
    _multiply(level.A, step, work)
    xp.subtract(r, work, out=left)
    old = reach / center
    new = 1.0 / (2.0 / old - old)
    step *= new * old
    xp.multiply(inverse, left, out=work)
    work *= 2.0 * new / reach
    step += work
    x += step
    if not last:
        _multiply(level.A, step, work)
        left -= work


def _multiply(A: Any, x: Array, out: Array) -> None:
    """Write A x into ``out``, both stored by rows: SciPy's loops, its allocation spared.

    A vector of more than 32 MB that is allocated for each product is new memory each
    time, and the system's handing it out costs as much as the product.
    """
    ours = isinstance(x, np.ndarray) and A.dtype == x.dtype
    if _sparsetools is None or not ours:
        out[...] = A @ x
        return
    out[...] = 0
    entries = A.indptr, A.indices, A.data
    if x.ndim == 1:
        _sparsetools.csr_matvec(*A.shape, *entries, x, out)
    else:
        columns = x.shape[1]
        _sparsetools.csr_matvecs(*A.shape, columns, *entries, x.ravel(), out.ravel())


def _solver(entries: np.ndarray, xp: Any) -> Callable[[Array], Array]:
    """Return the solver of the coarsest level; of a singular one its pseudo-inverse."""
    try:
        factor = cholesky(moved(entries, xp))
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
        inverse = moved((kept / values[values > floor]) @ kept.T, xp)
        return lambda r: inverse @ r
