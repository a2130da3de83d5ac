"""An auditor's mirror: what it takes, what it refuses, what it keeps, and that it goes on from there."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.errors import ExitStatus, UsageError
from hansa.following import LedgerServiceError, LogMirror, MirrorError, News, Patience, Standing, follow
from hansa.following.mirror import NEWEST_NAME, REFUSED_NAME, STORE_NAME
from hansa.ledger import Checkpoint, Log, MemoryLogStore, NoteSigner, SignedNote
from hansa.ledger.errors import (
    CosignatureQuorumError,
    ForkError,
    LogDamagedError,
    LogStoreError,
    LogVerificationError,
    NoteSignatureError,
)
from support.audits import (
    FEDERATION_SIGNER,
    KEYS,
    MEMBERS,
    WITNESSES,
    changed,
    cosigned,
    edited,
    entry_of,
    story,
)
from support.cli import hansa

ENTRIES = story().federation
END = len(ENTRIES)


def log_of(entries: Sequence[bytes], signer: NoteSigner = FEDERATION_SIGNER) -> Log:
    log = Log(MemoryLogStore(), signer)
    log.append(entries)
    return log


def piece(log: Log, start: int, end: int, note: SignedNote | None = None) -> News:
    """Entries of a log under its checkpoint, with an honest proof."""
    note = note or cosigned(log)
    size = Checkpoint.parse(note.text).size
    proof = tuple(log.prove_consistency(end, size)) if 0 < end < size else ()
    return News(start, tuple(log.entries(start, end)), note, proof)


class Honest:
    """A source over a log in this process, in pieces of so many entries."""

    def __init__(self, log: Log, step: int = 7, witnesses: Sequence[str] = MEMBERS) -> None:
        self.log, self.step, self.witnesses = log, step, witnesses
        self.asked: list[int] = []

    def follow(self, start: int, *, once: bool) -> Generator[News, None, None]:
        self.asked.append(start)
        note = cosigned(self.log, self.witnesses)
        size = self.log.size
        yield piece(self.log, min(start, size), min(start, size), note)
        for begin in range(start, size, self.step):
            yield piece(self.log, begin, min(begin + self.step, size), note)

    def cosigned(self, cosignatures: int) -> SignedNote | None:
        return next((note for note in self.log.checkpoints() if len(note.signatures) > cosignatures), None)


def once(source: object, mirror: LogMirror) -> Standing:
    return follow(
        source,  # type: ignore[arg-type]
        mirror,
        once=True,
        tell=lambda _: None,
        clock=lambda: 0.0,
        sleep=lambda _: pytest.fail("nobody waits"),
    )


@pytest.fixture
def mirror(tmp_path: Path) -> Generator[LogMirror, None, None]:
    with closing(LogMirror(tmp_path / "mirror", KEYS)) as made:
        yield made


class TestTaking:
    def test_a_whole_log_in_pieces(self, mirror: LogMirror, tmp_path: Path) -> None:
        log = log_of(ENTRIES)
        standing = once(Honest(log), mirror)
        assert (standing.size, standing.sealed, standing.cosigned) == (END, END, END)
        assert standing.root == log.root
        assert set(standing.by) == {signer.key.name for signer in WITNESSES.values()}
        mirror.close()
        KEYS.write(tmp_path / "keys.json")
        called = hansa(
            "audit", "verify", tmp_path / "mirror", "--keys", tmp_path / "keys.json", "--format", "json"
        )
        assert called.status == 0, called.stdout
        assert called.data["logs"][0]["entries"] == END

    def test_it_goes_on_where_it_was_after_a_restart(self, tmp_path: Path) -> None:
        folder, source = tmp_path / "mirror", Honest(log_of(ENTRIES[:30]))
        with closing(LogMirror(folder, KEYS)) as mirror:
            assert once(source, mirror).size == 30
        source.log.append(ENTRIES[30:])
        with closing(LogMirror(folder, KEYS)) as mirror:
            assert mirror.standing.size == mirror.standing.cosigned == 30
            assert once(source, mirror).size == END
        assert source.asked == [0, 30]

    def test_a_checkpoint_without_news_changes_nothing(self, mirror: LogMirror) -> None:
        log = log_of(ENTRIES)
        once(Honest(log), mirror)
        assert mirror.take(piece(log, END, END)) == mirror.standing

    def test_cosignatures_that_come_later_are_kept(self, mirror: LogMirror) -> None:
        log = log_of(ENTRIES)
        early = cosigned(log, MEMBERS[:2])
        assert mirror.take(piece(log, 0, END, early)).cosigned == 0
        assert mirror.take(piece(log, END, END, cosigned(log))).cosigned == END

    @settings(max_examples=25, deadline=None)
    @given(cuts=st.sets(st.integers(1, END - 1), max_size=6), steps=st.integers(1, END))
    def test_however_it_is_cut_the_mirror_is_the_log(
        self, cuts: set[int], steps: int, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        folder = tmp_path_factory.mktemp("cut") / "mirror"
        source = Honest(log_of(()), steps)
        for end in [*sorted(cuts), END]:
            source.log.append(ENTRIES[source.log.size : end])
            with closing(LogMirror(folder, KEYS)) as mirror:
                standing = once(source, mirror)
                assert (standing.size, standing.root) == (end, source.log.root)


class TestPlaces:
    def test_a_file_is_no_folder(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.json"
        KEYS.write(path)
        before = path.read_bytes()
        for place in (path, path / "below"):
            with pytest.raises(UsageError, match="cannot be the folder of a mirror") as caught:
                LogMirror(place, KEYS)
            assert caught.value.exit_status is ExitStatus.BAD_INPUT
        assert path.read_bytes() == before

    def test_a_folder_of_something_else_is_left_alone(self, tmp_path: Path) -> None:
        KEYS.write(tmp_path / "keys.json")
        with pytest.raises(MirrorError, match=r"is no mirror: it holds 'keys\.json'"):
            LogMirror(tmp_path, KEYS)
        assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]

    def test_a_mirror_may_have_other_files_beside_it(self, tmp_path: Path) -> None:
        LogMirror(tmp_path / "mirror", KEYS).close()
        KEYS.write(tmp_path / "mirror" / "keys.json")
        LogMirror(tmp_path / "mirror", KEYS).close()

    def test_what_a_crash_left_of_a_new_mirror_is_gone_on_with(self, tmp_path: Path) -> None:
        for name in (f"{STORE_NAME}.lock", f"{STORE_NAME}.new"):
            (tmp_path / name).touch()
        LogMirror(tmp_path, KEYS).close()


class TestRefusing:
    def refused(self, mirror: LogMirror, news: News, error: type[Exception], match: str) -> None:
        before = mirror.standing
        with pytest.raises(error, match=match):
            mirror.take(news)
        after = mirror.standing
        assert (after.size, after.root, after.cosigned) == (before.size, before.root, before.cosigned)

    def test_a_log_that_was_cut_off(self, mirror: LogMirror, tmp_path: Path) -> None:
        once(Honest(log_of(ENTRIES)), mirror)
        shorter = log_of(ENTRIES[:20])
        self.refused(
            mirror, piece(shorter, 20, 20), LogVerificationError, "shows 20 entries, and it had signed"
        )
        refused = SignedNote.parse((tmp_path / "mirror" / REFUSED_NAME).read_bytes())
        newest = SignedNote.parse((tmp_path / "mirror" / NEWEST_NAME).read_bytes())
        assert Checkpoint.parse(refused.text).size == 20
        assert Checkpoint.parse(newest.text).size == END

    def test_another_history_of_the_same_length(self, mirror: LogMirror) -> None:
        once(Honest(log_of(ENTRIES)), mirror)
        other = log_of([*ENTRIES[:-1], changed(ENTRIES[-1], at="2026-03-01T13:33:00Z")])
        with pytest.raises(ForkError, match="two histories") as caught:
            mirror.take(piece(other, END, END))
        roots = {Checkpoint.parse(SignedNote.parse(note).text).root for note in caught.value.notes}
        assert roots == {mirror.standing.root, other.root}
        assert caught.value.exit_status is ExitStatus.VERIFICATION_FAILED

    def test_another_history_that_is_shorter(self, mirror: LogMirror) -> None:
        once(Honest(log_of(ENTRIES)), mirror)
        other = log_of([ENTRIES[1], ENTRIES[0], *ENTRIES[2:9]])
        self.refused(mirror, piece(other, 9, 9), ForkError, "two histories")

    def test_another_history_that_is_longer(self, mirror: LogMirror) -> None:
        once(Honest(log_of(ENTRIES[:20])), mirror)
        other = log_of([ENTRIES[1], ENTRIES[0], *ENTRIES[2:]])
        self.refused(mirror, piece(other, 20, 20), LogVerificationError, "another history, or a false proof")
        self.refused(mirror, piece(other, 20, END), LogVerificationError, "are not shown to be in the log")

    def test_an_older_checkpoint_after_a_crash_between_pieces(self, tmp_path: Path) -> None:
        folder, log = tmp_path / "mirror", log_of(ENTRIES)
        with closing(LogMirror(folder, KEYS)) as mirror:
            mirror.take(piece(log, 0, 10))
        shorter = log_of(ENTRIES[:15])
        with closing(LogMirror(folder, KEYS)) as mirror:
            assert (mirror.standing.size, mirror.standing.sealed) == (10, END)
            self.refused(mirror, piece(shorter, 10, 15), LogVerificationError, f"it had signed {END}")
            assert once(Honest(log), mirror).size == END

    @pytest.mark.parametrize("index", [0, 3, END - 2])
    def test_an_entry_that_was_edited(self, mirror: LogMirror, index: int) -> None:
        entries = list(ENTRIES)
        entries[index] = edited(entries[index], at="2026-03-01T11:11:00Z")
        self.refused(
            mirror,
            piece(log_of(entries), 0, END),
            LogVerificationError,
            rf"entry {index} \({entry_of(entries[index]).type}\): a signature",
        )

    def test_an_entry_that_stands_twice(self, mirror: LogMirror) -> None:
        log = log_of(ENTRIES)
        once(Honest(log), mirror)
        log.append([ENTRIES[4]])
        self.refused(
            mirror, piece(log, END, END + 1), LogVerificationError, f"entry {END}.*it is entry 4 again"
        )

    def test_a_release_that_no_reservation_allows(self, mirror: LogMirror) -> None:
        place = next(i for i, data in enumerate(ENTRIES) if entry_of(data).type == "release")
        loose = changed(ENTRIES[place], run="run-2")
        self.refused(
            mirror, piece(log_of([*ENTRIES[:10], loose]), 0, 11), LogVerificationError, "has no reservation"
        )

    def test_what_is_no_entry(self, mirror: LogMirror) -> None:
        self.refused(
            mirror, piece(log_of([b"{}\n"]), 0, 1), LogVerificationError, "entry 0: an entry cannot be read"
        )

    def test_entries_that_are_not_the_log_s(self, mirror: LogMirror) -> None:
        honest = piece(log_of(ENTRIES), 0, 10)
        swapped = News(
            0, (honest.entries[1], honest.entries[0], *honest.entries[2:]), honest.note, honest.proof
        )
        self.refused(mirror, swapped, LogVerificationError, "are not shown to be in the log")

    @pytest.mark.parametrize(
        ("start", "entries"), [(1, ENTRIES[1:3]), (0, (*ENTRIES, b"x")), (0, (b"",)), (0, (b"x" * 65_536,))]
    )
    def test_pieces_that_do_not_fit(self, mirror: LogMirror, start: int, entries: tuple[bytes, ...]) -> None:
        note = cosigned(log_of(ENTRIES))
        with pytest.raises(LogVerificationError):
            mirror.take(News(start, entries, note))
        assert mirror.standing.size == 0

    def test_a_checkpoint_by_another_key(self, mirror: LogMirror) -> None:
        foreign = NoteSigner.generate(FEDERATION_SIGNER.key.name)
        self.refused(
            mirror,
            piece(log_of(ENTRIES, foreign), 0, END),
            NoteSignatureError,
            "signed by nobody|has not signed",
        )

    def test_a_checkpoint_of_another_log(self, mirror: LogMirror) -> None:
        other = NoteSigner.generate("hansa.example/other")
        self.refused(mirror, piece(log_of(ENTRIES, other), 0, END), NoteSignatureError, "is of the log")

    def test_a_cosignature_that_is_false(self, mirror: LogMirror) -> None:
        log = log_of(ENTRIES)
        note = log.checkpoint()
        false = WITNESSES[MEMBERS[0]].sign(log_of(ENTRIES[:3]).checkpoint().text, 1)
        bad = note.with_signatures(false)
        self.refused(mirror, piece(log, 0, END, bad), NoteSignatureError, "not by its key")


class TestRecovering:
    def held(self, tmp_path: Path) -> Path:
        folder = tmp_path / "mirror"
        with closing(LogMirror(folder, KEYS)) as mirror:
            once(Honest(log_of(ENTRIES)), mirror)
        return folder

    def test_two_at_once(self, tmp_path: Path) -> None:
        folder = self.held(tmp_path)
        with closing(LogMirror(folder, KEYS)), pytest.raises(LogStoreError, match="in use"):
            LogMirror(folder, KEYS)
        LogMirror(folder, KEYS).close()

    def test_the_mirror_of_another_log(self, tmp_path: Path) -> None:
        other = NoteSigner.generate("hansa.example/other")
        keys = type(KEYS)(**{**KEYS.model_dump(), "federation_log": other.key.text})
        with pytest.raises(MirrorError, match=r"is a mirror of 'hansa.example/league'"):
            LogMirror(self.held(tmp_path), keys)

    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE entries SET data = x'00' WHERE idx = 4",
            "UPDATE entries SET hashes = zeroblob(32) WHERE idx = 4",
        ],
    )
    def test_a_mirror_that_was_edited_on_this_machine(self, tmp_path: Path, change: str) -> None:
        folder = self.held(tmp_path)
        with closing(sqlite3.connect(folder / STORE_NAME)) as connection:
            connection.execute("DROP TRIGGER entries_update")
            connection.execute(change)
            connection.commit()
        with pytest.raises(LogDamagedError):
            LogMirror(folder, KEYS)
        with pytest.raises(LogDamagedError):  # and the lock was given back
            LogMirror(folder, KEYS)

    def test_a_checkpoint_of_other_entries(self, tmp_path: Path) -> None:
        folder = self.held(tmp_path)
        other = cosigned(log_of(ENTRIES[:5]))
        with closing(sqlite3.connect(folder / STORE_NAME)) as connection:
            text = SignedNote.parse(other.encoded).text.replace("\n5\n", "\n6\n")
            note = SignedNote(text, (FEDERATION_SIGNER.sign(text),))
            connection.execute(
                "INSERT INTO checkpoints (text, line) VALUES (?, ?)", (note.text, note.signatures[0].line)
            )
            connection.commit()
        with pytest.raises(LogDamagedError, match="not that of its checkpoints"):
            LogMirror(folder, KEYS)


class Clock:
    """Time that passes when somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


class TestFollowing:
    def test_a_source_that_is_not_there_is_told_at_once(self, mirror: LogMirror) -> None:
        class Nobody(Honest):
            def follow(self, start: int, *, once: bool) -> Generator[News, None, None]:
                raise LedgerServiceError("nobody is there")
                yield

        clock = Clock()
        for ends in (True, False):
            with pytest.raises(LedgerServiceError):
                follow(
                    Nobody(log_of(ENTRIES)),
                    mirror,
                    once=ends,
                    tell=lambda _: None,
                    clock=clock,
                    sleep=clock.sleep,
                )
        assert clock.waits == []

    def test_one_that_was_there_is_waited_for_longer_and_longer(self, mirror: LogMirror) -> None:
        class Leaving(Honest):
            def follow(self, start: int, *, once: bool) -> Generator[News, None, None]:
                if self.asked:
                    self.asked.append(start)
                    raise LedgerServiceError("it is gone")
                yield from super().follow(start, once=once)
                raise LedgerServiceError("it goes")

        clock, told = Clock(), []
        source = Leaving(log_of(ENTRIES))
        with pytest.raises(LedgerServiceError, match="it is gone"):
            follow(
                source, mirror, once=False, tell=told.append, clock=clock, sleep=clock.sleep,
                patience=Patience(reconnect_s=200.0),
            )  # fmt: skip
        assert clock.waits[:8] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
        assert 200.0 < clock.now <= 300.0
        assert told[-1].size == END
        assert set(source.asked[1:]) == {END}

    def test_what_is_broken_ends_it_whatever_the_patience(self, mirror: LogMirror) -> None:
        clock = Clock()
        source = Honest(log_of([*ENTRIES[:5], edited(ENTRIES[5], at="2026-03-01T11:11:00Z")]))
        with pytest.raises(LogVerificationError, match="entry 5"):
            follow(source, mirror, once=False, tell=lambda _: None, clock=clock, sleep=clock.sleep)
        assert mirror.standing.size == 0

    def test_entries_that_nobody_cosigns(self, mirror: LogMirror) -> None:
        clock = Clock()
        with pytest.raises(CosignatureQuorumError, match="have waited longer than 500 s for 4 cosignatures"):
            follow(
                Honest(log_of(ENTRIES), witnesses=MEMBERS[:3]), mirror, once=False, tell=lambda _: None,
                clock=clock, sleep=clock.sleep, patience=Patience(cosigned_s=500.0),
            )  # fmt: skip
        assert clock.now > 500.0

    def test_cosignatures_that_came_behind_a_newer_checkpoint_are_asked_for(self, mirror: LogMirror) -> None:
        clock, told = Clock(), []

        class Hurried(Honest):
            """Signs the next checkpoint before anybody who follows has seen the last one cosigned."""

            def follow(self, start: int, *, once: bool) -> Generator[News, None, None]:
                clock.now += 20.0
                if self.log.size < END:
                    self.log.append([ENTRIES[self.log.size]])
                note = self.log.checkpoint()
                yield piece(self.log, start, self.log.size, note)
                if self.log.size < END:
                    cosigned(self.log)
                else:
                    raise LedgerServiceError("it is gone")

        with pytest.raises(LedgerServiceError, match="it is gone"):
            follow(
                Hurried(log_of(ENTRIES[:1])), mirror, once=False, tell=told.append, clock=clock, sleep=clock.sleep,
                patience=Patience(reconnect_s=-1.0, cosigned_s=300.0),
            )  # fmt: skip
        assert clock.now > 600.0
        assert mirror.standing.cosigned > END // 2
        assert len(told) == END - 1

    def test_once_without_a_quorum_is_not_enough(self, mirror: LogMirror) -> None:
        with pytest.raises(CosignatureQuorumError, match="is cosigned by 4 members"):
            once(Honest(log_of(ENTRIES), witnesses=MEMBERS[:3]), mirror)

    def test_once_with_an_older_quorum_says_how_far_it_reaches(self, mirror: LogMirror) -> None:
        log = log_of(ENTRIES[:30])
        cosigned(log)
        log.append(ENTRIES[30:])
        standing = once(Honest(log, witnesses=()), mirror)
        assert (standing.size, standing.cosigned) == (END, 30)

    def test_a_quorum_of_strangers_is_none(self, mirror: LogMirror) -> None:
        from hansa.ledger import SignatureType

        log = log_of(ENTRIES)
        note = log.checkpoint()
        for number in range(5):
            stranger = NoteSigner.generate(f"hansa.example/stranger-{number}", SignatureType.WITNESS)
            note = log.add_cosignature(note, stranger.sign(note.text, 1), stranger.key)
        with pytest.raises(CosignatureQuorumError):
            once(Honest(log, witnesses=()), mirror)

    def test_a_source_that_sends_less_than_was_signed(self, mirror: LogMirror) -> None:
        class Lazy(Honest):
            def follow(self, start: int, *, once: bool) -> Generator[News, None, None]:
                yield piece(self.log, 0, 10)

        with pytest.raises(LogVerificationError, match=f"sent 10 of {END} entries"):
            once(Lazy(log_of(ENTRIES)), mirror)

    def test_a_source_that_shows_nothing(self, mirror: LogMirror) -> None:
        class Silent(Honest):
            def follow(self, start: int, *, once: bool) -> Generator[News, None, None]:
                yield from ()

        with pytest.raises(LogVerificationError, match="shows no checkpoint"):
            once(Silent(log_of(ENTRIES)), mirror)
