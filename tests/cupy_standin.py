"""A stand-in for CuPy on a machine without a device: NumPy arrays that refuse the host.

What real CuPy refuses is refused here too: implicit conversion to NumPy, NumPy arrays as
operands, ``device=`` in creation functions, names that CuPy lacks.  Every scalar that is
read (``float``, ``bool``, ``int``, ``get``) counts as a host synchronisation, every
function as a launch, in ``LOG``.  It proves the plumbing, not the speed, and nothing about
a real device's arithmetic.
"""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import sys
import tempfile
import types
from collections import Counter
from pathlib import Path

import numpy as np
import scipy.sparse

LOG: Counter[str] = Counter()

# Names of NumPy that CuPy 14 does not have.
_MISSING = {"vecdot", "unstack", "errstate", "matvec", "vecmat"}
_FROM_HOST = {"array", "asarray", "ascontiguousarray"}


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array on the pretended device."""

    __array_priority__ = 100

    def __init__(self, host):
        self._host = host

    def __array__(self, *args, **kwargs):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()`"
        )

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        LOG["launches"] += 1
        if out is not None:
            kwargs["out"] = tuple(_host(o) for o in out)
        result = getattr(ufunc, method)(*map(_host, inputs), **kwargs)
        return out[0] if out is not None else _device(result)

    def __getitem__(self, key):
        LOG["launches"] += 1
        return _device(self._host[_key(key)])

    def __setitem__(self, key, value):
        LOG["launches"] += 1
        self._host[_key(key)] = _host(value)

    def __len__(self):
        return len(self._host)

    def __iter__(self):
        return (_device(np.asarray(row)) for row in self._host)

    def _read(self):
        LOG["syncs"] += 1
        return self._host

    def __bool__(self):
        return bool(self._read())

    def __float__(self):
        return float(self._read())

    def __int__(self):
        return int(self._read())

    def __index__(self):
        return self._read().__index__()

    def __repr__(self):
        return f"standin.{self._host!r}"

    def get(self):
        return np.array(self._read())

    def item(self):
        return self._read().item()

    def tolist(self):
        return self._read().tolist()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(self._host, name)
        if not callable(value):
            return _device(value) if isinstance(value, np.ndarray) else value

        def method(*args, **kwargs):
            LOG["launches"] += 1
            return _device(value(*map(_host, args), **_hosts(kwargs)))

        return method

    @property
    def device(self):
        return "<CUDA Device 0>"

    @property
    def T(self):
        return ndarray(self._host.T)


def _host(value):
    """Unwrap an operand; the host's own arrays are refused, as CuPy refuses them."""
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, np.ndarray) or scipy.sparse.issparse(value):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, list | tuple):
        return type(value)(_host(v) for v in value)
    return value


def _hosts(kwargs):
    if "device" in kwargs:
        raise TypeError("unexpected keyword argument 'device'")
    return {name: _host(value) for name, value in kwargs.items()}


def _key(key):
    if isinstance(key, tuple):
        return tuple(_key(k) for k in key)
    return _host(key)


def _device(value):
    """Wrap a result; CuPy's scalars are arrays too."""
    if isinstance(value, np.ndarray | np.number | np.bool):
        return ndarray(np.asarray(value))
    if isinstance(value, tuple):
        return tuple(_device(v) for v in value)
    return value


class _Namespace(types.ModuleType):
    """NumPy's functions by name, on arrays of this module."""

    def __init__(self, name, source):
        super().__init__(name)
        self.__path__ = []
        self._source = source

    def __getattr__(self, name):
        if name in _MISSING or name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = getattr(self._source, name)
        if isinstance(value, types.ModuleType):
            return _Namespace(f"{self.__name__}.{name}", value)
        if isinstance(value, type) or not callable(value):
            return value

        def function(*args, **kwargs):
            LOG["launches"] += 1
            if name in _FROM_HOST:
                LOG["transfers"] += isinstance(args[0], np.ndarray)
                first = args[0]._host if isinstance(args[0], ndarray) else args[0]
                args = (first, *args[1:])
                return _device(value(*args, **_hosts(kwargs)))
            return _device(value(*map(_host, args), **_hosts(kwargs)))

        return function


class _Sparse:
    """A sparse matrix on the pretended device."""

    ndim = 2

    def __init__(self, arg, shape=None, dtype=None):
        if isinstance(arg, _Sparse):
            arg = arg._host
        elif isinstance(arg, tuple):
            arg = tuple(_host(part) for part in arg)
        elif isinstance(arg, ndarray):
            arg = arg._host
        elif not scipy.sparse.issparse(arg):
            raise TypeError(f"Unsupported type {type(arg)}")
        self._host = self._kind(arg, shape=shape, dtype=dtype)

    format = property(lambda self: self._host.format)
    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    nnz = property(lambda self: self._host.nnz)
    data = property(lambda self: ndarray(self._host.data))
    indices = property(lambda self: ndarray(self._host.indices))
    indptr = property(lambda self: ndarray(self._host.indptr))
    has_canonical_format = property(lambda self: self._host.has_canonical_format)
    device = property(lambda self: "<CUDA Device 0>")
    T = property(lambda self: _wrap(self._host.T))

    def __matmul__(self, other):
        LOG["launches"] += 1
        if isinstance(other, _Sparse):
            return _wrap(self._host @ other._host)
        return _device(self._host @ _host(other))

    def __getitem__(self, key):
        LOG["launches"] += 1
        return _wrap(self._host[_key(key)])

    def get(self):
        LOG["syncs"] += 1
        return self._host.copy()

    def diagonal(self):
        return ndarray(self._host.diagonal())

    def sum(self, axis=None):
        return _device(np.asarray(self._host.sum(axis=axis)))

    def toarray(self):
        return ndarray(self._host.toarray())

    def tocsr(self):
        return _wrap(self._host.tocsr())

    def tocsc(self):
        return _wrap(self._host.tocsc())

    def copy(self):
        return _wrap(self._host.copy())

    def astype(self, dtype):
        return _wrap(self._host.astype(dtype))

    def power(self, exponent):
        return _wrap(self._host.power(exponent))

    def multiply(self, other):
        return _wrap(self._host.multiply(_host(other)).tocsr())

    def sum_duplicates(self):
        self._host.sum_duplicates()


class csr_matrix(_Sparse):
    _kind = scipy.sparse.csr_array


class csc_matrix(_Sparse):
    _kind = scipy.sparse.csc_array


def _wrap(host):
    return (csc_matrix if host.format == "csc" else csr_matrix)(host)


COMPILER = shutil.which("g++") or shutil.which("c++")


class RawModule:
    """A CUDA module whose kernels run on the host, compiled with ``cuda_shim.h``."""

    def __init__(self, code, options=(), name_expressions=()):
        if COMPILER is None:
            raise RuntimeError("the stand-in's RawModule needs a C++ compiler")
        names = list(name_expressions)
        self._library = _compiled(code, tuple(options), tuple(names))
        self._index = {name: i for i, name in enumerate(names)}

    def get_function(self, name):
        launch = getattr(self._library, f"launch_{self._index[name]}")

        def kernel(grid, block, arguments):
            LOG["launches"] += 1
            LOG[f"kernel {name}"] += 1
            values = [_argument(value) for value in arguments]
            pointers = (ctypes.c_void_p * len(values))(
                *(ctypes.addressof(value) for value in values)
            )
            launch(ctypes.c_uint(grid[0]), ctypes.c_uint(block[0]), pointers)

        return kernel


def _argument(value):
    """Return the bytes that a launch passes; CuPy takes no NumPy array either."""
    if value is None:
        return ctypes.c_void_p(0)
    if isinstance(value, ndarray):
        host = value._host
        if not host.flags.c_contiguous:
            raise ValueError("the stand-in passes contiguous arrays only")
        return ctypes.c_void_p(host.ctypes.data)
    if isinstance(value, np.generic):
        return (ctypes.c_char * value.nbytes).from_buffer_copy(value.tobytes())
    if isinstance(value, int):
        return ctypes.c_longlong(value)
    if isinstance(value, float):
        return ctypes.c_double(value)
    raise TypeError(f"Unsupported type {type(value)}")


@functools.cache
def _compiled(code, options, names):
    """Return the loaded kernels, compiled once in a run; no file is left."""
    shim = Path(__file__).with_name("cuda_shim.h").read_text("utf-8")
    launchers = "".join(
        f'extern "C" void launch_{i}(unsigned grid, unsigned block, void** arguments) '
        f"{{ shim::launch({name}, grid, block, arguments); }}\n"
        for i, name in enumerate(names)
    )
    source = f"{shim}\n{code}\n{launchers}"
    defines = [option for option in options if option.startswith("-D")]
    # A library that is loaded needs its file no more.
    with tempfile.TemporaryDirectory(prefix="cuda_shim_") as folder:
        path, library = Path(folder, "kernels.cpp"), Path(folder, "kernels.so")
        path.write_text(source, "utf-8")
        flags = ["-std=c++17", "-O1", "-fPIC", "-shared", "-w", *defines]
        done = subprocess.run(
            [COMPILER, *flags, str(path), "-o", str(library)],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"the kernels do not compile:\n{done.stderr}")
        return ctypes.CDLL(str(library))


def modules():
    """Return fresh stand-ins for ``cupy`` and ``cupyx`` by the names they are imported."""
    cupy = _Namespace("cupy", np)
    cupy.ndarray = ndarray
    cupy.RawModule = RawModule
    cupy.is_available = lambda: True
    cupy.asnumpy = lambda array: array.get()
    cupyx, scipy_, sparse = (
        types.ModuleType(name)
        for name in ("cupyx", "cupyx.scipy", "cupyx.scipy.sparse")
    )
    for module in (cupyx, scipy_):
        module.__path__ = []
    cupyx.scipy, scipy_.sparse = scipy_, sparse
    sparse.csr_matrix = sparse.csr_array = csr_matrix
    sparse.csc_matrix = sparse.csc_array = csc_matrix
    sparse.issparse = lambda matrix: isinstance(matrix, _Sparse)
    named = (cupy, cupyx, scipy_, sparse)
    return {module.__name__: module for module in named}


def install(monkeypatch):
    """Put the stand-in where ``import cupy`` finds it, for one test; return it."""
    for name, module in modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    return current()


def current():
    """Return the stand-in that is installed."""
    return sys.modules["cupy"]
