"""What every test file shares: the ``--slow`` switch and the array backends.

The strict backend stands in for a GPU: its arrays live on a second device, from which
``np.asarray`` raises, and they know nothing but the array API standard.  Its flags
are left at their defaults, which are the latest version of the standard it knows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import array_api_strict
import numpy as np
import pytest


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


class Backend(NamedTuple):
    """Two functions: NumPy array to the backend's (always a copy), and back."""

    to: Callable[[Any], Any]
    back: Callable[[Any], np.ndarray]


def _numpy_backend() -> Backend:
    return Backend(np.array, np.array)


def _strict_backend() -> Backend:
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


BACKENDS = {
    "numpy": _numpy_backend,
    "strict": _strict_backend,
    "cupy": _cupy_backend,
}


@pytest.fixture(
    params=["numpy", "strict", pytest.param("cupy", marks=pytest.mark.gpu)],
)
def xp_array(request: pytest.FixtureRequest) -> Backend:
    """Each array backend in turn, as ``to, back = xp_array``."""
    return BACKENDS[request.param]()


@pytest.fixture
def strict_array() -> Backend:
    """The strict backend alone, to mix with NumPy."""
    return _strict_backend()
