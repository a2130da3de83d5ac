"""Where the SuperLink keeps objects: contents as files, and what is known of them in a small SQLite file beside them.

Flower's own store puts five megabytes at a time through an ORM into the database that everything else waits for. This one
keeps to the same interface and to the same rules: an object is announced with its tree, stored once under the hash of its content,
and goes when nothing refers to it any more. What a killed process leaves behind is put right when the store is opened.

Beyond Flower's rules it takes the trees of messages alone, and from each node so many objects and bytes at a time.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import secrets
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_utils import validate_object_content
from flwr.supercore.object_store.object_store import NoObjectInStoreError, ObjectStore
from flwr.supercore.object_store.object_store_factory import ObjectStoreFactory

from hansa.wire import MAX_ARRAY_BYTES
from hansa_server.flower_app.announcing import LEVELS, MOST_OBJECTS, AnnouncementError, objects_of

MOST_OF_NODE = 2 * MOST_OBJECTS  # that nobody has fetched; beyond, its earlier replies go
_MOST_PUSHES = 32  # of one node at a time; Hansa's nodes push two
INLINE_BYTES = 64 * 1024  # up to here a content lies in the database
_TABLES = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS objects (
    id TEXT PRIMARY KEY, size INTEGER, data BLOB, parents INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS children (
    parent TEXT NOT NULL, child TEXT NOT NULL, PRIMARY KEY (parent, child)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs (
    run TEXT NOT NULL, object TEXT NOT NULL, PRIMARY KEY (run, object)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS runs_of_object ON runs (object);
CREATE TABLE IF NOT EXISTS announced (
    node TEXT NOT NULL, object TEXT NOT NULL, PRIMARY KEY (node, object)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS nodes_of_object ON announced (object);
"""
_OF_NODE = "SELECT count(*), coalesce(sum(size), 0) FROM announced JOIN objects ON id = object WHERE node = ?"
_ROOTS_OF_NODE = "SELECT id FROM announced JOIN objects ON id = object WHERE node = ? AND parents = 0"


@dataclass(frozen=True)
class Content:
    """An object that is there.

    Attributes:
        size: of its content, in bytes.
        data: the content where it is small.
        file: of a larger one, to be closed by whoever asked.
    """

    size: int
    data: bytes = b""
    file: BinaryIO | None = None


class Received:
    """A content that is arriving, hashed as it comes; in memory while it is small, and else in a file.

    Args:
        folder: for the file.
        size: that it will have, in bytes.
        closed: called once, when it has been let go of.
    """

    def __init__(self, folder: Path, size: int, closed: Callable[[], None] = lambda: None) -> None:
        self.size, self.length, self._closed = size, 0, closed
        self._hash, self._data = hashlib.sha256(), bytearray()
        self.path: Path | None = None
        self._file: BinaryIO | None = None
        if size > INLINE_BYTES:
            self.path = folder / f"{secrets.token_hex(16)}.part"
            self._file = self.path.open("xb", buffering=0)

    def write(self, piece: bytes | memoryview) -> None:
        """Take the next piece."""
        self._hash.update(piece)
        self.length += len(piece)
        if self._file is None:
            self._data += piece
            return
        view = memoryview(piece)
        while view:
            view = view[self._file.write(view) :]

    def check(self, object_id: str) -> None:
        """Whether it is what it is called.

        Raises:
            ValueError, UnexpectedObjectContentError: it is not.
        """
        if self.length != self.size or self._hash.hexdigest() != object_id:
            raise ValueError(f"Object ID {object_id} does not match content hash")
        if self.path is None:
            validate_object_content(self.data)
            return
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            validate_object_content(content)  # type: ignore[arg-type]  # it looks for the head, and at the length

    @property
    def data(self) -> bytes:
        """The content of a small one."""
        return bytes(self._data)

    def close(self) -> None:
        """Let go of the file, and of its place where it was not kept."""
        if self._file is not None:
            self._file.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        closed, self._closed = self._closed, lambda: None
        closed()


class ObjectFiles(ObjectStore):
    """See above; of one SuperLink.

    Args:
        folder: of nothing else; made where it is not there.
        node_bytes: that the objects of one node may take, of all that it has announced and nobody has fetched.
    """

    def __init__(self, folder: Path, node_bytes: int = MAX_ARRAY_BYTES) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder, self._node_bytes = folder, node_bytes
        self._announcer: ContextVar[int | None] = ContextVar("announcer", default=None)
        self._arriving, self._pushes = Counter[int](), Counter[int]()  # bytes and number, by node
        self._lock = threading.RLock()
        self._database = sqlite3.connect(
            folder / "objects.sqlite", isolation_level=None, check_same_thread=False
        )
        self._freed = list[str]()
        self._database.executescript(_TABLES)
        self._put_right()

    def receive(self, size: int, node: int | None = None) -> Received:
        """A place for a content of this size that will be given to `put`.

        Args:
            size: in bytes.
            node: that sends it, whose other objects count with it.

        Raises:
            OSError: the node has as much here as one node may have, or the disk takes no more.
        """
        if node is None:
            return Received(self.folder, size)
        with self._lock:
            _, held = self._of(node)
            if self._pushes[node] >= _MOST_PUSHES or held + self._arriving[node] + size > self._node_bytes:
                raise OSError(errno.EDQUOT, self._too_much(node))
            self._arriving[node] += size
            self._pushes[node] += 1

        def closed() -> None:
            with self._lock:
                self._arriving[node] -= size
                self._pushes[node] -= 1

        try:
            return Received(self.folder, size, closed)
        except OSError:
            closed()
            raise

    @contextmanager
    def announced_by(self, node: int) -> Iterator[None]:
        """What is announced meanwhile by this thread or task is the node's, and counts against what it may have here."""
        before = self._announcer.set(node)
        try:
            yield
        finally:
            self._announcer.reset(before)

    def content(self, object_id: str) -> Content | None:
        """An object that is there; `None` where it is not known, or has not come yet."""
        with self._lock:
            row = self._database.execute(
                "SELECT size, data FROM objects WHERE id = ? AND size IS NOT NULL", (object_id,)
            ).fetchone()
            if row is None:
                return None
            size, data = row
            if data is not None:
                return Content(size, data)
            try:
                return Content(size, file=(self.folder / object_id).open("rb", buffering=0))
            except FileNotFoundError:
                return None

    def preregister(self, run_id: int, object_tree: ObjectTree) -> list[str]:
        """See `ObjectStore.preregister`.

        Raises:
            AnnouncementError: the tree is no message's, or other children were announced before.
        """
        objects, node = objects_of(object_tree), self._announcer.get()
        with self._transaction() as database:
            if node is not None:
                self._make_room(database, node)
            wanted = [one for one, below in objects.items() if self._announce(database, run_id, one, below)]
            if node is not None:
                rows = [(str(node), one) for one in objects]
                database.executemany("INSERT OR IGNORE INTO announced VALUES (?, ?)", rows)
        return wanted

    def get_object_tree(self, object_id: str) -> ObjectTree:
        """See `ObjectStore.get_object_tree`; what is no tree of a message is not there."""
        root = ObjectTree(object_id=object_id)
        with self._lock:
            if object_id not in self:
                raise NoObjectInStoreError(f"Object {object_id} was not pre-registered.")
            level, count = [root], 1
            for _ in range(LEVELS):
                below: list[ObjectTree] = []
                for node in level:
                    for child in self._children(node.object_id):
                        if child not in self or count > MOST_OBJECTS:
                            raise NoObjectInStoreError(
                                f"Object {object_id} is not what it was announced to be."
                            )
                        count += 1
                        below.append(node.children.add(object_id=child))
                level = below
        if level:
            raise NoObjectInStoreError(f"Object {object_id} is deeper than a message.")
        return root

    def put(self, object_id: str, object_content: bytes | Received) -> None:
        """See `ObjectStore.put`; also takes a content that was received here."""
        content = object_content
        if not isinstance(content, Received):
            content = self.receive(len(object_content))  # type: ignore[arg-type]
            content.write(object_content)  # type: ignore[arg-type]
        try:
            content.check(object_id)
            with self._transaction() as database:
                row = database.execute("SELECT size FROM objects WHERE id = ?", (object_id,)).fetchone()
                if row is None:
                    raise NoObjectInStoreError(f"Object with ID '{object_id}' was not pre-registered.")
                if row[0] is not None:
                    return
                self._require_room(database, object_id, content.size)
                if content.path is not None:
                    content.path.replace(self.folder / object_id)
                data = content.data if content.path is None else None
                database.execute(
                    "UPDATE objects SET size = ?, data = ? WHERE id = ?", (content.size, data, object_id)
                )
        finally:
            content.close()

    def get(self, object_id: str) -> bytes | None:
        """See `ObjectStore.get`."""
        found = self.content(object_id)
        if found is None:
            return b"" if object_id in self else None
        if found.file is None:
            return found.data
        with found.file as file:
            return file.read()

    def delete(self, object_id: str) -> None:
        """See `ObjectStore.delete`."""
        with self._transaction() as database:
            self._delete(database, object_id)

    def delete_objects_in_run(self, run_id: int) -> None:
        """See `ObjectStore.delete_objects_in_run`."""
        with self._transaction() as database:
            numbers = database.execute("SELECT object FROM runs WHERE run = ?", (str(run_id),)).fetchall()
            database.execute("DELETE FROM runs WHERE run = ?", (str(run_id),))
            for (number,) in numbers:
                self._delete(database, number)

    def clear(self) -> None:
        """See `ObjectStore.clear`."""
        with self._transaction() as database:
            self._freed += [number for (number,) in database.execute("SELECT id FROM objects")]
            for table in ("objects", "children", "runs", "announced"):
                database.execute(f"DELETE FROM {table}")  # noqa: S608  # one of these four

    def close(self) -> None:
        """Give the files back."""
        self._database.close()

    def __contains__(self, object_id: str) -> bool:
        """See `ObjectStore.__contains__`."""
        with self._lock:
            found = self._database.execute("SELECT 1 FROM objects WHERE id = ?", (object_id,)).fetchone()
        return found is not None

    def __len__(self) -> int:
        """See `ObjectStore.__len__`."""
        with self._lock:
            (count,) = self._database.execute("SELECT count(*) FROM objects").fetchone()
        return int(count)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing; files go once the database has forgotten them."""
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:  # SQLite takes some back by itself, as on a full disk
                    self._database.execute("ROLLBACK")
                self._freed.clear()
                raise
            freed, self._freed = self._freed, []
            for number in freed:
                (self.folder / number).unlink(missing_ok=True)

    def _announce(
        self, database: sqlite3.Connection, run_id: int, number: str, children: Sequence[str]
    ) -> bool:
        """Know an object and whose it is; whether its content is wanted."""
        is_new = database.execute("INSERT OR IGNORE INTO objects (id) VALUES (?)", (number,)).rowcount == 1
        if is_new:
            for child in children:
                database.execute("INSERT INTO children VALUES (?, ?)", (number, child))
                database.execute("UPDATE objects SET parents = parents + 1 WHERE id = ?", (child,))
        elif set(self._children(number)) != set(children):
            raise AnnouncementError(f"Object {number} was preregistered with different children.")
        database.execute("INSERT OR IGNORE INTO runs VALUES (?, ?)", (str(run_id), number))
        (size,) = database.execute("SELECT size FROM objects WHERE id = ?", (number,)).fetchone()
        return size is None

    def _children(self, number: str) -> list[str]:
        rows = self._database.execute("SELECT child FROM children WHERE parent = ?", (number,))
        return [child for (child,) in rows]

    def _delete(self, database: sqlite3.Connection, number: str) -> None:
        waiting = [number]
        while waiting:
            one = waiting.pop()
            gone = database.execute("DELETE FROM objects WHERE id = ? AND parents = 0", (one,)).rowcount
            if not gone:
                continue
            self._freed.append(one)
            children = self._children(one)
            database.execute("DELETE FROM children WHERE parent = ?", (one,))
            database.execute("DELETE FROM runs WHERE object = ?", (one,))
            database.execute("DELETE FROM announced WHERE object = ?", (one,))
            for child in children:
                database.execute("UPDATE objects SET parents = parents - 1 WHERE id = ?", (child,))
            waiting += children

    def _of(self, node: int) -> tuple[int, int]:
        """How many objects a node has announced that are here, and how many bytes of them have come."""
        count, held = self._database.execute(_OF_NODE, (str(node),)).fetchone()
        return int(count), int(held)

    def _make_room(self, database: sqlite3.Connection, node: int) -> None:
        """A node that announces more while much of it lies here: replies that nobody has fetched, and that nobody will, go."""
        count, held = self._of(node)
        if count <= MOST_OF_NODE and held <= self._node_bytes // 2:
            return
        for (root,) in database.execute(_ROOTS_OF_NODE, (str(node),)).fetchall():
            self._delete(database, root)

    def _require_room(self, database: sqlite3.Connection, number: str, size: int) -> None:
        nodes = database.execute("SELECT node FROM announced WHERE object = ?", (number,)).fetchall()
        for (node,) in nodes:
            if self._of(node)[1] + size > self._node_bytes:
                raise OSError(errno.EDQUOT, self._too_much(node))

    def _too_much(self, node: int | str) -> str:
        return (
            f"node {node} has as much on its way as one node may have, {self._node_bytes} bytes; "
            "reply_bytes in coordinator.toml says how much that is"
        )

    def _put_right(self) -> None:
        """After a process that was killed, or a power loss: files that nobody knows go, and what has lost its file is wanted."""
        lies = {path.name: path.stat().st_size for path in self.folder.iterdir()}
        sound = set[str]()
        with self._transaction() as database:
            asked = "SELECT id, size FROM objects WHERE size IS NOT NULL AND data IS NULL"
            for number, size in database.execute(asked).fetchall():
                if lies.get(number) == size:
                    sound.add(number)
                else:
                    database.execute("UPDATE objects SET size = NULL WHERE id = ?", (number,))
        for name in lies.keys() - sound:
            if not name.startswith("objects.sqlite"):
                (self.folder / name).unlink(missing_ok=True)


def kept_in(folder: Path, node_bytes: int = MAX_ARRAY_BYTES) -> ObjectFiles:
    """Have the SuperLink of this process keep its objects there; to be called before Flower makes its application."""
    made = ObjectFiles(folder, node_bytes)
    factory: Any = ObjectStoreFactory
    factory.store = lambda _self: made
    return made
