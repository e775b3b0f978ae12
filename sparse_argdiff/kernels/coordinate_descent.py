"""Descent by coordinates and by pairs, and the matrix of a model: compiled where it is worth it."""

from __future__ import annotations

import functools
import importlib
import sys
from importlib.util import find_spec
from typing import Any

_REPAID = 2e7  # entries of G passed over by then: what the import of numba takes


def is_worth_compiling(work: float) -> bool:
    """Tell whether numba is loaded, or installed and repaid by that much work so far."""
    if "numba" in sys.modules:
        return True
    return work > _REPAID and find_spec("numba") is not None


@functools.cache
def compiled_gram() -> Any:
    """Return ``gram(indptr, indices, data, d, place, k)``: F_S' diag(d) F_S, (k, k)."""
    loops = importlib.import_module(".coordinate_sweeps", __package__)
    return loops.compile_gram()


@functools.cache
def compiled_sweep() -> Any:
    """Return the loop of :mod:`coordinate_sweeps`, compiled at its first call."""
    loops = importlib.import_module(".coordinate_sweeps", __package__)  # extra "fast"
    return loops.compile_sweeps()


@functools.cache
def compiled_pairs() -> Any:
    """Return the loop of :mod:`pair_steps`, compiled at its first call."""
    loops = importlib.import_module(".pair_steps", __package__)  # extra "fast"
    return loops.compile_pairs()
