"""The array namespace of a computation is that of its arrays.

There is no current backend.  ``namespace(x, y)`` returns the module whose functions act
on the arrays (NumPy, CuPy, or the array-API namespace that an array names); a mix
raises ``TypeError``.
"""

from __future__ import annotations

import functools
import math
import sys
from typing import Any, Protocol, TypeAlias

import numpy as np
from scipy import sparse
from scipy.linalg.blas import daxpy, ddot, saxpy

LINE = 64  # bytes of a cache line
_NUMPY = frozenset({np.ndarray})


class Array(Protocol):  # noqa: PLW1641
    """A real array of a supported namespace: what the array API standard gives to all.

    ``reshape``, ``astype`` and the memory layout are those of NumPy and CuPy, for code that
    meets no other arrays.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def ndim(self) -> int: ...  # noqa: D102
    @property
    def size(self) -> int: ...  # noqa: D102
    @property
    def dtype(self) -> Any: ...  # noqa: D102
    @property
    def device(self) -> Any: ...  # noqa: D102
    @property
    def T(self) -> Array: ...  # noqa: D102
    @property
    def flags(self) -> Any: ...  # noqa: D102
    def reshape(self, *shape: Any, **options: Any) -> Array: ...  # noqa: D102
    def astype(self, *dtype: Any, **options: Any) -> Array: ...  # noqa: D102
    def __getitem__(self, key: Any, /) -> Array: ...
    def __setitem__(self, key: Any, value: Any, /) -> None: ...
    def __float__(self) -> float: ...
    def __int__(self) -> int: ...
    def __bool__(self) -> bool: ...
    def __neg__(self) -> Array: ...
    def __invert__(self) -> Array: ...
    def __add__(self, other: Any, /) -> Array: ...
    def __radd__(self, other: Any, /) -> Array: ...
    def __sub__(self, other: Any, /) -> Array: ...
    def __rsub__(self, other: Any, /) -> Array: ...
    def __mul__(self, other: Any, /) -> Array: ...
    def __rmul__(self, other: Any, /) -> Array: ...
    def __truediv__(self, other: Any, /) -> Array: ...
    def __rtruediv__(self, other: Any, /) -> Array: ...
    def __pow__(self, other: Any, /) -> Array: ...
    def __matmul__(self, other: Any, /) -> Array: ...
    def __and__(self, other: Any, /) -> Array: ...
    def __or__(self, other: Any, /) -> Array: ...
    def __eq__(self, other: object, /) -> Any: ...
    def __ne__(self, other: object, /) -> Any: ...
    def __lt__(self, other: Any, /) -> Array: ...
    def __le__(self, other: Any, /) -> Array: ...
    def __gt__(self, other: Any, /) -> Array: ...
    def __ge__(self, other: Any, /) -> Array: ...


HostArray: TypeAlias = np.ndarray[Any, Any]
"""A NumPy array, for code that meets no other arrays."""


# Arrays whose mask, or whose `*`, an algorithm for arrays would not see.
_NOT_PLAIN = (np.ma.MaskedArray, np.matrix)


def _namespace_of(array: Any) -> Any:
    """Return the namespace of one array, None of what is no array to write into."""
    if isinstance(array, np.ndarray | np.generic):
        return None if isinstance(array, _NOT_PLAIN) else np
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(array, cupy.ndarray):
        return cupy
    if hasattr(array, "__array_namespace__"):
        xp = array.__array_namespace__()
        return None if xp.__name__.startswith("jax") else xp
    return None


def is_array(value: Any) -> bool:
    """Tell whether the value is an array of a known namespace."""
    return type(value) is np.ndarray or _namespace_of(value) is not None


def namespace(*arrays: Any) -> Any:
    """Return the array namespace that all ``arrays`` share; TypeError for a mix."""
    if _NUMPY.issuperset(map(type, arrays)):
        return np
    found: list[Any] = []
    for array in arrays:
        xp = _namespace_of(array)
        if xp is None:
            kind = f"{type(array).__name__}{advice_on(array)}"
            raise TypeError(f"expected an array, found {kind}")
        if xp not in found:
            found.append(xp)
    if len(found) > 1:
        names = " and ".join(xp.__name__ for xp in found)
        raise TypeError(
            f"arrays of {names} are mixed; convert one side explicitly, nothing is "
            "moved between host and device silently"
        )
    return found[0]


def advice_on(value: Any) -> str:
    """Return how to make an array of what is none, the end of a message; "" where unknown."""
    if isinstance(value, np.ma.MaskedArray):
        return "; fill its masked entries in, or leave their rows out"
    if isinstance(value, np.matrix):
        return "; pass numpy.asarray(...) of it"
    if hasattr(value, "to_numpy"):
        return "; pass its .to_numpy()"
    if hasattr(value, "__dlpack__"):
        return "; pass sparse_argdiff.from_dlpack(...) of it"
    return "; pass its .toarray()" if is_sparse(value) else ""


def array_module(backend: str) -> Any:
    """Return the array module of that name, "numpy" or "cupy".

    Raises
    ------
    ValueError, ImportError, RuntimeError
        For another name; where CuPy is not installed; where it finds no device.
    """
    if backend == "numpy":
        return np
    if backend != "cupy":
        raise ValueError(f"backend must be 'numpy' or 'cupy', found {backend!r}")
    try:
        import cupy  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise ImportError(
            "backend 'cupy' needs CuPy: pip install 'sparse_argdiff[cuda12]' or "
            "'sparse_argdiff[cuda13]', for the CUDA version that nvidia-smi shows"
        ) from error
    if not cupy.is_available():
        try:
            cupy.cuda.runtime.getDeviceCount()
            reason = "no CUDA device was found"
        except RuntimeError as error:
            reason = str(error)
        raise RuntimeError(f"CuPy is installed but cannot be used: {reason}")
    return cupy


def is_sparse(value: Any) -> bool:
    """Tell whether the value is a sparse matrix, SciPy's or CuPy's."""
    if sparse.issparse(value):
        return True
    device = sys.modules.get("cupyx.scipy.sparse")
    return device is not None and bool(device.issparse(value))


def sparse_module(xp: Any) -> Any:
    """Return the module of sparse matrices that goes with an array namespace."""
    if xp is np:
        return sparse
    import cupyx.scipy.sparse  # noqa: PLC0415  (an extra)

    return cupyx.scipy.sparse


def to_namespace(value: Any, xp: Any) -> Any:
    """Return an array or a sparse matrix in the namespace ``xp``, NumPy's or CuPy's."""
    here = _namespace_of(value) is xp
    if here or (is_sparse(value) and sparse.issparse(value) == (xp is np)):
        return value
    if xp is np and hasattr(value, "get"):
        return value.get()
    if xp is np:
        return np.from_dlpack(value, device="cpu")
    if is_array(value):
        return xp.asarray(value)
    formats = sparse_module(xp)
    kind = formats.csc_matrix if value.format == "csc" else formats.csr_matrix
    return kind(value)


def zeros(shape: Any, like: Array, dtype: Any = None) -> Array:
    """Return zeros where ``like`` lives, of its dtype unless another is given."""
    return full(shape, 0, like, dtype)


def empty(shape: Any, like: Array) -> Array:
    """Return undefined entries where ``like`` lives; on the host from a cache line on."""
    xp = namespace(like)
    if xp is not np:
        return xp.empty(shape, dtype=like.dtype, **placement(like))
    size, item = (
        math.prod(shape) if isinstance(shape, tuple) else shape,
        like.dtype.itemsize,
    )
    buffer = np.empty(size + LINE // item, like.dtype)
    offset = -buffer.ctypes.data % LINE // item
    return buffer[offset : offset + size].reshape(shape)


def full(shape: Any, fill: Any, like: Array, dtype: Any = None) -> Array:
    """Return a constant array where ``like`` lives."""
    xp = namespace(like)
    return xp.full(shape, fill, dtype=dtype or like.dtype, **placement(like))


def asarray(values: Any, like: Array, dtype: Any = None) -> Array:
    """Return numbers of the host as an array where ``like`` lives."""
    xp = namespace(like)
    return xp.asarray(values, dtype=dtype or like.dtype, **placement(like))


def copied(array: Array) -> Array:
    """Return a copy, for a user's function that may write into it or keep it."""
    if type(array) is np.ndarray:
        return array.copy(order="K")
    return namespace(array).asarray(array, copy=True)


def locked(*arrays: Array) -> None:
    """Make arrays of NumPy that a returned operator may keep refuse to be written to."""
    for array in arrays:
        if isinstance(array, np.ndarray):
            array.flags.writeable = False


def arange(count: int, like: Array) -> Array:
    """Return 0, 1, ..., count − 1 where ``like`` lives."""
    xp = namespace(like)
    return xp.arange(count, **placement(like))


def placement(like: Array) -> dict[str, Any]:
    """Return the keyword that creates where ``like`` lives; NumPy and CuPy need none."""
    here = namespace(like).__name__ in {"numpy", "cupy"}
    return {} if here else {"device": like.device}


def kind_of(array: Any) -> str:
    """Return "floating", "whole" (integers and booleans) or "other" for its dtype.

    Floating are single and double precision: BLAS and LAPACK know no others.
    """
    kind = getattr(array.dtype, "kind", None)
    if kind is None:  # dtypes of the array API standard have no kind
        if not is_array(array):
            return "floating"
        xp = namespace(array)
        if xp.isdtype(array.dtype, "real floating"):
            return "floating"
        return "whole" if xp.isdtype(array.dtype, ("integral", "bool")) else "other"
    if kind == "f" and array.dtype.itemsize in {4, 8}:
        return "floating"
    return "whole" if kind in "iub" else "other"


def epsilon(array: Array) -> float:
    """Return the spacing of the array's dtype at 1, twice the unit roundoff."""
    return _spacing(namespace(array), array.dtype)


@functools.cache
def _spacing(xp: Any, dtype: Any) -> float:
    return float(xp.finfo(dtype).eps)


def dot(x: Array, y: Array) -> float:
    """Return x'y as a Python float, single precision without underflow on the way."""
    product = float(x @ y)
    if abs(product) < 1e-30 and x.shape[0] and epsilon(x) > 1e-10:
        xp = namespace(x, y)
        sizes = float(xp.max(xp.abs(x))), float(xp.max(xp.abs(y)))
        if all(0.0 < size < math.inf for size in sizes):
            product = float((x / sizes[0]) @ (y / sizes[1])) * sizes[0] * sizes[1]
    return product


def norm(x: Array) -> float:
    """Return the Euclidean norm, without overflow or underflow on the way."""
    plain = type(x) is np.ndarray and x.dtype == np.float64 and x.size
    if plain and x.flags.c_contiguous:
        square = ddot(x, x)  # which warns of nothing
    else:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            square = float(x @ x)
    if 1e-30 < square < 1e30:
        return math.sqrt(square)
    xp = namespace(x)
    largest = float(xp.max(xp.abs(x))) if x.shape[0] else 0.0
    if largest == 0.0 or not math.isfinite(largest):
        return largest
    scaled = x / largest
    return largest * math.sqrt(float(scaled @ scaled))


def axpy(a: float, x: Array, y: Array) -> None:
    """Add a x to y in place: one pass through memory on NumPy, none allocated."""
    if (
        isinstance(y, np.ndarray)
        and y.size
        and y.flags.c_contiguous
        and y.flags.writeable
        and x.dtype == y.dtype
    ):
        (daxpy if y.dtype == np.float64 else saxpy)(x, y, a=a)
    else:
        y += a * x


def is_finite(x: Array) -> bool:
    """Tell whether no entry is NaN or infinite."""
    if type(x) is np.ndarray:
        return bool(np.isfinite(x).all())
    xp = namespace(x)
    return bool(xp.all(xp.isfinite(x)))
