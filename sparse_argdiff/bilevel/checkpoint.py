"""A run of an upper-level method on disk: written whole or not at all, read back whole.

The file is an ``.npz`` that appears by renaming; the one before it stays as ``<name>.old``.
"""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Array, namespace

_FORMAT = 1
_DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a method needs to go on as if it had never stopped.

    Attributes
    ----------
    arrays : dict of arrays
        x, y, adjoint, gradient, ...
    state : dict
        Numbers and words: of the method, its history, the counters.
    """

    arrays: dict[str, Array]
    state: dict[str, Any]


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint to ``path`` atomically; keep the last one as ``<name>.old``."""
    text = json.dumps({"format": _FORMAT, **checkpoint.state})
    arrays = {name: np.asarray(array) for name, array in checkpoint.arrays.items()}
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        np.savez(file, __state__=np.array(text), **arrays)
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        path.replace(previous(path))
    fresh.replace(path)


def load(path: Path, like: Array) -> Checkpoint | None:
    """Read the checkpoint at ``path`` into the namespace of ``like``; None without one.

    Raises
    ------
    ValueError
        When the file is damaged or of another kind, naming the one before it.
    """
    if not path.exists():
        # Killed between the two renames: the last one has just been moved away.
        path = previous(path)
        if not path.exists():
            return None
    xp = namespace(like)
    try:
        with np.load(path, allow_pickle=False) as file:
            state = json.loads(str(file["__state__"]))
            arrays = {
                name: xp.asarray(file[name]) for name in file if name != "__state__"
            }
        if state.pop("format") != _FORMAT:
            raise ValueError("another format")
    except _DAMAGE as error:
        hint = ""
        if previous(path).exists():
            hint = f" The one before it is {previous(path)}: move it here to go on."
        raise ValueError(
            f"checkpoint {path} cannot be read ({error}); it is left as it is.{hint}"
        ) from error
    return Checkpoint(arrays, state)


def previous(path: Path) -> Path:
    """Return where the checkpoint before the last one is kept."""
    return path.with_name(path.name + ".old")
