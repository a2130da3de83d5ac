"""A file that is written over and over: two places, of which the one that is not current is overwritten.

Writing into blocks that the file has already waits for the data alone; a new file under an old name waits for the names and
sizes that a file system keeps too, which takes several times as long. What is current is the valid place with the higher
number. A place is valid if its hash is right, so that a write that was cut short leaves the other one.
"""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

_MAGIC = b"hansa/slots/v1\n\x00"
_PAGE = 4096
_SMALLEST = 64 * 1024  # bytes of a place: states grow over the first rounds
_HEAD = struct.Struct("<QQ32s")  # number, length, SHA-256 of both and the bytes


def slot_file(data: bytes | memoryview) -> bytes:
    """The bytes of a new file that holds `data`, with room for twice as much."""
    room = max(_SMALLEST, -(-2 * (_HEAD.size + len(data)) // _PAGE) * _PAGE)
    first = _encoded(1, bytes(data))
    page = (_MAGIC + struct.pack("<Q", room)).ljust(_PAGE, b"\0")
    return page + first.ljust(2 * room, b"\0")


class SlotFile:
    """A file of two places that is open for writing.

    Args:
        path: see `slot_file` for a new one.

    Raises:
        OSError: it is missing or cannot be read.
        ValueError: it is no such file, or neither place is valid.

    Guarantees: `put` returns when the bytes are on disk. After a crash there are the old bytes or the new; once it has returned,
        only the new: the old place is overwritten with zeros, at once for whoever reads the file in this system, and on disk
        with the next write. What is read when it is opened is on disk by then. After an error nothing of this holds: the bytes go
        to a new file.
    """

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.fdatasync(self._handle)  # of a process that was killed before its flush
            self._room = _room_of(os.pread(self._handle, _PAGE, 0))
            self._number, self._place, self._data = self._newest()
        except BaseException:
            os.close(self._handle)
            raise

    @property
    def data(self) -> bytes:
        """The current bytes."""
        return self._data

    def fits(self, data: bytes | memoryview) -> bool:
        """Whether a place has room for so many bytes."""
        return _HEAD.size + len(data) <= self._room

    def put(self, data: bytes | memoryview) -> None:
        """Overwrite the place that is not current, and wait for the disk.

        Raises:
            OSError: nobody knows what the disk holds. A system counts pages as written whose flush has failed, so that opening the
                file anew does not tell: it has to be replaced.
        """
        kept, old = bytes(data), _HEAD.size + len(self._data)
        self._write(1 - self._place, _encoded(self._number + 1, kept))
        os.fdatasync(self._handle)
        self._write(self._place, bytes(old))
        self._number, self._place, self._data = self._number + 1, 1 - self._place, kept

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)

    def _newest(self) -> tuple[int, int, bytes]:
        valid = [(*one, place) for place in (0, 1) if (one := self._read(place)) is not None]
        if not valid:
            raise ValueError("neither place is valid")
        number, data, place = max(valid)
        return number, place, data

    def _at(self, place: int) -> int:
        return _PAGE + place * self._room

    def _write(self, place: int, data: bytes) -> None:
        written = 0
        while written < len(data):
            written += os.pwrite(self._handle, data[written:], self._at(place) + written)

    def _read(self, place: int) -> tuple[int, bytes] | None:
        head = os.pread(self._handle, _HEAD.size, self._at(place))
        if len(head) != _HEAD.size:
            return None
        number, length, digest = _HEAD.unpack(head)
        if number < 1 or length > self._room - _HEAD.size:
            return None
        data = os.pread(self._handle, length, self._at(place) + _HEAD.size)
        return (number, data) if _digest(number, data) == digest and len(data) == length else None


def _room_of(page: bytes) -> int:
    if page[: len(_MAGIC)] != _MAGIC or len(page) != _PAGE:
        raise ValueError("not a file of two places")
    room: int = struct.unpack_from("<Q", page, len(_MAGIC))[0]
    return room


def _encoded(number: int, data: bytes) -> bytes:
    return _HEAD.pack(number, len(data), _digest(number, data)) + data


def _digest(number: int, data: bytes) -> bytes:
    return hashlib.sha256(struct.pack("<QQ", number, len(data)) + data).digest()
