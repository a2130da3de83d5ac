"""One registered node, or somebody without a key, wants the SuperLink of a league to stop: by what it announces, sends, or does not send."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.object_store.object_store import NoObjectInStoreError

from hansa_server.flower_app.objects import ObjectFiles

RUN = 7


def named(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def tree(text: str, *children: ObjectTree) -> ObjectTree:
    return ObjectTree(object_id=named(text), children=children)


def chain(length: int) -> ObjectTree:
    """A flat tree whose last mentions say something else than its first: a chain of any depth."""
    links = [tree(f"c{n}", *([tree(f"c{n + 1}")] if n + 1 < length else [])) for n in range(length)]
    return tree("chain", *links)


def lattice(depth: int) -> ObjectTree:
    """Likewise of two objects a level, each above both of the next: 2**depth ways from the top to the bottom."""
    rows = [
        tree(f"{side}{n}", *([tree(f"{one}{n + 1}") for one in "ab"] if n + 1 < depth else []))
        for n in range(depth)
        for side in "ab"
    ]
    return tree("lattice", *rows)


def deep(levels: int) -> ObjectTree:
    one = tree("d0")
    for n in range(1, levels):
        one = tree(f"d{n}", one)
    return one


HOSTILE: dict[str, Callable[[], ObjectTree]] = {
    "a chain in a flat tree": lambda: chain(150),
    "a lattice in a flat tree": lambda: lattice(5),
    "a lattice upside down": lambda: ObjectTree(object_id=named("up"), children=list(lattice(5).children)[::-1]),
    "deeper than a message": lambda: deep(6),
    "more records than a message has": lambda: tree("wide", tree("content", *(tree(f"r{n}") for n in range(80)))),
    "more chunks than arrays have": lambda: tree(
        "root", tree("content", tree("record", tree("array", *(tree(f"k{n}") for n in range(1800)))))
    ),
    "a child twice": lambda: tree("twice", tree("one"), tree("one")),
    "itself": lambda: tree("self", tree("self")),
    "another name than a hash": lambda: ObjectTree(object_id="0x" + "1" * 62),
    "a path": lambda: ObjectTree(object_id="../../etc/passwd"),
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ObjectFiles]:
    made = ObjectFiles(tmp_path / "objects")
    yield made
    made.close()


@pytest.mark.parametrize("what", HOSTILE)
def test_a_tree_that_is_no_messages_is_refused_and_leaves_nothing(store: ObjectFiles, what: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # what it says is of no consequence
        store.preregister(RUN, HOSTILE[what]())
    assert len(store) == 0
