"""The SuperLink's store of objects does as Flower's own does, and what a killed process leaves behind is put right."""

from __future__ import annotations

import hashlib
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.object_store.object_store import NoObjectInStoreError, ObjectStore
from flwr.supercore.object_store.sql_object_store import SqlObjectStore

from hansa_server.flower_app.objects import INLINE_BYTES, ObjectFiles

pytestmark = pytest.mark.filterwarnings(
    "ignore:No path_separator found:DeprecationWarning"
)  # Flower's use of alembic


class Thing:
    """An object as Flower lays it out: what it is, its children, its body."""

    def __init__(self, body: bytes, *children: Thing) -> None:
        kind = "ArrayChunk" if not children else "Array"
        ids: list[str] = list(dict.fromkeys(child.id for child in children))
        self.content = f"{kind} {','.join(ids)} {len(body)}".encode() + b"\x00" + body
        self.id: str = hashlib.sha256(self.content).hexdigest()
        self.tree: ObjectTree = ObjectTree(
            object_id=self.id, children=[{child.id: child for child in children}[one].tree for one in ids]
        )
        self.all: list[Thing] = [self, *(below for child in children for below in child.all)]


def things() -> list[Thing]:
    """Trees that share branches, small and large."""
    leaves = [Thing(bytes([n]) * (40 if n % 2 else INLINE_BYTES + n)) for n in range(5)]
    rows = [Thing(b"row", leaves[0], leaves[1]), Thing(b"other", leaves[1], leaves[2]), Thing(b"", leaves[3])]
    return [Thing(b"top", rows[0], rows[1]), Thing(b"second", rows[1], rows[2]), *rows, leaves[4]]


def told(step: Callable[[], Any]) -> Any:
    """What a store gives, or the kind of error."""
    try:
        found = step()
    except (NoObjectInStoreError, ValueError) as error:
        return type(error).__name__
    if isinstance(found, ObjectTree):
        return paths(found)
    return sorted(set(found)) if isinstance(found, list) else found


def paths(tree: ObjectTree) -> list[str]:
    return sorted(
        [tree.object_id, *(f"{tree.object_id}/{one}" for child in tree.children for one in paths(child))]
    )


def test_it_gives_what_flowers_own_gives_whatever_is_done(tmp_path: Path) -> None:
    theirs = SqlObjectStore(str(tmp_path / "flower.sqlite"))
    theirs.initialize()
    ours, roots = ObjectFiles(tmp_path / "objects"), things()
    rng = random.Random(7)  # noqa: S311  # the same in each run
    every = [one for root in roots for one in root.all]

    def step(store: ObjectStore, what: int, root: Thing, one: Thing, run: int) -> Any:
        match what:
            case 0 | 1:
                return told(lambda: store.preregister(run, root.tree))
            case 2 | 3 | 4:
                return told(lambda: store.put(one.id, one.content))
            case 5:
                return told(lambda: store.get_object_tree(one.id))
            case 6:
                return told(lambda: store.delete(root.id))
            case 7:
                return told(lambda: store.put(one.id, one.content + b"!"))
            case _:
                return told(lambda: store.delete_objects_in_run(run))

    for number in range(150):
        what, root, one, run = rng.randrange(9), rng.choice(roots), rng.choice(every), rng.randrange(1, 4)
        if what == 8 and number % 4:
            continue  # the end of a run takes all
        assert step(ours, what, root, one, run) == step(theirs, what, root, one, run), (number, what)
        assert len(ours) == len(theirs)
        for each in every if number % 10 == 0 else [one]:
            assert ours.get(each.id) == theirs.get(each.id), (number, what)
    ours.clear()
    assert len(ours) == 0
    assert {path.name for path in (tmp_path / "objects").glob("*")} <= {
        "objects.sqlite", "objects.sqlite-wal", "objects.sqlite-shm"
    }  # fmt: skip


def test_what_was_announced_differently_is_refused(tmp_path: Path) -> None:
    store, thing = ObjectFiles(tmp_path), things()[0]
    store.preregister(1, thing.tree)
    other = ObjectTree(object_id=thing.id, children=[thing.tree.children[0]])
    with pytest.raises(ValueError, match="different children"):
        store.preregister(1, other)
    with pytest.raises(ValueError, match="Invalid object ID"):
        store.preregister(1, ObjectTree(object_id="../../etc/passwd"))
    assert set(store.preregister(1, thing.tree)) == {one.id for one in thing.all}


def test_it_is_as_it_was_after_its_process_was_killed(tmp_path: Path) -> None:
    thing = things()[0]
    store = ObjectFiles(tmp_path)
    store.preregister(1, thing.tree)
    for one in thing.all:
        store.put(one.id, one.content)
    half = store.receive(INLINE_BYTES + 100)  # a content whose sender is cut off
    half.write(b"half")
    again = ObjectFiles(tmp_path)
    assert all(again.get(one.id) == one.content for one in thing.all)
    assert not list(tmp_path.glob("*.part"))
    half.close()


@pytest.mark.parametrize("harm", ["gone", "short"])
def test_a_content_that_a_power_loss_took_is_wanted_again(tmp_path: Path, harm: str) -> None:
    thing = next(one for one in things()[0].all if len(one.content) > INLINE_BYTES)
    store = ObjectFiles(tmp_path)
    store.preregister(1, thing.tree)
    store.put(thing.id, thing.content)
    store.close()
    if harm == "gone":
        (tmp_path / thing.id).unlink()
    else:
        (tmp_path / thing.id).write_bytes(thing.content[:-1])
    again = ObjectFiles(tmp_path)
    assert again.get(thing.id) == b""
    assert again.preregister(1, thing.tree) == [thing.id]
    again.put(thing.id, thing.content)
    assert again.get(thing.id) == thing.content


def test_a_file_that_nobody_knows_goes(tmp_path: Path) -> None:
    ObjectFiles(tmp_path).close()
    (tmp_path / ("0" * 64)).write_bytes(b"left by a process that was killed between two steps")
    ObjectFiles(tmp_path)
    assert not (tmp_path / ("0" * 64)).exists()


def test_a_disk_that_is_full_at_the_end_of_a_step_leaves_the_next_one_possible(tmp_path: Path) -> None:
    store, thing = ObjectFiles(tmp_path), things()[0]

    class Full:
        """A database whose next step cannot be ended."""

        def __init__(self, whole: Any) -> None:
            self.whole, self.times = whole, 1

        def __getattr__(self, name: str) -> Any:
            return getattr(self.whole, name)

        def execute(self, said: str, *values: Any) -> Any:
            if said == "COMMIT" and self.times:
                self.times -= 1
                raise sqlite3.OperationalError("database or disk is full")
            return self.whole.execute(said, *values)

    full: Any = Full(store._database)
    store._database = full
    with pytest.raises(sqlite3.OperationalError):
        store.preregister(1, thing.tree)
    assert len(store) == 0
    assert set(store.preregister(1, thing.tree)) == {one.id for one in thing.all}
