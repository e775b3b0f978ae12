"""The ``repr`` of records: five lines at most, whatever arrays they hold.

Records with arrays compare by identity (``dataclass(eq=False)``): ``a == b`` is ``a is b``,
and each has a hash.  Compare their arrays where values are meant.
"""

from __future__ import annotations

import dataclasses
import enum
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np

from .namespace import is_array, is_sparse

_WIDTH, _LINES, _ENTRIES = 88, 5, 6


def described(record: Any) -> str:
    """Return the fields of a dataclass that are there, shortened: its ``__repr__``."""
    fields = (field.name for field in dataclasses.fields(record) if field.repr)
    return brief(
        type(record).__name__, {name: getattr(record, name) for name in fields}
    )


def brief(kind: str, fields: Mapping[str, Any]) -> str:
    """Return ``kind(name=value, ...)`` on five lines at most; None and () are left out."""
    parts = [
        f"{name}={_shown(value)}"
        for name, value in fields.items()
        if not (value is None or (isinstance(value, tuple | list) and not value))
    ]
    return textwrap.fill(
        f"{kind}({', '.join(parts)})",
        _WIDTH,
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
        max_lines=_LINES,
        placeholder=" ...",
    )


def _shown(value: Any) -> str:
    """Return a value as one short piece of text; of an array its ends, or its shape."""
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, float):
        return f"{value:.6g}"
    if is_sparse(value) or (is_array(value) and not isinstance(value, np.ndarray)):
        return f"<{type(value).__name__} {tuple(value.shape)}>"
    if isinstance(value, np.ndarray) and value.ndim:
        if value.ndim > 1:
            return f"<array {value.shape}>"
        ends = np.array2string(
            value, precision=4, threshold=_ENTRIES, edgeitems=2, separator=", "
        )
        whole = " ".join(ends.split())
        return whole if value.size <= _ENTRIES else f"{whole} ({value.size},)"
    if dataclasses.is_dataclass(value) or isinstance(value, Mapping):
        return f"{type(value).__name__}(...)"
    if isinstance(value, tuple | list) and len(value) <= _ENTRIES:
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, tuple | list):
        return f"<{len(value)} entries>"
    name = getattr(value, "__qualname__", "").rpartition(".")[2]
    return name or " ".join(repr(value).split())
