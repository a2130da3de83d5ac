"""Where a machine keeps bytes between phases: a port of three calls, in memory and in a folder."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeAlias

from hansa.secagg.errors import StateError
from hansa.secagg.slots import SlotFile, slot_file
from hansa.vectors import Mapped, pieces_of

Bytes: TypeAlias = bytes | memoryview

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
_IN_PLACE = ".state"
_AT_A_TIME = 4  # flushes that wait for the disk together
_FREED_AT_ONCE = 16 * 1024 * 1024  # a file of more bytes is freed before anything is written in its stead
_SMALL = 1024 * 1024  # a file of fewer bytes is freed sooner than a thread is told to


class Store(Protocol):
    """Named bytes that survive a crash."""

    def put(self, name: str, data: Bytes) -> None:
        """Write or replace; durable before return, and after a crash either the old bytes or the new are there."""

    def put_together(self, items: Mapping[str, Bytes], forget: Sequence[str] = ()) -> None:
        """As `delete` of each name to forget and then `put` of each item, in that order, all durable before return.

        After a crash some of it may have happened; where it has, so has what comes before. What was forgotten beside items may be
        there again after a loss of power.
        """

    def put_pieces(self, name: str, pieces: Iterable[Bytes]) -> None:
        """As `put`, of bytes that come one piece after the other and are not put together in memory first."""

    def get(self, name: str) -> bytes | None:
        """The bytes, or None where there are none."""

    def view(self, name: str) -> memoryview | None:
        """As `get`, of bytes that are read where they are looked at; they stay as they are when others are put in their place."""

    def delete(self, name: str) -> None:
        """Forget the bytes; nothing happens where there are none."""


class MemoryStore:
    """A store for simulations and tests: as durable as the object."""

    def __init__(self) -> None:
        self._data: dict[str, bytes] = {}

    def put(self, name: str, data: Bytes) -> None:
        """See `Store.put`."""
        self._data[name] = bytes(data)

    def put_together(self, items: Mapping[str, Bytes], forget: Sequence[str] = ()) -> None:
        """See `Store.put_together`."""
        for name in forget:
            self.delete(name)
        for name, data in items.items():
            self.put(name, data)

    def put_pieces(self, name: str, pieces: Iterable[Bytes]) -> None:
        """See `Store.put_pieces`."""
        self.put(name, b"".join(pieces))

    def get(self, name: str) -> bytes | None:
        """See `Store.get`."""
        return self._data.get(name)

    def view(self, name: str) -> memoryview | None:
        """See `Store.view`."""
        return memoryview(self._data[name]) if name in self._data else None

    def delete(self, name: str) -> None:
        """See `Store.delete`."""
        self._data.pop(name, None)


class Spool:
    """Masked vectors where a verifier takes them at once: in memory, and in a store from so many bytes on.

    Not durable, and need not be: a coordinator that is called again with its journal is given the same vectors again, and one
    without a journal has lost the round.

    Args:
        store: for what does not fit.
        limit: bytes in memory.
    """

    def __init__(self, store: Store, limit: int = 64 * 2**20) -> None:
        self._store, self._limit = store, limit
        self._data: dict[str, Bytes] = {}

    def put(self, name: str, data: Bytes) -> None:
        """See `Store.put`."""
        self.put_together({name: data})

    def put_together(self, items: Mapping[str, Bytes], forget: Sequence[str] = ()) -> None:
        """See `Store.put_together`; what is kept in memory is not copied, and must not change."""
        elsewhere = [name for name in forget if self._data.pop(name, None) is None]
        held = sum(len(memoryview(data).cast("B")) for data in (*self._data.values(), *items.values()))
        if held <= self._limit:
            self._data.update(items)
            items = {}
        if items or elsewhere:
            self._store.put_together(items, elsewhere)

    def put_pieces(self, name: str, pieces: Iterable[Bytes]) -> None:
        """See `Store.put_pieces`."""
        self.put(name, b"".join(pieces))

    def get(self, name: str) -> bytes | None:
        """See `Store.get`."""
        return bytes(self._data[name]) if name in self._data else self._store.get(name)

    def view(self, name: str) -> memoryview | None:
        """See `Store.view`."""
        return memoryview(self._data[name]) if name in self._data else self._store.view(name)

    def delete(self, name: str) -> None:
        """See `Store.delete`."""
        self.put_together({}, [name])


class NoSpool:
    """A spool for whoever keeps the replies anyhow, or needs no vector again: nothing is kept here, and nothing is found."""

    def put(self, name: str, data: Bytes) -> None:
        """Keep nothing."""

    def put_together(self, items: Mapping[str, Bytes], forget: Sequence[str] = ()) -> None:
        """Keep nothing."""

    def put_pieces(self, name: str, pieces: Iterable[Bytes]) -> None:
        """Keep nothing."""

    def get(self, name: str) -> None:  # the port's
        """Nothing is there."""

    def view(self, name: str) -> None:
        """Nothing is there."""

    def delete(self, name: str) -> None:
        """Nothing is there."""


class FolderStore:
    """A store in a folder of mode 0700 that one process holds at a time.

    Two processes of one identity would mask two vectors with the same keys, so that the folder is locked.

    Files of one write are flushed side by side, as a disk serves several waits in the time of one. A file that loses its name
    loses it before the write returns; the blocks of all but small ones are freed in a thread, because that can take as long as
    a flush.

    What is named ``*.state`` is written again and again: after the first time in place, in a file of two places
    (`hansa.secagg.slots`), which waits once and for the data alone. Where that failed the next one is a new file again: what
    the system shows of the old one need not be what the disk holds.

    Raises:
        StateError: another process has the folder, or it cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateError(f"cannot use {folder}: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise StateError(
                f"{folder} is in use by another process",
                remedy="One process per identity; stop the other first.",
            ) from None
        except OSError as error:
            os.close(lock)
            raise StateError(f"cannot lock {folder}: {error.strerror}") from None
        self._lock = lock
        self._threads = ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="hansa-store")
        self._freed: Future[None] | None = None
        self._slots: dict[str, SlotFile] = {}
        self._failed = set[str]()  # written in place in vain: what the disk holds of them is not known
        try:
            self._flush_folder()  # names that a process gave that ended before they were on disk
        except OSError as error:
            os.close(lock)
            raise StateError(f"cannot use {folder}: {error.strerror}") from None

    def put(self, name: str, data: Bytes) -> None:
        """See `Store.put`: a new file, flushed to disk, renamed over the old one, and the folder flushed too."""
        self.put_together({name: data})

    def put_pieces(self, name: str, pieces: Iterable[Bytes]) -> None:
        """See `Store.put_pieces`; what is written in place is put together after all."""
        if name.endswith(_IN_PLACE):
            self.put(name, b"".join(pieces))
        else:
            self._replace({name: pieces}, [], flush=True)

    def put_together(self, items: Mapping[str, Bytes], forget: Sequence[str] = ()) -> None:
        """See `Store.put_together`: new files first, each flushed before the first is renamed, and the folder once for all."""
        gone = [self._path(name) for name in forget]
        files, again = self._parted(items)
        for name in (*files, *forget):
            self._leave(name)
        if files or gone:
            self._replace(files, gone, flush=bool(files) or not again)
        for name, data in again.items():
            try:
                self._slots[name].put(data)
            except OSError as error:
                self._leave(name)
                self._failed.add(name)
                raise StateError(f"cannot write {self._path(name)}: {error.strerror}") from None

    def _parted(self, items: Mapping[str, Bytes]) -> tuple[dict[str, Bytes], dict[str, Bytes]]:
        """What becomes a new file, and what is written in place: the last items, where all others come before them."""
        again = dict[str, Bytes]()
        for name, data in reversed(list(items.items())):
            in_place = name.endswith(_IN_PLACE) and name not in self._failed
            slots = self._opened(name) if in_place else None
            if slots is None or not slots.fits(data):
                break
            again[name] = data
        files = {name: data for name, data in items.items() if name not in again}
        return files, dict(reversed(list(again.items())))

    def _opened(self, name: str) -> SlotFile | None:
        """A file of two places; none where there is no file yet, or one that must be made anew."""
        if name not in self._slots:
            try:
                self._slots[name] = SlotFile(self._path(name))
            except FileNotFoundError:
                return None
            except OSError as error:
                raise StateError(f"cannot open {self._path(name)}: {error.strerror}") from None
            except ValueError:
                return None
        return self._slots[name]

    def _leave(self, name: str) -> None:
        slots = self._slots.pop(name, None)
        if slots is not None:
            slots.close()

    def _replace(
        self, items: Mapping[str, Bytes | Iterable[Bytes]], gone: Sequence[Path], *, flush: bool
    ) -> None:
        paths = {
            self._path(name): [slot_file(_whole(data))] if name.endswith(_IN_PLACE) else _pieces(data)
            for name, data in items.items()
        }
        new = {path: path.with_name(path.name + ".new") for path in paths}
        lost = list[int]()
        path = self._folder
        try:
            for path in gone:
                lost += _held(path)
                path.unlink(missing_ok=True)
            self._write({new[path]: data for path, data in paths.items()})
            for path in paths:
                lost += _held(path)
                new[path].replace(path)
            if flush:
                self._flush_folder()
                self._failed -= items.keys()
        except BaseException as error:
            for half in new.values():
                with suppress(OSError):  # half of a large vector must not keep a full disk full
                    half.unlink()
            if isinstance(error, OSError):
                where = error.filename or path
                raise StateError(f"cannot write {where}: {error.strerror}") from None
            raise
        finally:
            self._free(lost)

    def get(self, name: str) -> bytes | None:
        """See `Store.get`.

        Raises:
            StateError: it cannot be read, or was damaged.
        """
        if name.endswith(_IN_PLACE) and self._path(name).exists():
            slots = self._opened(name)
            if slots is None:
                raise StateError(f"{self._path(name)} is damaged")
            return slots.data
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"cannot read {self._path(name)}: {error.strerror}") from None

    def view(self, name: str) -> memoryview | None:
        """See `Store.view`."""
        try:
            if not name.endswith(_IN_PLACE) and self._path(name).stat().st_size:
                return memoryview(Mapped.at(self._path(name)))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"cannot read {self._path(name)}: {error.strerror}") from None
        found = self.get(name)
        return None if found is None else memoryview(found)

    def delete(self, name: str) -> None:
        """See `Store.delete`."""
        self._leave(name)
        try:
            self._path(name).unlink(missing_ok=True)
            self._flush_folder()
        except OSError as error:
            raise StateError(f"cannot delete {self._path(name)}: {error.strerror}") from None

    def close(self) -> None:
        """Give the folder back."""
        for name in list(self._slots):
            self._leave(name)
        self._threads.shutdown(wait=True)
        os.close(self._lock)

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise StateError("a name of stored bytes is letters, digits, '_', '.' and '-'")
        return self._folder / name

    def _write(self, files: Mapping[Path, Iterable[Bytes]]) -> None:
        """New files, all on disk when this returns; the first error, once nobody writes any more."""
        if len(files) < 2:
            for path, data in files.items():
                _write(path, data)
            return
        started = [self._threads.submit(_write, path, data) for path, data in files.items()]
        wait(started)
        for one in started:
            one.result()

    def _free(self, lost: Sequence[int]) -> None:
        """Close files that have no name any more, in a thread; those of one write at a time, so that few are open."""
        if self._freed is not None:
            self._freed.result()
            self._freed = None
        if lost:
            self._freed = self._threads.submit(_close, lost)

    def _flush_folder(self) -> None:
        handle = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _held(path: Path) -> list[int]:
    """A handle that keeps a file's blocks when its name goes to another; none for one that is freed at once, or not there."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    if not _SMALL <= os.fstat(handle).st_size <= _FREED_AT_ONCE:
        os.close(handle)
        return []
    return [handle]


def _close(handles: Sequence[int]) -> None:
    for handle in handles:
        os.close(handle)


def _pieces(data: Bytes | Iterable[Bytes]) -> Iterable[Bytes]:
    return pieces_of(data) if isinstance(data, Bytes) else data


def _whole(data: Bytes | Iterable[Bytes]) -> Bytes:
    return data if isinstance(data, Bytes) else b"".join(data)


def _write(path: Path, pieces: Iterable[Bytes]) -> None:
    """A file of its own with these bytes, on disk."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb", buffering=0) as file:
        for piece in pieces:
            left = memoryview(piece).cast("B")
            while left:
                left = left[file.write(left) or 0 :]
        os.fsync(file.fileno())
