"""A log as a folder of tiles: paths of the specification, whole exports, growth, and folders that lie."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.errors import HansaError, ProofError
from hansa.ledger import Checkpoint, Log, LogPolicy, NoteSigner, SignedNote, TileLog, TileSource, export_tiles
from hansa.ledger.errors import CosignatureQuorumError, LogStoreError, NoteSignatureError, TilesError
from hansa.ledger.store import MemoryLogStore
from hansa.ledger.tiles import bundle_path, read_bundle, tile_path, write_bundle
from hansa.merkle import leaf_hash, verify_consistency, verify_inclusion
from support.ledgers import LOG_SIGNER, ORIGIN, log_of

POLICY = LogPolicy(LOG_SIGNER.key)


def entries(count: int) -> list[bytes]:
    return [b"%d" % index for index in range(count)]


def exported(folder: Path, count: int) -> Log:
    log = log_of(entries(count))
    export_tiles(log, log.checkpoint(), folder)
    return log


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


class TestPaths:
    @pytest.mark.parametrize(
        ("level", "index", "width", "path"),
        [
            (0, 0, 256, "tile/0/000"),
            (1, 1234067, 256, "tile/1/x001/x234/067"),
            (0, 273, 112, "tile/0/273.p/112"),
            (2, 1000, 1, "tile/2/x001/000.p/1"),
            (63, 999, 255, "tile/63/999.p/255"),
        ],
    )
    def test_paths_are_those_of_the_specification(self, level, index, width, path) -> None:
        assert tile_path(level, index, width) == path
        assert bundle_path(index, width) == path.replace(f"tile/{level}/", "tile/entries/")

    def test_a_log_of_70000_has_the_tiles_of_the_specification(self, tmp_path: Path) -> None:
        log = exported(tmp_path, 70_000)
        found = files(tmp_path)
        assert {path for path in found if path.startswith(("tile/1", "tile/2"))} == {
            "tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1",
        }  # fmt: skip
        assert sum(path.startswith("tile/0/") for path in found) == 274
        assert "tile/0/273.p/112" in found
        assert "tile/entries/273.p/112" in found
        assert len(found) == 274 * 2 + 3 + 1
        tiles = TileLog(tmp_path, POLICY)
        for index in (0, 65_535, 65_536, 69_999):
            verify_inclusion(leaf_hash(b"%d" % index), index, 70_000, tiles.prove_inclusion(index), log.root)
        assert list(tiles.entries(65_500, 65_600)) == entries(70_000)[65_500:65_600]

    def test_bundles_are_lengths_and_entries(self) -> None:
        assert write_bundle([b"ab", b"", b"c"]) == b"\x00\x02ab\x00\x00\x00\x01c"
        assert read_bundle(b"\x00\x02ab\x00\x00\x00\x01c") == [b"ab", b"", b"c"]
        assert read_bundle(write_bundle([bytes(65_535)])) == [bytes(65_535)]
        for cut in (b"\x00", b"\x00\x02a", b"\x00\x01a\x00"):
            with pytest.raises(TilesError, match="cut short"):
                read_bundle(cut)


class TestRoundTrip:
    @pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 257, 511, 512, 513, 1000])
    def test_everything_is_read_back_and_proved(self, tmp_path: Path, count: int) -> None:
        log = exported(tmp_path, count)
        tiles = TileLog(tmp_path, POLICY)
        assert tiles.checkpoint == Checkpoint(ORIGIN, count, log.root)
        assert list(tiles.entries()) == entries(count)
        for index in {0, count // 2, count - 1} - {-1, count}:
            assert tiles.prove_inclusion(index) == log.prove_inclusion(index, count)
        for size in {1, count // 2, count} - {0}:
            if size <= count:
                proof = tiles.prove_consistency(size)
                verify_consistency(size, count, proof, log.root_at(size), log.root)
        source = TileSource(tmp_path)
        assert source.size() == count
        assert list(source.read(0, count)) == entries(count)
        assert list(source.read(count // 3, count // 2)) == entries(count)[count // 3 : count // 2]

    @pytest.mark.parametrize(
        "steps", [[3, 300], [256, 512], [0, 1, 255, 256, 257, 600], [255, 256], [513, 513]]
    )
    def test_a_folder_grows_with_its_log(self, tmp_path: Path, steps: list[int]) -> None:
        log = log_of([])
        for size in steps:
            log.append(entries(size)[log.size :])
            export_tiles(log, log.checkpoint(), tmp_path)
            assert list(TileLog(tmp_path, POLICY).entries()) == entries(size)

    def test_an_older_checkpoint_stays_readable_in_a_folder_that_has_grown(self, tmp_path: Path) -> None:
        log = exported(tmp_path, 300)
        older = (tmp_path / "checkpoint").read_bytes()
        log.append(entries(900)[300:])
        export_tiles(log, log.checkpoint(), tmp_path)
        (tmp_path / "checkpoint").write_bytes(older)
        assert list(TileLog(tmp_path, POLICY).entries()) == entries(300)
        shutil.rmtree(tmp_path / "tile/0/001.p")  # partial tiles may go once the full one is there
        shutil.rmtree(tmp_path / "tile/entries/001.p")
        assert list(TileLog(tmp_path, POLICY).entries()) == entries(300)

    def test_only_what_is_new_is_written(self, tmp_path: Path) -> None:
        log = exported(tmp_path, 600)
        log.append(entries(601)[600:])
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
        assert export_tiles(log, log.checkpoint(), tmp_path) == 4  # bundle, tile, level 1, checkpoint
        assert all(
            path.stat().st_mtime_ns == then
            for path, then in before.items()
            if path.name not in {"checkpoint", "2"}
        )

    def test_an_export_at_an_older_size_than_the_log(self, tmp_path: Path) -> None:
        log = log_of(entries(300))
        note = log.checkpoint()
        log.append(entries(500)[300:])
        export_tiles(log, note, tmp_path)
        assert list(TileLog(tmp_path, POLICY).entries()) == entries(300)


class TestRefusals:
    def test_a_folder_of_another_history_is_left_as_it_is(self, tmp_path: Path) -> None:
        exported(tmp_path, 300)
        before = {path: (tmp_path / path).read_bytes() for path in files(tmp_path)}
        fork = log_of([b"other", *entries(400)])
        shorter = log_of(entries(200))
        named = Log(MemoryLogStore(), NoteSigner.generate("hansa.example/other"))
        named.append(entries(400))
        for log in (fork, shorter, named):
            with pytest.raises((TilesError, LogStoreError)):
                export_tiles(log, log.checkpoint(), tmp_path)
        assert {path: (tmp_path / path).read_bytes() for path in files(tmp_path)} == before

    def test_a_checkpoint_of_another_log_is_not_exported(self, tmp_path: Path) -> None:
        note = log_of([b"other", *entries(20)]).checkpoint()
        with pytest.raises(TilesError, match="not that of its checkpoint"):
            export_tiles(log_of(entries(30)), note, tmp_path)
        assert files(tmp_path) == set()

    def test_the_checkpoint_is_written_last(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        log = exported(tmp_path, 300)
        log.append(entries(700)[300:])
        note, real_replace = log.checkpoint(), Path.replace
        done = 0

        def failing(self: Path, target: Path) -> Path:
            nonlocal done
            done += 1
            if done == 4:
                raise OSError(28, "No space left on device")
            return real_replace(self, target)

        monkeypatch.setattr(Path, "replace", failing)
        with pytest.raises(OSError, match="No space left"):
            export_tiles(log, note, tmp_path)
        monkeypatch.undo()
        assert list(TileLog(tmp_path, POLICY).entries()) == entries(300)
        export_tiles(log, note, tmp_path)
        assert list(TileLog(tmp_path, POLICY).entries()) == entries(700)

    def test_who_must_have_signed_is_the_policys_business(self, tmp_path: Path) -> None:
        exported(tmp_path, 3)
        witness = NoteSigner.generate(
            "w", kind=next(k for k in type(LOG_SIGNER.key.kind) if k != LOG_SIGNER.key.kind)
        )
        with pytest.raises(CosignatureQuorumError):
            TileLog(tmp_path, LogPolicy(LOG_SIGNER.key, (witness.key,), 1))
        with pytest.raises(NoteSignatureError):
            TileLog(tmp_path, LogPolicy(NoteSigner.generate(ORIGIN).key))

    def test_what_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(TilesError, match="has no file checkpoint"):
            TileLog(tmp_path, POLICY)
        exported(tmp_path, 3)
        tiles = TileLog(tmp_path, POLICY)
        for ask in (lambda: list(tiles.entries(0, 4)), lambda: list(tiles.entries(2, 1))):
            with pytest.raises(TilesError, match="no entries"):
                ask()
        with pytest.raises(ProofError):
            tiles.prove_inclusion(3)


def read_all(folder: Path) -> list[bytes]:
    tiles = TileLog(folder, POLICY)
    found = list(tiles.entries())
    for index in range(0, len(found), 97):
        tiles.prove_inclusion(index)
    return found


class TestHostileFolders:
    @pytest.fixture
    def original(self, tmp_path: Path) -> Path:
        folder = tmp_path / "original"
        exported(folder, 1000)
        return folder

    def test_every_missing_file_is_noticed(self, original: Path, tmp_path: Path) -> None:
        found = sorted(files(original))
        assert len(found) == 10
        for path in found:
            copy = tmp_path / path.replace("/", "-")
            shutil.copytree(original, copy)
            (copy / path).unlink()
            with pytest.raises(TilesError):
                read_all(copy)

    @pytest.mark.parametrize("where", ["first", "middle", "last"])
    def test_every_changed_file_is_noticed(self, original: Path, tmp_path: Path, where: str) -> None:
        for path in sorted(files(original)):
            copy = tmp_path / path.replace("/", "-")
            shutil.copytree(original, copy)
            data = bytearray((copy / path).read_bytes())
            place = {"first": 0, "middle": len(data) // 2, "last": len(data) - 1}[where]
            data[place] ^= 1
            (copy / path).write_bytes(bytes(data))
            with pytest.raises(HansaError):
                read_all(copy)

    @pytest.mark.parametrize(
        "change", [lambda data: data[:-1], lambda data: data[:-32], lambda data: data + b"\x00"]
    )
    def test_every_file_cut_or_lengthened_is_noticed(self, original: Path, tmp_path: Path, change) -> None:
        for path in sorted(files(original)):
            copy = tmp_path / path.replace("/", "-")
            shutil.copytree(original, copy)
            (copy / path).write_bytes(change((copy / path).read_bytes()))
            with pytest.raises(HansaError):
                read_all(copy)

    def test_tiles_that_agree_with_each_other_and_not_with_the_checkpoint(
        self, original: Path, tmp_path: Path
    ) -> None:
        copy = tmp_path / "copy"
        exported(copy, 1001)
        shutil.copy(original / "checkpoint", copy / "checkpoint")
        shutil.copytree(original, copy, dirs_exist_ok=True)
        assert read_all(copy) == entries(1000)  # what belongs to the checkpoint is there too
        fork = log_of([b"other", *entries(1000)[1:]])
        forked = tmp_path / "fork"
        export_tiles(fork, fork.checkpoint(), forked)
        shutil.copy(original / "checkpoint", forked / "checkpoint")
        with pytest.raises(TilesError, match="do not lead to the root"):
            TileLog(forked, POLICY)

    def test_a_checkpoint_that_nobody_signed(self, original: Path, tmp_path: Path) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(original, copy)
        note = SignedNote.parse((copy / "checkpoint").read_bytes())
        forged = SignedNote(note.text.replace("1000", "999"), note.signatures)
        (copy / "checkpoint").write_text(forged.encoded)
        with pytest.raises(NoteSignatureError):
            TileLog(copy, POLICY)


@settings(max_examples=25)
@given(sizes=st.lists(st.integers(0, 800), min_size=1, max_size=4))
def test_any_growth_leaves_a_whole_folder(sizes: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, log = tmp_path_factory.mktemp("tiles"), log_of([])
    for size in sorted(sizes):
        log.append(entries(size)[log.size :])
        export_tiles(log, log.checkpoint(), folder)
    assert read_all(folder) == entries(max(sizes))
    shutil.rmtree(folder)


class TestHashTiles:
    """As they lie there, for whoever has hashed the entries anew."""

    def test_each_tile_of_each_level_is_there_and_right(self, tmp_path: Path) -> None:
        log = exported(tmp_path, 600)
        seen = list(TileSource(tmp_path).tiles())
        assert [(tile.path, tile.level, tile.first, tile.width) for tile in seen] == [
            ("tile/0/000", 0, 0, 256),
            ("tile/0/001", 0, 256, 256),
            ("tile/0/002.p/88", 0, 512, 88),
            ("tile/1/000.p/2", 8, 0, 2),
        ]
        for tile in seen:
            right = [log.node(tile.level, tile.first + place) for place in range(tile.width)]
            assert tile.wrong(b"".join(right)) is None
            for place in {0, tile.width // 2, tile.width - 1}:
                other = [*right[:place], bytes(32), *right[place + 1 :]]
                assert tile.wrong(b"".join(other)) == place

    def test_a_partial_tile_that_was_removed_is_read_from_the_full_one(self, tmp_path: Path) -> None:
        exported(tmp_path / "short", 300)
        long = exported(tmp_path / "long", 600)
        shutil.rmtree(tmp_path / "short" / "tile" / "0")
        assert [tile.data for tile in TileSource(tmp_path / "short").tiles()][:2] == [None, None]
        shutil.copytree(tmp_path / "long" / "tile" / "0", tmp_path / "short" / "tile" / "0")
        tile = list(TileSource(tmp_path / "short").tiles())[1]
        assert (tile.width, len(tile.data or b"")) == (44, 256 * 32)
        assert tile.wrong(b"".join(long.node(0, 256 + place) for place in range(44))) is None
