"""Random vectors that are the same at each call; short ones are drawn once."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from .namespace import HostArray

_SHORT = 1024
_KINDS: dict[str, Callable[[np.random.Generator, int], HostArray]] = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "length": lambda rng, n: rng.uniform(0.5, 1.0, n),
    "sign": lambda rng, n: rng.choice([-1.0, 1.0], n),
}


def drawn(kind: str, n: int, seed: int = 0) -> HostArray:
    """Return n numbers: "normal", a "length" in [½, 1) or a "sign"; read-only."""
    return (_kept if n <= _SHORT else _fresh)(kind, n, seed)


def _fresh(kind: str, n: int, seed: int) -> HostArray:
    values = _KINDS[kind](np.random.default_rng(seed), n)
    values.flags.writeable = False
    return values


_kept = functools.lru_cache(maxsize=64)(_fresh)
