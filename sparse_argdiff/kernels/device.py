"""The kernels of ``vectors.cu``: passes over vectors whose scalars stay on the device.

A :class:`Record` is the scalars of one solve.  The host writes it once, launches
iterations, and reads it every few of them in one transfer.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from ..arrays import Array, dot, namespace
from ..operators.linear_operator import LinearOperator

CHECK_EVERY = 10  # iterations between two looks of the host
THREADS = 256
_MOST_BLOCKS = 1024  # several for each multiprocessor; a sum of so many parts is short
_SOURCE = "vectors.cu"


def _enumerated(source: str, first: str) -> dict[str, int]:
    """Return the names of the enum that begins with ``first``, in their order."""
    body = re.search(rf"enum \{{\s*({first}\b.*?)\}};", source, re.DOTALL)
    assert body is not None
    return {name.strip(): i for i, name in enumerate(body[1].split(","))}


SOURCE = resources.files(__package__).joinpath(_SOURCE).read_text("utf-8")
SLOT = _enumerated(SOURCE, "ACTIVE")
ENDED = {i: name for name, i in _enumerated(SOURCE, "GOING").items()}
LINE = _enumerated(SOURCE, "H_ALPHA")


@cache
def functions(xp: Any, source: str, types: str) -> dict[str, Any]:
    """Compile all kernels of a source for template arguments such as "<float>", by name."""
    kernels = re.findall(r"__global__ void (\w+)\(", source)
    names = [f"{kernel}{types}" for kernel in kernels]
    module = xp.RawModule(
        code=source, options=("--std=c++17",), name_expressions=tuple(names)
    )
    return {
        kernel: module.get_function(name)
        for kernel, name in zip(kernels, names, strict=True)
    }


class Device:
    """The make whose scalars stay on the device; its loops are in ``device_loops.py``.

    Parameters
    ----------
    check_every : int
        Iterations between two looks of the host.
    """

    name = "device"

    def __init__(self, check_every: int = CHECK_EVERY) -> None:
        self.check_every = check_every

    def operator(self, A: LinearOperator) -> LinearOperator:
        """Return A as it is."""
        return A

    def accept(self, y: Array, out: Array) -> Array:
        """Copy what is not a plain vector: a kernel takes no strides."""
        if y.dtype == out.dtype and y.flags.c_contiguous:
            return y
        out[...] = y
        return out

    def fused(self, M: LinearOperator | None, like: Array) -> None:
        """Return None: M is a launch of its own."""

    def dot(self, x: Array, y: Array) -> float:
        """Return x'y; the host waits for it."""
        return dot(x, y)

    def subtract(self, b: Array, y: Array, out: Array) -> None:
        """Write b − y into ``out``."""
        namespace(b, y).subtract(b, y, out=out)


class Record:
    """The scalars of one solve, and of its last ``length`` steps, on the device.

    Parameters
    ----------
    like : array (n,)
        A vector of the solve.
    length : int
        Steps between two looks of the host.
    """

    def __init__(self, like: Array, length: int) -> None:
        xp = namespace(like)
        self._xp, self._n, self.length = xp, np.uint64(like.shape[0]), length
        self._functions = functions(
            xp, SOURCE, "<float>" if like.dtype == np.float32 else "<double>"
        )
        self._threads = 32
        while self._threads < min(like.shape[0], THREADS):
            self._threads *= 2
        blocks = -(-like.shape[0] // self._threads)
        self._blocks = min(max(blocks, 1), _MOST_BLOCKS)
        self._record = xp.zeros(SLOT["SLOTS"] + length * LINE["H_SLOTS"])
        self._partials = xp.zeros(self._blocks)
        self._ticket = xp.zeros(1, dtype=xp.uint32)

    def write(self, **values: float) -> None:
        """Set slots by name, all others to zero: one transfer."""
        host = np.zeros(self._record.shape)
        for name, value in values.items():
            host[SLOT[name]] = value
        self._record[...] = self._xp.asarray(host)

    def read(self) -> tuple[dict[str, float], np.ndarray]:
        """Return the slots by name and the lines of history: one transfer."""
        host = self._record.get()
        count = SLOT["SLOTS"]
        slots = {name: float(host[i]) for name, i in SLOT.items() if i < count}
        return slots, host[count:].reshape(self.length, LINE["H_SLOTS"])

    def _launch(self, name: str, *arguments: Any) -> None:
        self._functions[name]((self._blocks,), (self._threads,), (self._n, *arguments))

    def _sum(self, name: str, *arguments: Any) -> None:
        self._launch(name, *arguments, self._partials, self._ticket)

    def cg_curvature(self, p: Array, q: Array) -> None:
        """Find α from p'q."""
        self._sum("cg_curvature", p, q, self._record)

    def cg_residual(self, r: Array, q: Array, preconditioned: bool) -> None:
        """Take α q from r; find β, unless a preconditioner is to come."""
        flag = np.int32(preconditioned)
        self._sum("cg_residual", r, q, self._record, np.int32(self.length), flag)

    def cg_metric(self, r: Array, z: Array) -> None:
        """Find β from r'z, z = M r."""
        self._sum("cg_metric", r, z, self._record, np.int32(self.length))

    def cg_advance(self, x: Array, p: Array, z: Array) -> None:
        """Add α p to x, then make p the next direction z + β p."""
        self._launch("cg_advance", x, p, z, self._record)

    def minres_alpha(self, v: Array, y: Array) -> None:
        """Find α from v'y."""
        self._sum("minres_alpha", v, y, self._record)

    def lanczos(
        self, older: Array, newer: Array, y: Array, preconditioned: bool
    ) -> None:
        """Replace ``older`` by the next residual vector; rotate, unless M is to come."""
        self._sum("lanczos", older, newer, y, self._record, np.int32(preconditioned))

    def minres_metric(self, older: Array, z: Array) -> None:
        """Rotate by ‖r‖²_M = r'z, z = M r."""
        self._sum("minres_metric", older, z, self._record)

    def minres_advance(self, x: Array, w_old: Array, w: Array, v: Array) -> None:
        """Replace ``w_old`` by the next direction and step along it."""
        self._launch("minres_advance", x, w_old, w, v, self._record)
