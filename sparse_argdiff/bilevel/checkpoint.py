"""Checkpoints of a run: files that are replaced atomically.

    <name>.new  --rename-->  <name>  --rename-->  <name>.old

A file is an ``.npz``: a tree of records as JSON, whose arrays are entries of their own in
full precision.  The file before the last one is kept.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Array, is_array, namespace, placement, to_namespace
from ..hypergradient.result import (
    Bound,
    Certificate,
    HypergradientResult,
    Point,
    WarmStart,
)
from ..implicit.derivative import Adjoint
from ..krylov import KrylovResult
from ..problem.problem import ActiveSet, Solution
from ..status import Status
from .result import Ending, HistoryRecord

_FORMAT = 2
_TREE = "__tree__"
# The exceptions that damaged .npz and JSON files raise.
_DAMAGE = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    EOFError,
    MemoryError,
    RuntimeError,
    OverflowError,
    struct.error,
    zipfile.BadZipFile,
)
_RECORDS: dict[str, type[Any]] = {
    record.__name__: record
    for record in (
        ActiveSet,
        Adjoint,
        Bound,
        Certificate,
        Ending,
        HistoryRecord,
        HypergradientResult,
        KrylovResult,
        Point,
        Solution,
        WarmStart,
    )
}


@dataclasses.dataclass(frozen=True)
class Store:
    """The checkpoint files of one run.

    Parameters
    ----------
    path : Path
    every : int
        Accepted steps from one to the next.
    identity : mapping of str to str
        Method, sizes and options: a checkpoint of another identity is refused.
    """

    path: Path
    every: int
    identity: Mapping[str, str]

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"checkpoint_every must be >= 1, found {self.every}")
        if self.path.is_dir():
            raise ValueError(f"checkpoint must be a file, {self.path} is a directory")
        # Fail before the first step, not after an hour.
        fresh = _beside(self.path, "new")
        try:
            fresh.open("ab").close()
            fresh.unlink()
        except OSError as error:
            raise ValueError(
                f"checkpoint {self.path} cannot be written: {error}"
            ) from error

    def save(self, tree: Any) -> None:
        """Write a tree of records atomically; keep the last file as ``<name>.old``.

        Raises
        ------
        OSError
            When the file cannot be written, on a full disk for instance; the last one
            is intact.
        """
        arrays: dict[str, Array] = {}
        content = {
            "format": _FORMAT,
            "identity": dict(self.identity),
            "tree": _pack(tree, arrays, {}),
        }
        text = np.frombuffer(json.dumps(content).encode(), dtype=np.uint8)
        entries: Any = {name: to_namespace(array, np) for name, array in arrays.items()}
        entries[_TREE] = text
        fresh = _beside(self.path, "new")
        try:
            with fresh.open("wb") as file:
                np.savez(file, **entries)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise
        if self.path.exists():
            self.path.replace(previous(self.path))
        fresh.replace(self.path)
        _sync_directory(self.path.parent)

    def load(self, like: Array) -> Any:
        """Read the tree into the namespace of ``like``; None when there is none.

        Raises
        ------
        ValueError
            When the file is damaged or of another kind, naming the one before it, or
            belongs to another run, saying what differs.
        """
        path = self.path
        if not path.exists():
            # The run was killed between the two renames.
            path = previous(path)
            if not path.exists():
                return None
        try:
            content, arrays = _read(path, like)
            identity, tree = content["identity"], _unpack(content["tree"], arrays)
        except _DAMAGE as error:
            raise ValueError(
                f"checkpoint {path} cannot be read ({error}); it is left as it is."
                + _advice(path)
            ) from error
        differences = [
            f"{name} was {identity.get(name)}, is {self.identity.get(name)}"
            for name in sorted({*identity, *self.identity})
            if identity.get(name) != self.identity.get(name)
        ]
        if differences:
            raise ValueError(
                f"checkpoint {path} is of another run: {'; '.join(differences)}. Give "
                "the arguments of that run, or another path."
            )
        return tree


def previous(path: Path) -> Path:
    """Return the path of the checkpoint before the last one."""
    return _beside(path, "old")


def describe(value: Any) -> str:
    """Return what identifies an option: its value, an array's digest, or a name."""
    if is_array(value) and value.ndim:
        host = to_namespace(value, np)
        return f"{host.dtype}{list(host.shape)} {digest(host)}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(describe, value))}]"
    if isinstance(value, functools.partial):
        bound = {name: describe(option) for name, option in value.keywords.items()}
        return f"{describe(value.func)}{describe(value.args)}{bound}"
    if value is None or isinstance(value, str | int | float | np.generic):
        return repr(value.item() if isinstance(value, np.generic) else value)
    name = getattr(value, "__qualname__", None)
    return name if isinstance(name, str) else type(value).__qualname__


def digest(array: np.ndarray[Any, Any]) -> str:
    """Return a fingerprint of an array's bytes."""
    data = np.ascontiguousarray(array)
    return hashlib.blake2b(data.tobytes(), digest_size=8).hexdigest()


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}.{ending}")


def _advice(path: Path) -> str:
    last = previous(path)
    if path == last or not last.exists():
        return ""
    return f" The one before it is {last}: move it to {path} to go on from there."


def _sync_directory(folder: Path) -> None:
    """Write the renames to disk, where the system can synchronise a folder."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def _read(path: Path, like: Array) -> tuple[Any, dict[str, Array]]:
    xp = namespace(like)
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        content = json.loads(file[_TREE].tobytes())
        found = content.get("format")
        if found != _FORMAT:
            raise ValueError(f"its format is {found}, not {_FORMAT}")
        arrays = {
            name: xp.asarray(file[name], **placement(like))
            for name in file
            if name != _TREE
        }
    return content, arrays


# A tree as JSON, where {"array": name}, {"record": class, ...} and {"dict": ...} stand for
# values that JSON does not have.  An array that occurs twice is stored once.


def _pack(value: Any, arrays: dict[str, Array], names: dict[int, str]) -> Any:
    if value is None or type(value) in {bool, int, float, str}:
        return value
    if isinstance(value, Status):
        return {"status": value.name}
    if is_array(value):
        name = names.setdefault(id(value), f"a{len(names)}")
        arrays[name] = value
        return {"array": name, "scalar": isinstance(value, np.generic)}
    if isinstance(value, list | tuple):
        items = [_pack(item, arrays, names) for item in value]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, dict):
        return {"dict": {k: _pack(item, arrays, names) for k, item in value.items()}}
    kind = type(value).__name__
    if _RECORDS.get(kind) is not type(value):
        raise TypeError(f"a checkpoint cannot hold a {kind}")
    fields = [f.name for f in dataclasses.fields(value) if f.init]
    packed = {name: _pack(getattr(value, name), arrays, names) for name in fields}
    return {"record": kind, "fields": packed}


def _unpack(packed: Any, arrays: dict[str, Array]) -> Any:
    if isinstance(packed, list):
        return [_unpack(item, arrays) for item in packed]
    if not isinstance(packed, dict):
        return packed
    if "status" in packed:
        return Status[packed["status"]]
    if "array" in packed:
        array = arrays[packed["array"]]
        return array[()] if packed["scalar"] else array
    if "tuple" in packed:
        return tuple(_unpack(item, arrays) for item in packed["tuple"])
    if "dict" in packed:
        return {name: _unpack(item, arrays) for name, item in packed["dict"].items()}
    fields = {name: _unpack(item, arrays) for name, item in packed["fields"].items()}
    return _RECORDS[packed["record"]](**fields)
