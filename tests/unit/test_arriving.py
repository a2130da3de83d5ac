"""A reply that arrives piece by piece, and bytes that are no reply."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.app.message import remove_content_from_message
from flwr.app.message.arraychunk import ArrayChunk
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import ObjectUnavailableError
from flwr.supercore.task_identity import TaskIdentity

from hansa.errors import WireError
from hansa.wire import MAX_ARRAYS, MAX_HEADER_BYTES, Message
from hansa_flower import RAW, arriving, from_records, to_records
from hansa_flower.arriving import Arriving

CHUNK = 5 * 1024 * 1024


def reply() -> Message:
    """Two large arrays, one of them of equal chunks, and small ones."""
    large = np.random.default_rng(1).integers(0, 2**32, (CHUNK + 9) // 4, dtype=np.uint32)
    arrays = {"y": large, "zeros": np.zeros(3 * CHUNK // 4, dtype="<u4"), "small": np.arange(7, dtype="<i8")}
    return Message("sum", {"run": "r"}, arrays)


class Sent:
    """A message at the SuperLink, as far as it has arrived."""

    def __init__(self, content: RecordDict) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        message = FlowerMessage(content, dst_node_id=1, message_type="query.hansa")
        message.metadata.__dict__["_message_id"] = message.object_id
        self.objects = {number: one.deflate() for number, one in get_all_nested_objects(message).items()}
        self.tree = get_object_tree(message)
        self.arriving = Arriving(message_to_proto(remove_content_from_message(message)), self.tree)
        self.there: set[str] = set()
        self.pulled: list[str] = []

    def pull(self, number: str) -> bytes:
        if number not in self.there:
            raise ObjectUnavailableError(number)
        self.pulled.append(number)
        return self.objects[number]


def test_what_has_arrived_is_taken_once_and_the_whole_is_the_message(tmp_path: Path) -> None:
    sent = Sent(to_records(reply()))
    for number in reversed(list(sent.objects)):  # the last first: every order comes to the same
        with pytest.raises(ObjectUnavailableError):
            sent.arriving.fetch(sent.pull, tmp_path)
        sent.there.add(number)
    got = from_records(sent.arriving.fetch(sent.pull, tmp_path).content)
    assert got == reply()
    assert np.array_equal(got.arrays["y"], reply().arrays["y"])
    assert not got.arrays["y"].flags.writeable
    assert sorted(sent.pulled) == sorted(set(sent.pulled)) == sorted(sent.objects)  # equal chunks travel once
    assert list(tmp_path.iterdir()) == []  # what lies on disk has no name there


def said(change: Callable[[dict[str, object]], object]) -> Callable[[Sent], None]:
    """Changes what an array's object says of itself."""

    def changed(sent: Sent) -> None:
        for number, content in sent.objects.items():
            head, _, body = content.partition(b"\0")
            if head.startswith(b"Array "):
                value = json.loads(body)
                change(value)
                sent.objects[number] = head + b"\0" + json.dumps(value).encode()

    return changed


HOSTILE: dict[str, Callable[[Sent], None]] = {
    "rubbish": lambda sent: sent.objects.update(dict.fromkeys(sent.objects, b"\xff\0\xff")),
    "nothing": lambda sent: sent.objects.update(dict.fromkeys(sent.objects, b"")),
    "a type that executes": said(lambda value: value.update(stype="numpy.ndarray", dtype="O")),
    "objects": said(lambda value: value.update(dtype="|O")),
    "more than fits anywhere": said(lambda value: value.update(shape=[2**60])),
    "less than nothing": said(lambda value: value.update(shape=[-1])),
    "not a number": said(lambda value: value.update(shape=[float("nan")])),
    "a truth": said(lambda value: value.update(shape=[True, 3])),
    "chunks that are not there": said(lambda value: value.update(arraychunk_ids=[99])),
    "one chunk for ever": said(lambda value: value.update(arraychunk_ids=[0] * 2000)),
    "no list": said(lambda value: value.update(arraychunk_ids=None)),
    "more dimensions than an array of the wire": said(lambda value: value.update(shape=[3] + [1] * 40)),
    "numbers of thousands of digits": said(lambda value: value.update(shape=[10**4000] * 4)),
    "a length that no double holds, beside none": said(lambda value: value.update(shape=[2**53, 0])),
    "a text of lengths": said(lambda value: value.update(shape="3")),
    "a chunk from the end": said(lambda value: value.update(arraychunk_ids=[-1])),
    "a truth for a chunk": said(lambda value: value.update(arraychunk_ids=[False])),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_reply_is_refused_and_takes_no_more_than_it_says(what: str, tmp_path: Path) -> None:
    array = Array("<u4", (3,), RAW, np.arange(3, dtype="<u4").tobytes())
    sent = Sent(RecordDict({"arrays": ArrayRecord({"y": array})}))
    sent.there = set(sent.objects)
    HOSTILE[what](sent)
    with pytest.raises(WireError):
        sent.arriving.fetch(sent.pull, tmp_path)


@pytest.mark.parametrize("shape", [[float("nan")], [float("inf")], [3, float("nan")]])
def test_no_shape_lets_one_chunk_fill_the_disk(shape: list[float], tmp_path: Path) -> None:
    """A chunk that is sent once may be named many times; what an array says of its size is a limit whatever it says."""
    array = Array("<u4", (300_000,), RAW, bytes(1_200_000))
    sent = Sent(RecordDict({"arrays": ArrayRecord({"y": array})}))
    said(lambda value: value.update(shape=shape, arraychunk_ids=[0] * 80))(sent)
    sent.there = set(sent.objects)
    with pytest.raises(WireError):
        sent.arriving.fetch(sent.pull, tmp_path)
    assert sum(len(sent.objects[number]) for number in sent.pulled) < 10_000  # its chunk was not asked for


def test_a_shape_without_end_is_not_multiplied(tmp_path: Path) -> None:
    """The product of such a list takes hours in one call, in which nothing else is heard."""
    sent = Sent(RecordDict({"arrays": ArrayRecord({"y": Array("<u4", (3,), RAW, bytes(12))})}))
    said(lambda value: value.update(shape=[2**52] * 300_000))(sent)
    sent.there = set(sent.objects)
    with pytest.raises(WireError, match="no array of the wire"):
        sent.arriving.fetch(sent.pull, tmp_path)


def test_a_length_of_zero_makes_an_array_empty_wherever_it_stands(tmp_path: Path) -> None:
    for shape in ((0, 2**40), (2**40, 0)):
        sent = Sent(RecordDict({"arrays": ArrayRecord({"y": Array("<u4", shape, RAW, b"")})}))
        sent.there = set(sent.objects)
        got = sent.arriving.fetch(sent.pull, tmp_path).content.array_records["arrays"]["y"]
        assert (got.shape, bytes(got.data)) == (shape, b"")


@pytest.mark.parametrize("piece", [b"", b"x"])
def test_a_chunk_that_brings_next_to_nothing_is_not_read_a_million_times(
    piece: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = Sent(RecordDict({"arrays": ArrayRecord({"y": Array("<u4", (300_000,), RAW, piece)})}))
    if not piece:
        empty = ArrayChunk(memoryview(piece))
        number = empty.object_id
        for key, content in list(sent.objects.items()):
            if content.startswith(b"Array "):
                sent.objects[key] = content.replace(b"Array  ", f"Array {number} ".encode())
        sent.objects[number] = empty.deflate()
    said(lambda value: value.update(arraychunk_ids=[0] * 30_000))(sent)
    sent.there = set(sent.objects)
    reads = list[int]()
    read = os.pread
    monkeypatch.setattr(arriving.os, "pread", lambda *asked: reads.append(1) or read(*asked))
    with pytest.raises(WireError):
        sent.arriving.fetch(sent.pull, tmp_path)
    assert len(reads) < 10


def test_a_chunk_of_nothing_is_refused(tmp_path: Path) -> None:
    content = RecordDict({"arrays": ArrayRecord({"y": Array("<u4", (3,), RAW, bytes(12))})})
    sent = Sent(content)
    for number, one in sent.objects.items():
        if one.startswith(b"ArrayChunk "):
            sent.objects[number] = ArrayChunk(memoryview(b"")).deflate()
    sent.there = set(sent.objects)
    with pytest.raises(WireError, match="empty"):
        sent.arriving.fetch(sent.pull, tmp_path)


def test_one_object_that_is_no_chunk_has_a_limit(tmp_path: Path) -> None:
    sent = Sent(to_records(reply()))
    for number, content in sent.objects.items():
        if content.startswith(b"ConfigRecord"):
            sent.objects[number] = content + bytes(arriving._MOST_BYTES)
    sent.there = set(sent.objects)
    with pytest.raises(WireError, match=f"{arriving._MOST_BYTES} bytes"):
        sent.arriving.fetch(sent.pull, tmp_path)


def test_all_objects_that_are_no_chunks_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arriving, "_MOST_TOGETHER", 100_000)
    records = {f"r{number}": ConfigRecord({"bytes": bytes([number]) * 30_000}) for number in range(8)}
    sent = Sent(RecordDict(records))
    sent.there = set(sent.objects)
    with pytest.raises(WireError, match="100000 bytes"):
        sent.arriving.fetch(sent.pull, tmp_path)
    assert sum(len(sent.objects[number]) for number in sent.pulled) < 140_000  # the rest was not asked for


def test_the_largest_header_with_all_small_arrays_passes(tmp_path: Path) -> None:
    arrays = {"a": np.zeros(2**17 - 8, dtype="<f8"), "large": np.arange(2**18, dtype="<i8")}
    largest = Message("sum", {"text": "x" * (MAX_HEADER_BYTES - 1000)}, arrays)
    sent = Sent(to_records(largest))
    sent.there = set(sent.objects)
    assert from_records(sent.arriving.fetch(sent.pull, tmp_path).content) == largest


def test_an_array_has_as_many_names_as_a_message_has_arrays(tmp_path: Path) -> None:
    """Each name is a view of the array's file of its own, of which a process has so many."""
    array = Array("<u4", (300_000,), RAW, bytes(1_200_000))
    sent = Sent(
        RecordDict({"arrays": ArrayRecord({f"y{number}": array for number in range(MAX_ARRAYS + 1)})})
    )
    sent.there = set(sent.objects)
    with pytest.raises(WireError, match="names"):
        sent.arriving.fetch(sent.pull, tmp_path)


def test_all_arrays_of_a_message_share_one_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {name: Array("<u4", (50,), RAW, name.encode() * 200) for name in "abc"}
    sent = Sent(RecordDict({"arrays": ArrayRecord(arrays)}))
    sent.there = set(sent.objects)
    monkeypatch.setattr(arriving, "MAX_ARRAY_BYTES", 599)
    with pytest.raises(WireError, match="limit"):
        sent.arriving.fetch(sent.pull, tmp_path)
    monkeypatch.setattr(arriving, "MAX_ARRAY_BYTES", 600)
    again = Sent(RecordDict({"arrays": ArrayRecord(arrays)}))
    again.there = set(again.objects)
    assert len(again.arriving.fetch(again.pull, tmp_path).content.array_records["arrays"]) == 3


def test_records_of_rubbish_are_refused_like_any_other(tmp_path: Path) -> None:
    """Flower's own parsers raise what they like."""
    sent = Sent(to_records(reply()))
    sent.there = set(sent.objects)
    for number, content in sent.objects.items():
        head, _, body = content.partition(b"\0")
        if head.startswith(b"ConfigRecord"):
            sent.objects[number] = head + b"\0" + b"\xff" * len(body)
    with pytest.raises(WireError):
        sent.arriving.fetch(sent.pull, tmp_path)


def test_a_tree_of_ever_more_objects_is_refused_before_one_is_asked_for(tmp_path: Path) -> None:
    sent = Sent(RecordDict())
    tree = ObjectTree(object_id="a" * 64)
    tree.children.extend(ObjectTree(object_id=f"{number:064x}") for number in range(1000))
    with pytest.raises(WireError, match="objects"):
        Arriving(sent.arriving.proto, tree).fetch(sent.pull, tmp_path)
    assert sent.pulled == []
