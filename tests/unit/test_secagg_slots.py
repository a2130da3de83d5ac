"""A state that is written in place: killed or cut short at any point, it is the old one or the new one, and never goes back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hansa.secagg import FolderStore
from hansa.secagg.errors import StateError
from hansa.secagg.slots import SlotFile, slot_file
from hansa.secagg.store import MemoryStore, Spool

OLD, NEW, LATER = b"old" * 500, b"new" * 700, b"later" * 300


class _PowerLostError(Exception):
    """Nothing happens after it."""


def _new(path: Path) -> SlotFile:
    path.write_bytes(slot_file(OLD))
    return SlotFile(path)


def _after(path: Path) -> bytes:
    slots = SlotFile(path)
    try:
        return slots.data
    finally:
        slots.close()


def test_what_was_put_last_is_there(tmp_path: Path) -> None:
    slots = _new(tmp_path / "a")
    for data in (NEW, LATER, b"", OLD):
        slots.put(data)
        assert slots.data == data == _after(tmp_path / "a")


@pytest.mark.parametrize("kept", [0, 8, 16, 47, 48, 49, 1000, 48 + len(NEW) - 1])
def test_a_write_that_is_cut_short_leaves_the_old_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    slots, pwrite = _new(tmp_path / "a"), os.pwrite

    def cut(handle: int, data: bytes, at: int) -> int:
        pwrite(handle, data[:kept], at)
        raise _PowerLostError

    monkeypatch.setattr(os, "pwrite", cut)
    with pytest.raises(_PowerLostError):
        slots.put(NEW)
    assert _after(tmp_path / "a") == OLD


def test_power_that_is_lost_before_the_old_bytes_are_gone_leaves_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Secrets that were erased do not come back: of two valid places the later one counts."""
    slots, fdatasync = _new(tmp_path / "a"), os.fdatasync

    def flushed_and_lost(handle: int) -> None:
        fdatasync(handle)
        raise _PowerLostError

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", flushed_and_lost)
        with pytest.raises(_PowerLostError):
            slots.put(NEW)
    assert OLD in (tmp_path / "a").read_bytes()
    assert _after(tmp_path / "a") == NEW


def test_nothing_of_the_old_bytes_stays_and_damage_does_not_bring_them_back(tmp_path: Path) -> None:
    slots = _new(tmp_path / "a")
    slots.put(NEW)
    held = (tmp_path / "a").read_bytes()
    assert OLD[:6] not in held
    at = held.index(NEW)
    (tmp_path / "a").write_bytes(held[:at] + b"x" + held[at + 1 :])
    with pytest.raises(ValueError, match="neither place"):
        SlotFile(tmp_path / "a")


def test_nothing_is_said_before_the_disk_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    slots, pwrite, fdatasync = _new(tmp_path / "a"), os.pwrite, os.fdatasync
    monkeypatch.setattr(os, "pwrite", lambda *told: (done.append("write"), pwrite(*told))[1])
    monkeypatch.setattr(os, "fdatasync", lambda handle: (done.append("flush"), fdatasync(handle))[1])
    slots.put(NEW)
    assert done == ["write", "flush", "write"]  # the new bytes, the wait, zeros over the old ones


class TestFolder:
    def test_states_are_written_in_place_and_come_back(self, tmp_path: Path) -> None:
        store = FolderStore(tmp_path)
        store.put("r.state", OLD)
        inode = (tmp_path / "r.state").stat().st_ino
        store.put_together({"r.1.y": b"vector", "r.state": NEW})
        assert (tmp_path / "r.state").stat().st_ino == inode
        store.put_together({"r.state": LATER}, forget=["r.1.y"])
        store.close()
        again = FolderStore(tmp_path)
        assert (again.get("r.state"), again.get("r.1.y"), again.get("s.state")) == (LATER, None, None)
        again.delete("r.state")
        assert again.get("r.state") is None
        again.close()

    def test_a_state_that_grows_gets_a_new_file(self, tmp_path: Path) -> None:
        store = FolderStore(tmp_path)
        store.put("r.state", OLD)
        store.put("r.state", bytes(300_000))
        assert store.get("r.state") == bytes(300_000)
        store.close()

    def test_vectors_are_on_disk_before_the_state_that_speaks_of_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = FolderStore(tmp_path)
        store.put("r.state", OLD)
        store.put("r.state", LATER)  # from here on in place
        done: list[str] = []
        fsync, fdatasync = os.fsync, os.fdatasync
        monkeypatch.setattr(os, "fsync", lambda handle: (done.append("vector"), fsync(handle))[1])
        monkeypatch.setattr(os, "fdatasync", lambda handle: (done.append("state"), fdatasync(handle))[1])
        store.put_together({"r.1.y": b"vector", "r.state": NEW})
        assert done == ["vector", "vector", "state"]  # the file, its name in the folder
        store.close()

    def test_a_flush_that_fails_is_an_error_and_the_next_write_counts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = FolderStore(tmp_path)
        store.put("r.state", OLD)

        def broken(_: int) -> None:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patched:
            patched.setattr(os, "fdatasync", broken)
            with pytest.raises(StateError, match="Input/output error"):
                store.put("r.state", NEW)
        store.put("r.state", LATER)
        store.close()
        assert FolderStore(tmp_path).get("r.state") == LATER

    def test_after_a_flush_that_failed_a_power_loss_brings_nothing_older_back(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The disk may lack what a failed flush left in memory, and still hold what zeros were never flushed over."""
        store = FolderStore(tmp_path)
        path = tmp_path / "r.state"
        store.put("r.state", OLD)
        first = path.read_bytes()
        store.put("r.state", NEW)
        disk = bytearray(path.read_bytes())
        disk[4096 : 4096 + 65536] = first[4096 : 4096 + 65536]  # zeros over the old place are not waited for

        def broken(_: int) -> None:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patched:
            patched.setattr(os, "fdatasync", broken)
            with pytest.raises(StateError, match="Input/output error"):
                store.put(
                    "r.state", LATER
                )  # in memory alone: the system counts its pages as clean from here on
        pwrite = os.pwrite

        def cut(handle: int, data: bytes, at: int) -> int:
            disk[at : at + 40] = data[:40]
            pwrite(handle, data[:40], at)
            raise _PowerLostError

        with monkeypatch.context() as patched:
            patched.setattr(os, "pwrite", cut)
            try:
                store.put("r.state", LATER)
            except _PowerLostError:
                path.write_bytes(bytes(disk))
        store.close()
        assert FolderStore(tmp_path).get("r.state") == LATER

    def test_what_an_earlier_process_left_in_memory_is_on_disk_before_anybody_reads_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Killed between write and flush, its bytes are what the next one answers by: a power loss must not take them back."""
        store = FolderStore(tmp_path)
        store.put("r.state", OLD)
        store.close()
        done: list[str] = []
        pread, fdatasync, fsync = os.pread, os.fdatasync, os.fsync
        monkeypatch.setattr(os, "fsync", lambda handle: (done.append("folder"), fsync(handle))[1])
        monkeypatch.setattr(os, "fdatasync", lambda handle: (done.append("flush"), fdatasync(handle))[1])
        monkeypatch.setattr(os, "pread", lambda *told: (done.append("read"), pread(*told))[1])
        assert FolderStore(tmp_path).get("r.state") == OLD
        assert done[:3] == ["folder", "flush", "read"]

    def test_a_damaged_state_is_an_error(self, tmp_path: Path) -> None:
        store = FolderStore(tmp_path)
        store.put("r.state", OLD)
        store.close()
        (tmp_path / "r.state").write_bytes(b"x" * 200_000)
        with pytest.raises(StateError, match="is damaged"):
            FolderStore(tmp_path).get("r.state")


class TestSpool:
    def test_what_fits_stays_in_memory_and_is_forgotten(self) -> None:
        store = MemoryStore()
        spool = Spool(store, limit=10)
        spool.put_together({"a": b"12345", "b": b"67890"})
        assert (spool.get("a"), store.get("a")) == (b"12345", None)
        spool.put("c", b"1")
        assert (spool.get("c"), store.get("c")) == (b"1", b"1")
        spool.put_together({}, forget=["a", "b", "c"])
        assert [spool.get(name) for name in "abc"] == [store.get("c"), None, None] == [None] * 3
