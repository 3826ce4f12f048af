"""Whether a torch pickle is a plain table of weights: read without making anything, before torch reads it.

torch's `weights_only` runs no foreign code, but does as it is told: a file of 100 bytes can ask for a bytearray of 20 GB, a view
of a billion elements on four, or the hash of a tuple that holds itself 2**60 times. So the pickle is first walked through with
stand-ins: what it names must be on the list that state dicts need, and what it declares must lie in the file.
"""

from __future__ import annotations

import math
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import torch

from .bounded_file import BoundedFile

MAX_TIMES_FILE = 2
"""Tensors may share storage (tied weights), but all together be no more than so many times the file."""
MAX_DIMENSIONS = 64
"""torch's own limit."""
_OPCODES = b"}]N\x88\x89)(tu\x85\x86\x87seaJKMGXU\x8a\x80.hjqrcRbQ\x81"
"""Those of torch/_weights_only_unpickler.py but for sets. None allocates more than it reads."""
_STORAGE_BYTES = {
    **{"DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8, "IntStorage": 4},
    **{"ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1, "ComplexFloatStorage": 8},
    **{"ComplexDoubleStorage": 16, "UntypedStorage": 1},
}
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
"""torch/serialization.py, of files before torch 1.6."""
_ARCHIVE_MARK = b"PK\x03\x04"
"""torch/serialization.py, _is_zipfile."""
_HEADERS = 3
"""Pickles before the weights in those: magic number, protocol, sizes of types."""


class PickleError(ValueError):
    """Why a pickle is refused; `wants_code` where it names functions or classes that no weights need."""

    def __init__(self, reason: str, *, wants_code: bool = False) -> None:
        super().__init__(reason)
        self.wants_code = wants_code


def check_pickle(path: str | os.PathLike[str]) -> None:
    """Reads the structure of a torch pickle, not its weights.

    Raises:
        PickleError: it names other things than state dicts need, or declares more than the file holds. Nothing has been run.
        OSError: the file cannot be read.
    """
    try:
        walker = _walk_archive(path) if _is_archive(path) else _walk_stream(path)
        walker.check_total(os.path.getsize(path))
    except (PickleError, OSError, MemoryError):
        raise
    except Exception as e:  # what a damaged pickle or archive makes Python's readers raise: nearly everything
        raise PickleError(f"{type(e).__name__} {e}") from None


def _is_archive(path: str | os.PathLike[str]) -> bool:
    """As torch decides it, by the first bytes: a pickle with a zip behind it is a pickle."""
    with open(path, "rb") as file:
        return file.read(len(_ARCHIVE_MARK)) == _ARCHIVE_MARK


def _walk_archive(path: str | os.PathLike[str]) -> _Walker:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = [entry.filename.lower() for entry in entries]  # torch finds its records without regard to case
        if archive.comment or len(set(names)) < len(names) or min(entry.header_offset for entry in entries):
            raise PickleError("an archive with doubled or hidden parts")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise PickleError("a compressed archive, which torch does not write")
        if sum(entry.file_size for entry in entries) > os.path.getsize(path):
            raise PickleError("an archive whose parts are larger than the file")
        prefix = entries[0].filename.split("/")[0] + "/"
        sizes = {entry.filename.removeprefix(f"{prefix}data/"): entry.file_size for entry in entries}
        with archive.open(prefix + "data.pkl") as stream:
            walker = _Walker(stream, sizes)
            walker.load()
    return walker


def _walk_stream(path: str | os.PathLike[str]) -> _Walker:
    with BoundedFile(path) as bounded:
        if _Walker(bounded, None).load() != _MAGIC_NUMBER:
            raise PickleError("a pickle that torch did not write")
        for _ in range(_HEADERS - 1):
            _Walker(bounded, None).load()
        walker = _Walker(bounded, None)
        walker.load()
        _Walker(bounded, None).load()  # the list of the storages' keys, which torch unpickles, too
    return walker


@dataclass(frozen=True)
class _Storage:
    numel: int
    item_bytes: int


@dataclass(frozen=True)
class _StandIn:
    """For a function or class that a pickle names: `make` looks at the arguments and makes another stand-in."""

    make: Callable[..., Any]


class _Table:
    """For an OrderedDict, whose content is of no interest beyond its names."""


_Base: Any = pickle._Unpickler  # pyright: ignore[reportPrivateUsage]
"""Python's own, not C's: its memo is a table, C's a list as long as the largest index."""


class _Walker(_Base):
    dispatch = {code: _Base.dispatch[code] for code in _OPCODES if code in _Base.dispatch}

    def __init__(self, stream: BinaryIO | Any, record_bytes: dict[str, int] | None) -> None:
        super().__init__(stream, encoding="utf-8")  # pyright: ignore[reportUnknownMemberType]
        self._record_bytes = record_bytes
        self._held_bytes = 0
        self._storages: dict[str, _Storage] = {}

    def load(self) -> Any:
        try:
            return super().load()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        except KeyError as e:
            if isinstance(e.args[0], int) and e.args[0] not in self.dispatch:
                raise PickleError(f"an operation that torch does not use (0x{e.args[0]:02x})", wants_code=True) from None
            raise

    def check_total(self, file_bytes: int) -> None:
        stored = sum(each.numel * each.item_bytes for each in self._storages.values())
        if stored > file_bytes or self._held_bytes > MAX_TIMES_FILE * file_bytes:
            raise PickleError(f"tensors of {max(stored, self._held_bytes)} bytes in a file of {file_bytes}")

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _StandIn(_ordered)
        if module == "torch._utils":
            known: dict[str, Callable[..., Any]] = {"_rebuild_parameter": _unchanged}
            known |= dict.fromkeys(("_rebuild_tensor_v2", "_rebuild_tensor_v3"), self._tensor)
            if name in known:
                return _StandIn(known[name])
        if module in ("torch", "torch.storage"):
            if name in _STORAGE_BYTES:
                return _STORAGE_BYTES[name]
            if name == "Size":
                return _StandIn(_size)
            if isinstance(getattr(torch, name, None), torch.dtype):
                return getattr(torch, name)
        raise PickleError(f"{module}.{name}"[:80].replace("\n", " "), wants_code=True)

    def persistent_load(self, pid: Any) -> _Storage:
        kind, item_bytes, key, location, numel, *view = pid
        named = isinstance(key, str) and isinstance(location, str)
        if kind != "storage" or not named or any(each is not None for each in view):
            raise PickleError("a storage of another kind")
        if not (_is_count(numel) and type(item_bytes) is int and item_bytes in _STORAGE_BYTES.values()):
            raise PickleError("a storage of no size")
        storage = _Storage(numel, item_bytes)
        first = self._storages.setdefault(key, storage)
        if first.numel * first.item_bytes != numel * item_bytes:
            raise PickleError("a storage of two sizes")
        if self._record_bytes is not None and self._record_bytes.get(key) != numel * item_bytes:
            raise PickleError(f"a storage of {numel * item_bytes} bytes where the file holds {self._record_bytes.get(key, 0)}")
        return storage

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> _StandIn:
        dtype = next((each for each in rest if isinstance(each, torch.dtype)), None)
        sound = isinstance(storage, _Storage) and _is_count(offset) and _is_counts(size) and _is_counts(stride)
        if not sound or len(size) != len(stride):
            raise PickleError("a tensor of no shape")
        item_bytes = dtype.itemsize if dtype is not None else storage.item_bytes
        numel = math.prod(size)
        last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True)) + 1 if numel else 0
        held = storage.numel * storage.item_bytes // item_bytes
        if last > held or numel > held:
            raise PickleError(f"a tensor of {numel} elements where its storage has {held}")
        self._held_bytes += numel * item_bytes
        return _StandIn(_nothing)

    # What is built may be named by texts and numbers only: the hash of a nested tuple can take for ever.
    def load_setitem(self) -> None:
        self.stack.pop()
        self._name(self.stack.pop())

    def load_setitems(self) -> None:
        items = self.pop_mark()
        for name in items[::2]:
            self._name(name)

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        function = self.stack.pop()
        if not isinstance(function, _StandIn) or not isinstance(arguments, tuple):
            raise PickleError("a call of a value", wants_code=True)
        self.append(function.make(*arguments))

    def load_build(self) -> None:
        state = self.stack.pop()  # state_dict's _metadata
        if not isinstance(self.stack[-1], _Table) or not isinstance(state, dict):
            raise PickleError("a value with a state of its own", wants_code=True)

    def _name(self, name: Any) -> None:
        if not isinstance(name, str | int | bytes) or not isinstance(self.stack[-1], dict | _Table):
            raise PickleError("a table with names that are none")

    for _code, _method in (
        ("s", load_setitem),
        ("u", load_setitems),
        ("R", load_reduce),
        ("b", load_build),
        ("\x81", load_reduce),
    ):
        dispatch[ord(_code)] = _method


def _unchanged(data: Any, *_others: Any) -> Any:
    """A parameter is, for what is checked here, its tensor."""
    return data


def _ordered(*arguments: Any) -> _Table:
    if arguments:
        raise PickleError("an ordered table with content of its own")
    return _Table()


def _size(sides: Any) -> tuple[int, ...]:
    if not _is_counts(sides):
        raise PickleError("a size that is none")
    return tuple(sides)


def _nothing(*_: Any) -> Any:
    raise PickleError("a call of a tensor", wants_code=True)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_counts(value: Any) -> bool:
    if not isinstance(value, tuple | list):
        return False
    sides = cast("tuple[object, ...] | list[object]", value)
    return len(sides) <= MAX_DIMENSIONS and all(map(_is_count, sides))
