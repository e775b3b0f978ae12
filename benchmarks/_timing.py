"""CPU seconds of calls, and ratios of two programs that are measured in turn.

A busy or slowly warming machine changes both measurements of a round alike, so that the
median of the ratios of all rounds says more than the ratio of two medians.
"""

from __future__ import annotations

import dataclasses
import gc
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

ONE_THREAD = {
    f"{library}_NUM_THREADS": "1"
    for library in ("OPENBLAS", "OMP", "MKL", "NUMBA", "BLIS", "VECLIB_MAXIMUM")
}


def cpu_seconds(call: Callable[[], Any], repeats: int = 1) -> float:
    """Return the CPU time of this process for one call, averaged over the repeats."""
    gc.collect()
    gc.disable()
    try:
        start = time.process_time()
        for _ in range(repeats):
            call()
        return (time.process_time() - start) / repeats
    finally:
        gc.enable()


def enough_repeats(call: Callable[[], Any], least: float = 0.02) -> int:
    """Return the number of calls that take at least this many CPU seconds together."""
    repeats = 1
    while (taken := repeats * cpu_seconds(call, repeats)) < least:
        wanted = 1.1 * repeats * least / max(taken, 1e-6)
        repeats = max(repeats + 1, min(10 * repeats, math.ceil(wanted)))
    return repeats


@dataclasses.dataclass(frozen=True)
class Interleaved:
    """Seconds of two programs, one pair for each round.

    Attributes
    ----------
    before, after : tuple of float
    """

    before: tuple[float, ...] = ()
    after: tuple[float, ...] = ()

    def __add__(self, other: Interleaved) -> Interleaved:
        """Return the rounds of both."""
        return Interleaved(self.before + other.before, self.after + other.after)

    @property
    def medians(self) -> tuple[float, float]:
        """Median seconds of each."""
        return statistics.median(self.before), statistics.median(self.after)

    @property
    def of_fastest(self) -> float:
        """The ratio after / before of the shortest measurements."""
        return min(self.after) / min(self.before)

    @property
    def ratios(self) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile of after / before."""
        pairs = zip(self.before, self.after, strict=True)
        ratios = [after / before for before, after in pairs]
        if len(ratios) == 1:
            return ratios[0], ratios[0], ratios[0]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return low, middle, high


def interleave(
    before: Callable[[], float], after: Callable[[], float], rounds: int
) -> Interleaved:
    """Take one measurement of each in every round; the order changes each time."""
    pairs = []
    for k in range(rounds):
        if k % 2:
            second = after()
            pairs.append((before(), second))
        else:
            first = before()
            pairs.append((first, after()))
    return Interleaved(*zip(*pairs, strict=True))
