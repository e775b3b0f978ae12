"""Compilation of loops by numba, the optional extra ``fast``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compile_loop(**options: Any) -> Callable[[Any], Any]:
    """Return a decorator: compiled at first use, kept on disk, without the GIL.

    What is kept is found by the file of the loop: a change of what it inlines from
    another file, such as an intrinsic, does not show.
    """

    def decorate(function: Any) -> Any:
        try:
            return numba.njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # neither the package nor the user's cache can be written
            return numba.njit(nogil=True, **options)(function)

    return decorate
