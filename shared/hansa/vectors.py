"""Vectors that are worked on block by block, and lie in files where they are large.

A vector of 10^8 weights is 800 MB as float64, and a coordinator holds several. Such a one is kept in a file without a name, which
goes with its last reader, and is an ordinary numpy array over that file. What is read of it counts as memory of the process
until it is let go; whoever goes through a vector with `in_blocks` or `pieces_of` lets go as it goes, so that a vector of
any size takes the memory of a few blocks. Vectors in ordinary memory go the same way, and nothing is let go.
"""

from __future__ import annotations

import mmap
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from hansa.errors import EngineError

BLOCK = 128 * 1024  # entries: 1 MB of float64; most vectors are one, and cost no more than without blocks
IN_FILES_FROM = 4 * 2**20  # bytes; a smaller vector costs less memory than what surrounds it
_PIECE = 2**20  # bytes that are read of a file before they are let go

Array: TypeAlias = npt.NDArray[Any]
Vector: TypeAlias = npt.NDArray[np.float64]


class Mapped(mmap.mmap):
    """A file as memory that is only read; arrays over it know it by their base.

    Letting go of what was read is safe: it is read again from the file when it is looked at again.
    """

    address: int

    @classmethod
    def of(cls, file: int) -> Self:
        """All of an open file, which may be closed afterwards.

        Args:
            file: its descriptor.

        Raises:
            ValueError: it is empty.
            OSError: it cannot be read so.
        """
        made = cls(file, 0, access=mmap.ACCESS_READ)
        made.address = np.frombuffer(made, np.uint8).ctypes.data
        return made

    @classmethod
    def at(cls, path: Path) -> Self:
        """As `of`, of a file with a name."""
        with path.open("rb") as file:
            return cls.of(file.fileno())

    def let_go(self, address: int, length: int) -> None:
        """Give back the memory of what was read of some bytes."""
        start = (address - self.address) // mmap.PAGESIZE * mmap.PAGESIZE
        self.madvise(mmap.MADV_DONTNEED, start, address - self.address - start + length)


def let_go(data: Array | memoryview) -> None:
    """Give back the memory of what was read of an array or of bytes, where they lie in a file; elsewhere nothing happens."""
    mapped = _mapped(data)
    if mapped is not None and data.nbytes:
        mapped.let_go(np.asarray(data).ctypes.data, data.nbytes)


def in_blocks(length: int, *arrays: Array | None) -> Iterator[slice]:
    """Where the blocks of vectors lie, one after the other; what was passed is let go.

    Args:
        length: entries.
        arrays: of this length, that are read in these blocks; none where there is `None`.
    """
    filed = [array for array in arrays if array is not None and _mapped(array) is not None]
    for start in range(0, length, BLOCK):
        part = slice(start, min(start + BLOCK, length))
        yield part
        for array in filed:
            let_go(array[part])


def pieces_of(data: Array | bytes | memoryview) -> Iterator[memoryview]:
    """The bytes of a C-contiguous array, or of what holds bytes, as views: in pieces that are let go where it lies in a file."""
    view = data.data if isinstance(data, np.ndarray) else memoryview(data)
    if not view.nbytes:
        return
    view = view.cast("B")
    if _mapped(data) is None:
        yield view
        return
    for start in range(0, len(view), _PIECE):
        piece = view[start : start + _PIECE]
        yield piece
        let_go(piece)


def read_npy(path: Path) -> Array:
    """The array of a file of numpy, as it lies there.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such file, or has no entries, or is written by columns.
    """
    found: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    if not found.flags.c_contiguous:
        raise ValueError("the array is not written row by row")
    whole = np.frombuffer(Mapped.at(path), np.uint8)
    data = whole[found.offset : found.offset + found.nbytes]
    return np.frombuffer(data, found.dtype).reshape(found.shape)


@dataclass(frozen=True, eq=False)
class Entrywise:
    """A vector whose entries follow from those of another one by one, and are computed where they are asked for.

    Attributes:
        source: shape (d,).
        of: float64 entries from those of a part of the source.
    """

    source: Array
    of: Callable[[Array], Vector]

    @property
    def size(self) -> int:
        """Entries."""
        return self.source.size

    def __getitem__(self, part: slice) -> Vector:
        """The entries that lie there."""
        return self.of(self.source[part])


class Making(Protocol):
    """A vector that is made block by block."""

    def add(self, block: Array) -> None:
        """Its next entries. A view is copied; an array of its own is not to be changed any more."""

    def done(self) -> Array:
        """The vector, read-only, once all of it was added."""


class Vectors(Protocol):
    """Where vectors are made that stay."""

    def making(self, length: int, dtype: str = "<f8") -> Making:
        """A new vector of so many entries.

        Raises:
            EngineError: from this or from its blocks: the disk takes no more.
        """

    def placed(self, array: Array) -> Array:
        """An array where those of its size stay: itself, or a read-only copy that lies in a file.

        Raises:
            EngineError: the disk takes no more.
        """


class _MadeInMemory:
    def __init__(self, length: int, dtype: str) -> None:
        self._length, self._dtype, self._at = length, np.dtype(dtype), 0
        self._array: Array | None = None

    def add(self, block: Array) -> None:
        if len(block) == self._length and block.base is None and block.dtype == self._dtype:
            self._array = block
            return
        if self._array is None:
            self._array = np.empty(self._length, self._dtype)
        self._array[self._at : self._at + len(block)] = block
        self._at += len(block)

    def done(self) -> Array:
        made = np.empty(0, self._dtype) if self._array is None else self._array
        made.flags.writeable = False
        return made


class InMemory:
    """`Vectors` in ordinary memory."""

    def making(self, length: int, dtype: str = "<f8") -> Making:
        """See `Vectors.making`."""
        return _MadeInMemory(length, dtype)

    def placed(self, array: Array) -> Array:
        """See `Vectors.placed`."""
        return array


class _MadeInFile:
    def __init__(self, folder: Path, length: int, dtype: str) -> None:
        self._folder, self._length, self._dtype = folder, length, np.dtype(dtype)
        with _on_disk(folder):
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  # closed by `done`, or with this
        weakref.finalize(self, self._file.close)

    def add(self, block: Array) -> None:
        view = np.ascontiguousarray(block, self._dtype).data.cast("B")
        with _on_disk(self._folder):
            while view:
                view = view[self._file.write(view) :]

    def done(self) -> Array:
        with _on_disk(self._folder), self._file as file:
            mapped = Mapped.of(file.fileno())
        return np.frombuffer(mapped, self._dtype, self._length)


@contextmanager
def _on_disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EngineError(
            f"a vector cannot be kept in {folder}: {error.strerror}", remedy="Make room on the disk."
        ) from None


class InFiles:
    """`Vectors` in files without a name where they are large, and in memory where they are not.

    They go with the last array over them, and with the process.

    Args:
        folder: on the disk that they may fill.
        from_bytes: how large a vector is that lies in a file.
    """

    def __init__(self, folder: Path, from_bytes: int = IN_FILES_FROM) -> None:
        self._folder, self._from_bytes = folder, from_bytes

    def making(self, length: int, dtype: str = "<f8") -> Making:
        """See `Vectors.making`."""
        if length * np.dtype(dtype).itemsize < self._from_bytes:
            return _MadeInMemory(length, dtype)
        return _MadeInFile(self._folder, length, dtype)

    def placed(self, array: Array) -> Array:
        """See `Vectors.placed`."""
        return array if array.nbytes < self._from_bytes or _mapped(array) else copied(array, self)


IN_MEMORY: Vectors = InMemory()


def copied(array: Array, vectors: Vectors) -> Array:
    """A read-only copy of a vector."""
    made = vectors.making(len(array), array.dtype.str)
    for part in in_blocks(len(array), array):
        made.add(array[part])
    return made.done()


def _mapped(data: object) -> Mapped | None:
    while not isinstance(data, Mapped):
        if isinstance(data, np.ndarray):
            data = data.base
        elif isinstance(data, memoryview):
            data = data.obj
        else:
            return None
    return data
