"""What every test file shares: the ``--slow`` switch and the array backends.

The strict backend stands in for a GPU: its arrays live on a second device, from which
``np.asarray`` raises, and they know nothing but the array API standard.  Its flags
are left at their defaults, which are the latest version of the standard it knows.
The CuPy stand-in goes where ``cupy`` is imported from and refuses what CuPy refuses.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cupy_standin
import numpy as np
import pytest

try:
    import array_api_strict
except ImportError:  # a bare machine with a device: ``pytest -m gpu`` needs it not
    array_api_strict = None


def _cupy() -> Any:
    try:
        import cupy
    except ImportError:
        return None
    return cupy if cupy.is_available() else None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--slow", action="store_true", default=False, help="run the slow tests too"
    )
    parser.addoption(
        "--data",
        default=str(Path(__file__).parents[2] / "shared" / "data"),
        help="folder of the shared data sets; tests that need one skip without it",
    )


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    skips = {}
    if not config.getoption("--slow"):
        skips["slow"] = pytest.mark.skip(reason="slow: run with --slow")
    if _cupy() is None:
        skips["gpu"] = pytest.mark.skip(reason="needs CuPy and a CUDA device")
    for item in items:
        for name, skip in skips.items():
            if item.get_closest_marker(name) is not None:
                item.add_marker(skip)


def pytest_collection_finish() -> None:
    """Keep what thousands of collected tests are made of out of every later collection."""
    gc.collect()
    gc.freeze()


class Backend(NamedTuple):
    """Two functions: NumPy array to the backend's (always a copy), and back."""

    to: Callable[[Any], Any]
    back: Callable[[Any], np.ndarray]


def _numpy_backend() -> Backend:
    return Backend(np.array, np.array)


def _strict_backend() -> Backend:
    if array_api_strict is None:
        pytest.skip("needs array-api-strict")
    xp = array_api_strict
    device, host = xp.Device("device1"), xp.Device("CPU_DEVICE")

    def to(array: Any) -> Any:
        return xp.asarray(np.array(array), device=device)

    def back(array: Any) -> np.ndarray:
        return np.array(np.from_dlpack(array.to_device(host)))

    return Backend(to, back)


def _cupy_backend() -> Backend:
    cupy = _cupy()
    return Backend(cupy.array, cupy.asnumpy)


def _standin_backend() -> Backend:
    cupy = cupy_standin.current()
    return Backend(lambda array: cupy.array(np.array(array)), cupy.asnumpy)


BACKENDS = {
    "numpy": _numpy_backend,
    "strict": _strict_backend,
    "standin": _standin_backend,
    "cupy": _cupy_backend,
}


@pytest.fixture(
    params=["numpy", "strict", "standin", pytest.param("cupy", marks=pytest.mark.gpu)],
)
def xp_array(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Backend:
    """Each array backend in turn, as ``to, back = xp_array``."""
    if request.param == "standin":
        cupy_standin.install(monkeypatch)
    return BACKENDS[request.param]()


@pytest.fixture
def strict_array() -> Backend:
    """The strict backend alone, to mix with NumPy."""
    return _strict_backend()


@pytest.fixture(params=["standin", pytest.param("cupy", marks=pytest.mark.gpu)])
def cuda(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """CuPy: its stand-in, whose kernels a compiler of the host runs, and itself."""
    if request.param == "cupy":
        return _cupy()
    if cupy_standin.COMPILER is None:
        pytest.skip("needs a C++ compiler")
    return cupy_standin.install(monkeypatch)
