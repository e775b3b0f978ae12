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
import tokenize
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import krylov
from ..arrays import Array, is_array, namespace, placement, to_namespace
from ..hypergradient import result as hypergradient
from ..preconditioners.auto import Learned
from ..preconditioners.cholesky import CorePlusDiagonal, Factor
from ..preconditioners.nystrom import Sketch, Sketched
from ..problem import problem
from ..status import Status
from . import result

_FORMAT = 5
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
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
)
_RECORDS: dict[str, type[Any]] = {
    name: record
    for module in (problem, krylov, hypergradient, result)
    for name, record in vars(module).items()
    if isinstance(record, type) and dataclasses.is_dataclass(record)
}
_SETUPS = (Learned, CorePlusDiagonal, Factor, Sketch, Sketched)
_RECORDS |= {record.__name__: record for record in _SETUPS}


@dataclasses.dataclass(frozen=True)
class Store:
    """The checkpoint files of one run."""

    path: Path
    every: int  # accepted steps from one to the next
    identity: Mapping[str, str]  # method, sizes, options: another one is refused

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

        An OSError, such as that of a full disk, leaves the last file intact.
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

        A file that is damaged, or belongs to another run, raises a ValueError.
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


def as_path(checkpoint: Any) -> Path:
    """Return the path of a checkpoint, given as a path or its name."""
    try:
        return Path(checkpoint)
    except TypeError:
        found = type(checkpoint).__name__
        raise TypeError(f"checkpoint must be a path, found {found}") from None


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


def digest(array: Any) -> str:
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


# A tree as JSON: [kind, content] is a list, a dict, a record by the name of its class, or
# something else that JSON does not have.  An array that occurs twice is stored once.


def _pack(value: Any, arrays: dict[str, Array], names: dict[int, str]) -> Any:
    if value is None or type(value) in {bool, int, float, str}:
        return value
    if isinstance(value, Status):
        return ["status", value.name]
    if is_array(value):
        name = names.setdefault(id(value), f"a{len(names)}")
        arrays[name] = value
        return ["scalar" if isinstance(value, np.generic) else "array", name]
    if isinstance(value, list | tuple):
        items = [_pack(item, arrays, names) for item in value]
        return ["list" if isinstance(value, list) else "tuple", items]
    kind, fields = "dict", value
    if not isinstance(value, dict):
        kind = type(value).__name__
        if _RECORDS.get(kind) is not type(value):
            raise TypeError(f"a checkpoint cannot hold a {kind}")
        initial = (field.name for field in dataclasses.fields(value) if field.init)
        fields = {name: getattr(value, name) for name in initial}
    return [kind, {name: _pack(item, arrays, names) for name, item in fields.items()}]


def _unpack(packed: Any, arrays: dict[str, Array]) -> Any:
    if not isinstance(packed, list):
        return packed
    kind, content = packed
    if kind == "status":
        return Status[content]
    if kind in {"array", "scalar"}:
        return arrays[content] if kind == "array" else arrays[content][()]
    if kind in {"list", "tuple"}:
        items = [_unpack(item, arrays) for item in content]
        return items if kind == "list" else tuple(items)
    fields = {name: _unpack(item, arrays) for name, item in content.items()}
    return fields if kind == "dict" else _RECORDS[kind](**fields)
