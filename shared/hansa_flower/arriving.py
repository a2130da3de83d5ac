"""A message that is arriving at a SuperLink, fetched piece by piece: what is there is taken, and the rest is asked for later.

Flower stores a message as a tree of objects: the message, its records, the arrays of a record, and chunks of each array. Chunks
are written to disk as they come, so that a message of any size takes the memory of one.
"""

from __future__ import annotations

import json
import os
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path

from flwr.app import Array, ArrayRecord
from flwr.app import Message as FlowerMessage
from flwr.app.message.arraychunk import ArrayChunk
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_object_body,
    get_object_head_values_from_object_content,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from hansa.errors import EngineError, WireError
from hansa.vectors import Mapped
from hansa.wire import MAX_ARRAY_BYTES, MAX_ARRAYS, MAX_HEADER_BYTES, described
from hansa_flower.records import RAW

_ARRAYS = 3  # how far below a message arrays are: its content, a record, an array
MOST_OBJECTS = MAX_ARRAYS + 8  # of a message, its chunks left out
# of each of them: the largest holds the header, and a megabyte of small arrays beside it
_MOST_BYTES = MAX_HEADER_BYTES + 2 * 1024**2
_MOST_TOGETHER = 2 * _MOST_BYTES  # the names of arrays stand in the header, and once more beside them
_LEAST_CHUNK = 64 * 1024  # bytes, the last of an array left out; Flower's chunks have five megabytes


class Arriving:
    """See above.

    Args:
        proto: the message as it was announced.
        tree: of its objects.
    """

    def __init__(self, proto: ProtoMessage, tree: ObjectTree) -> None:
        self.proto, self.object_id = proto, tree.object_id
        self._contents: dict[str, bytes] = {}
        self._arrays: dict[str, _OnDisk] = {}
        self._records: list[str] = []  # those that hold arrays
        self._missing: list[str] = []
        self._too_many, self._kept = False, 0  # bytes of contents
        self._walk(tree, 0)

    def fetch(self, pull: Callable[[str], bytes], folder: Path, most: int | None = None) -> FlowerMessage:
        """Take what has arrived since the last time.

        Args:
            pull: gives an object; raises `ObjectUnavailableError` while it has not arrived.
            folder: on the disk that takes large arrays.
            most: bytes of all arrays together, where it is less than what the wire carries.

        Returns:
            All of the message, whose large arrays are views of files.

        Raises:
            ObjectUnavailableError: not all of it has arrived.
            ObjectPullError: it will not.
            WireError: it is no message of the wire.
            EngineError: the disk takes no more.
        """
        try:
            if self._too_many:
                raise WireError(f"a message has more than {MOST_OBJECTS} objects")
            while self._missing:
                self._keep(self._missing[-1], pull(self._missing[-1]))
                self._missing.pop()
            room = MAX_ARRAY_BYTES if most is None else min(most, MAX_ARRAY_BYTES)  # of all arrays together
            for number, array in self._arrays.items():
                room -= array.fetch(self._contents[number], pull, folder, room)
            message = self._made()
        except OSError as error:
            raise EngineError(
                f"a message cannot be kept in {folder}: {error.strerror}", remedy="Make room on the disk."
            ) from None
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            raise WireError("what arrived is not what Flower's messages are") from None
        if not isinstance(message, FlowerMessage):
            raise WireError("what arrived is not one of Flower's messages")
        message.metadata.__dict__["_message_id"] = self.object_id
        return message

    def _keep(self, number: str, content: bytes) -> None:
        """Have an object in memory that is no chunk."""
        self._kept += len(content)
        if len(content) > _MOST_BYTES:
            raise WireError(f"an object of a message that is no chunk has more than {_MOST_BYTES} bytes")
        if self._kept > _MOST_TOGETHER:
            raise WireError(f"a message has more than {_MOST_TOGETHER} bytes beside its chunks")
        self._contents[number] = content

    def _made(self) -> InflatableObject:
        try:
            made = {number: self._record(number) for number in self._records}
            return inflate_object_from_contents(self.object_id, dict(self._contents), objects=made)
        except WireError:
            raise
        except Exception:  # noqa: BLE001  # of bytes of others Flower raises whatever its parts do
            raise WireError("what arrived is not what Flower's messages are") from None

    def _record(self, number: str) -> InflatableObject:
        """A record of arrays. Flower's own way to make one from its parts wants bytes, and has them copied."""
        record = ArrayRecord()
        arrays = json.loads(get_object_body(self._contents[number], ArrayRecord))
        if len(arrays) > MAX_ARRAYS:  # each name is a view of its own
            raise WireError(f"a record has more than {MAX_ARRAYS} names of arrays")
        for name, array in arrays.items():
            record[name] = self._arrays[array].finished()
        return record

    def _walk(self, tree: ObjectTree, depth: int) -> None:
        if depth > _ARRAYS or self._too_many:
            return  # a chunk, which its array asks for
        if tree.object_id not in self._missing:
            self._too_many = len(self._missing) == MOST_OBJECTS
            self._missing.append(tree.object_id)
        if depth == _ARRAYS:
            self._arrays[tree.object_id] = _OnDisk()
        elif depth == _ARRAYS - 1 and tree.children:
            self._records.append(tree.object_id)
        for child in tree.children:
            self._walk(child, depth + 1)


class _OnDisk:
    """An array whose chunks lie in a file without a name, which goes with this and the last view of it."""

    def __init__(self) -> None:
        self._file: int | None = None
        self._size = self._next = self._most = 0
        self._chunks: list[str] = []  # in their order
        self._places: dict[str, tuple[int, int]] = {}  # of chunks; equal ones are sent once
        self._dtype, self._shape = "", tuple[int, ...]()

    def fetch(self, content: bytes, pull: Callable[[str], bytes], folder: Path, room: int) -> int:
        """Write the chunks that have arrived, in their order; how many bytes the array says that it has, at most `room`."""
        if self._file is None:
            self._read(content, room)
            self._file = self._opened(folder)
        while self._next < len(self._chunks):
            chunk = self._chunks[self._next]
            if chunk in self._places:
                place, length = self._places[chunk]
                data = os.pread(self._file, length, place)
            else:
                data = get_object_body(pull(chunk), ArrayChunk)
                self._places[chunk] = self._size, len(data)
            if self._size + len(data) > self._most:
                raise WireError("an array that arrived is longer than it says")
            if self._most and not data:
                raise WireError("an array that arrived has an empty chunk")
            _write(self._file, data, self._size)
            self._size += len(data)
            self._next += 1
        return self._most

    def finished(self) -> Array:
        """The array, whose data are a view of the file."""
        array = Array(self._dtype, self._shape, RAW, b"")
        if self._file is not None and self._size:
            array.data = memoryview(Mapped.of(self._file))  # type: ignore[assignment]
        return array

    def _read(self, content: bytes, room: int) -> None:
        """What an array says of itself."""
        _, children, _ = get_object_head_values_from_object_content(content)
        said = json.loads(get_object_body(content, Array))
        dtype, self._shape, self._most = described(said, room)
        order = said["arraychunk_ids"]
        if said["stype"] != RAW or not isinstance(order, list):
            raise WireError("an array that arrived is none of the wire")
        if len(order) > self._most // _LEAST_CHUNK + 1:  # each is a read and a write
            raise WireError("an array that arrived has more chunks than there is room for")
        if not all(type(place) is int and 0 <= place < len(children) for place in order):
            raise WireError("an array that arrived names chunks that it does not have")
        self._dtype, self._chunks = dtype.str, [children[place] for place in order]

    def _opened(self, folder: Path) -> int:
        file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  # closed with this
        weakref.finalize(self, file.close)
        return file.fileno()


def _write(handle: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, at)
        view, at = view[written:], at + written
