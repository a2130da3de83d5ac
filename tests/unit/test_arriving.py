"""A reply that arrives piece by piece, and bytes that are no reply."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import ObjectUnavailableError
from flwr.supercore.task_identity import TaskIdentity

from hansa.errors import WireError
from hansa.wire import Message
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
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_reply_is_refused_and_takes_no_more_than_it_says(what: str, tmp_path: Path) -> None:
    array = Array("<u4", (3,), RAW, np.arange(3, dtype="<u4").tobytes())
    sent = Sent(RecordDict({"arrays": ArrayRecord({"y": array})}))
    sent.there = set(sent.objects)
    HOSTILE[what](sent)
    with pytest.raises(WireError):
        from_records(sent.arriving.fetch(sent.pull, tmp_path).content)


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
