"""Where a member's state lies: durable, replaced as a whole, sealed, and held by one process."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from hansa.identity.errors import KeyFileError
from hansa.secagg import FolderStore, MemoryStore, Seal, Store
from hansa.secagg.errors import StateError
from hansa.secagg.member_state import MemberState, RoundState

STORES: dict[str, Callable[[Path], Store]] = {
    "memory": lambda _: MemoryStore(),
    "folder": lambda folder: FolderStore(folder / "state"),
}


@pytest.fixture(params=list(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return STORES[request.param](tmp_path)


def _open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


class TestEveryStore:
    def test_what_was_put_is_there_until_it_is_deleted(self, store: Store) -> None:
        assert store.get("a") is None
        store.put("a", b"one")
        store.put("b", b"")
        store.put("a", b"two")
        assert store.get("a") == b"two"
        assert store.get("b") == b""
        store.delete("a")
        store.delete("a")
        assert store.get("a") is None

    def test_arrays_are_taken_without_a_copy_in_between(self, store: Store) -> None:
        vector = np.arange(70_000, dtype="<u4")
        store.put("y", vector.data)
        assert np.array_equal(np.frombuffer(store.get("y") or b"", dtype="<u4"), vector)
        vector[0] = 9
        assert np.frombuffer(store.get("y") or b"", dtype="<u4")[0] == 0

    def test_pieces_are_put_one_after_the_other(self, store: Store) -> None:
        store.put_pieces("a", iter((b"one ", memoryview(np.arange(3, dtype="<u4")), b"")))
        assert store.get("a") == b"one " + np.arange(3, dtype="<u4").tobytes()
        store.put_pieces("a.state", iter((b"one ", b"two")))
        assert store.get("a.state") == b"one two"

    def test_a_view_stays_as_it_was(self, store: Store) -> None:
        assert store.view("a") is None
        store.put("empty", b"")
        store.put("a", b"one")
        store.put("b.state", b"two")
        seen = store.view("a")
        store.put("a", b"three")
        assert seen is not None
        assert bytes(seen) == b"one"
        store.delete("a")
        assert bytes(seen) == b"one"
        assert [bytes(store.view(name) or b"none") for name in ("empty", "a", "b.state")] == [
            b"none", b"none", b"two",
        ]  # fmt: skip
        assert store.view("empty") is not None


class TestFolder:
    def test_files_are_for_their_owner_alone(self, tmp_path: Path) -> None:
        FolderStore(tmp_path / "state").put("a", b"x")
        assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "state" / "a").stat().st_mode) == 0o600

    def test_bytes_are_flushed_before_they_take_their_place(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = FolderStore(tmp_path)
        done: list[str] = []
        fsync, replace = os.fsync, Path.replace
        monkeypatch.setattr(os, "fsync", lambda fd: (done.append("fsync"), fsync(fd))[1])
        monkeypatch.setattr(Path, "replace", lambda self, to: (done.append("replace"), replace(self, to))[1])
        store.put("a", b"x")
        assert done == ["fsync", "replace", "fsync"]  # the file, its name, the folder

    def test_pieces_that_end_in_an_error_leave_the_old_bytes_and_nothing_else(self, tmp_path: Path) -> None:
        store = FolderStore(tmp_path)
        store.put("a", b"old")

        def broken() -> Iterator[bytes]:
            yield b"new"
            raise MemoryError

        with pytest.raises(MemoryError):
            store.put_pieces("a", broken())
        assert store.get("a") == b"old"
        assert {path.name for path in tmp_path.iterdir()} == {".lock", "a"}

    def test_a_write_that_fails_leaves_the_old_bytes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = FolderStore(tmp_path)
        store.put("a", b"old")

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StateError, match="No space left"):
            store.put("a", b"new")
        assert store.get("a") == b"old"
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            ".lock",
            "a",
        ]  # nothing half written stays

    def test_all_files_of_a_write_are_flushed_before_the_first_takes_its_place(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = FolderStore(tmp_path)
        done: list[str] = []
        fsync, replace = os.fsync, Path.replace

        def slowly(fd: int) -> None:
            what = "folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"
            time.sleep(0.01 * (what == "file"))
            fsync(fd)
            done.append(what)

        monkeypatch.setattr(os, "fsync", slowly)
        monkeypatch.setattr(Path, "replace", lambda self, to: (done.append("name"), replace(self, to))[1])
        store.put_together({f"v{i}": bytes([i]) for i in range(6)})
        assert done == ["file"] * 6 + ["name"] * 6 + ["folder"]
        assert [store.get(f"v{i}") for i in range(6)] == [bytes([i]) for i in range(6)]

    def test_one_of_several_that_fails_leaves_all_the_old_bytes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = FolderStore(tmp_path)
        store.put_together({"a": b"old", "b": b"old"})
        fsync = os.fsync

        def full(fd: int) -> None:
            if os.fstat(fd).st_size == 5:
                raise OSError(28, "No space left on device")
            fsync(fd)

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StateError, match="No space left"):
            store.put_together({"a": b"new", "b": b"newer"})
        assert (store.get("a"), store.get("b")) == (b"old", b"old")
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "a", "b"]

    def test_files_that_lost_their_names_are_closed(self, tmp_path: Path) -> None:
        before = _open_files()
        store = FolderStore(tmp_path)
        for number in range(1, 20):
            store.put_together({"a": b"x", "b": b"y", f"{number}": b"z"}, forget=[f"{max(0, number - 1)}"])
            assert _open_files() <= before + 12  # the lock, and files of two writes
        store.close()
        assert _open_files() <= before

    @pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", ".lock", "a\x00", "ä", "x" * 201])
    def test_names_cannot_leave_the_folder(self, tmp_path: Path, name: str) -> None:
        store = FolderStore(tmp_path)
        for call in (lambda: store.put(name, b""), lambda: store.get(name), lambda: store.delete(name)):
            with pytest.raises(StateError):
                call()

    def test_a_folder_that_cannot_be_made_is_a_clear_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(StateError, match="cannot use"):
            FolderStore(tmp_path / "file" / "state")

    def test_the_lock_dies_with_its_process(self, tmp_path: Path) -> None:
        code = (
            "import os, sys; from pathlib import Path; from hansa.secagg import FolderStore\n"
            "store = FolderStore(Path(sys.argv[1])); store.put('a', b'x'); os._exit(9)"
        )
        ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
        assert ended.returncode == 9
        assert FolderStore(tmp_path).get("a") == b"x"


class TestSeal:
    def test_what_was_sealed_opens_under_its_name_alone(self) -> None:
        seal = Seal(bytes(32))
        sealed = seal.seal("run-1.state", b"secret")
        assert seal.open("run-1.state", sealed) == b"secret"
        for name, data in (
            ("run-2.state", sealed),
            ("run-1.state", sealed[:-1]),
            ("run-1.state", b""),
            ("run-1.state", bytes(64)),
        ):
            with pytest.raises(StateError, match="cannot be opened") as caught:
                seal.open(name, data)
            assert "secret" not in caught.value.diagnostics()
        with pytest.raises(StateError):
            Seal(b"\x01" * 32).open("run-1.state", sealed)

    def test_nothing_is_sealed_twice_alike(self) -> None:
        seal = Seal(bytes(32))
        assert seal.seal("a", b"x") != seal.seal("a", b"x")

    def test_the_key_is_a_file_of_its_owner(self, tmp_path: Path) -> None:
        path = tmp_path / "seal.key"
        Seal.create(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert Seal.load(path).open("a", Seal.load(path).seal("a", b"x")) == b"x"
        with pytest.raises(KeyFileError, match="exists already"):
            Seal.create(path)
        path.chmod(0o640)
        with pytest.raises(KeyFileError, match="can be read by others"):
            Seal.load(path)
        with pytest.raises(KeyFileError, match="cannot read"):
            Seal.load(tmp_path / "other.key")

    def test_a_key_of_another_size_is_refused(self) -> None:
        with pytest.raises(StateError, match="32 bytes"):
            Seal(bytes(16))


class TestMemberState:
    def test_state_comes_back_as_it_was(self) -> None:
        store, seal = MemoryStore(), Seal(bytes(32))
        assert MemberState.load(store, seal, "a") == MemberState()
        state = MemberState(masked_round=3, rounds={4: RoundState(phase="offered", confirmed=b"\x00\xff")})
        store.put("a", state.sealed(seal, "a"))
        assert MemberState.load(store, seal, "a") == state

    @pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"masked_round": "x"}', b'{"unknown": 1}'])
    def test_state_that_cannot_be_read_is_a_clear_error(self, text: bytes) -> None:
        store, seal = MemoryStore(), Seal(bytes(32))
        store.put("a", seal.seal("a", text))
        with pytest.raises(StateError, match="can read"):
            MemberState.load(store, seal, "a")

    def test_secrets_that_are_gone_are_not_made_up(self) -> None:
        with pytest.raises(StateError, match="gone"):
            _ = RoundState().own_secrets
