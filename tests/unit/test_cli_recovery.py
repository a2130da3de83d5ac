"""`hansa node recover` through the command line: a member's ledger is lost, or put back, and rebuilt."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from hansa.errors import ExitStatus
from hansa.ledger import (
    Log,
    MemoryLogStore,
    NoteSigner,
    SignatureType,
    SignedEntry,
    SqliteLogStore,
    TrustedKeys,
    export_tiles,
    officer_of,
)
from hansa.privacy.charges import Charge
from hansa.privacy.events import Spend, gaussian
from hansa_client.node_file import read_home
from hansa_client.node_ledger import ledger_of
from hansa_client.protection import Protection
from support.cli import Called, hansa
from support.identities import MEMBERS, home, note_signer, pinned, roster, signature, signer

AGREEMENT = pinned()
NAME, RUN = "alpha", "run-1"
CHARGE = Charge("training", gaussian(20.0), 20)
NUMBERS = ("--epsilon", "4", "--delta", "1e-6", "--unit", "record", "--max-records", "1")
FEDERATION = NoteSigner.generate("hansa.example/federation")


def node(*arguments: str | Path) -> Called:
    return hansa("node", *arguments, "--format", "json")


def refused(called: Called, code: str, *words: str, status: ExitStatus = ExitStatus.REFUSED) -> None:
    assert called.status == status, called
    error = called.envelope["error"]
    assert error["code"] == code, error
    for word in words:
        assert word in json.dumps(error)


@dataclass
class League:
    """A member's home, the federation's log in memory, and the other members' keys."""

    folder: Path
    log: Log

    @property
    def home(self) -> Path:
        return self.folder / NAME

    @property
    def grant(self) -> Path:
        return self.folder / "alpha.grant"

    @property
    def ledger(self) -> Path:
        return self.home / "state" / "ledger.sqlite"

    def spend(self, rounds: int, *, first: int = 1) -> None:
        """Release in so many rounds; the federation's log gets what the member signed."""
        with ledger_of(read_home(self.home), begin=True) as ledger:
            ledger.reserve(AGREEMENT.agreement_id, RUN, [CHARGE], Protection("record", 1))
            for number in range(first, first + rounds):
                ledger.release(
                    AGREEMENT.agreement_id,
                    RUN,
                    round_number=number,
                    step=number - 1,
                    purpose="training",
                    spend=Spend(CHARGE.event, 2),
                    y_sha256=f"{number:064x}",
                    manifest_sha256="d4" * 32,
                    rng="a test's",
                )
            ledger.checkpoint()
            known = set(self.log.entries())
            self.log.append(data for data in ledger.entries_of(RUN) if data not in known)

    def keys(self, **changes: object) -> Path:
        """The keys of the league."""
        names = roster().members
        said = {
            "agreement_id": AGREEMENT.agreement_id,
            "quorum": 4,
            "members": dict(names),
            "coordinator": roster().coordinator,
            "federation_log": FEDERATION.key.text,
            "logs": {name: note_signer(name).key.text for name in names},
            "witnesses": {name: witness(name).key.text for name in names},
            "officers": {name: signer(officer_of(name)).public_key for name in names},
        }
        path = self.folder / "keys.json"
        TrustedKeys.model_validate({**said, **changes}).write(path)
        return path

    def copy(self, line: str, witnesses: tuple[str, ...] = MEMBERS[1:]) -> Path:
        """A copy of the federation's log under a checkpoint with a line, cosigned."""
        note = self.log.checkpoint(*([line] if line else []))
        for name in witnesses:
            note = self.log.add_cosignature(
                note, witness(name).sign(note.text, at=1_700_000_000), witness(name).key
            )
        folder = self.folder / f"federation-{len(list(self.folder.iterdir()))}"
        export_tiles(self.log, note, folder)
        return folder

    def begin(self) -> str:
        return str(node("recover", "--home", self.home).data["line"])

    def recover(self, copy: Path, keys: Path | None = None) -> Called:
        return node("recover", "--home", self.home, "--federation", copy, "--keys", keys or self.keys())


def witness(name: str) -> NoteSigner:
    return note_signer(name, SignatureType.WITNESS)


@pytest.fixture
def league(tmp_path: Path) -> League:
    """A league in which the member has a grant and has signed."""
    league = League(tmp_path, Log(MemoryLogStore(), FEDERATION))
    home(league.home, NAME)
    signer(officer_of(NAME)).save(tmp_path / "officer.key")
    granted = ("grant", "--home", league.home, *NUMBERS, "--officer-key", tmp_path / "officer.key")
    assert node(*granted, "--out", league.grant).status == 0
    said = signature(AGREEMENT, NAME).entry
    with ledger_of(read_home(league.home)) as ledger:
        signed = ledger.sign_agreement(
            said.agreement_id,
            terms_id=said.terms_id,
            roster_sha256=said.roster_sha256,
            witness_key=witness(NAME).key,
        )
    others = [signature(AGREEMENT, name).encoded for name in MEMBERS[1:]]
    league.log.append([signed.encoded, *others])
    return league


def budget(league: League) -> dict:
    return node("budget", "--home", league.home).data["datasets"][0]


def test_a_ledger_that_was_put_back_from_an_old_copy_is_rebuilt(league) -> None:
    league.spend(2)
    old = league.ledger.read_bytes()
    league.spend(3, first=3)
    league.ledger.write_bytes(old)
    assert budget(league)["runs"][0]["released"] == {"training": 4}
    line = league.begin()
    assert league.begin() == line  # until it is used, it is the same
    done = league.recover(league.copy(line)).data
    assert len(done["put_back"]) == 3
    assert done["ended_in_full"] == [RUN]
    run = budget(league)["runs"][0]
    assert (run["state"], run["released"]) == ("closed", {"training": 20})
    assert not (league.home / "state" / "recovery.nonce").exists()
    assert league.begin() != line


def test_a_ledger_that_is_gone_is_rebuilt_upon_the_grant_that_was_kept(league) -> None:
    league.spend(2)
    whole = budget(league)
    for path in league.ledger.parent.glob("ledger.sqlite*"):
        path.unlink()
    line = league.begin()
    copy = league.copy(line)
    refused(league.recover(copy), "HANSA-752", f"hansa node grant --home {league.home} --signed FILE")
    assert node("grant", "--home", league.home, "--signed", league.grant).data["began_ledger"] is True
    text = hansa(
        "node", "recover", "--home", league.home, "--federation", copy, "--keys", league.keys()
    ).stdout
    assert "4 of this member's entries" in text  # the signature, the reservation, two releases
    assert RUN in text
    after = budget(league)
    assert after["dataset"] == whole["dataset"]
    assert after["runs"][0]["state"] == "closed"
    assert after["limits"][0]["spent"] == pytest.approx(
        whole["limits"][0]["spent"] + whole["limits"][0]["reserved"]
    )


@pytest.mark.parametrize("mirrored", [True, False])
def test_a_log_s_file_and_a_mirror_are_copies_too(league, mirrored) -> None:
    """What `hansa audit follow` keeps, with older and newer checkpoints beside the one that carries the line."""
    league.spend(2)
    old = league.ledger.read_bytes()
    league.spend(1, first=3)
    league.ledger.write_bytes(old)
    store = SqliteLogStore.create(league.folder / "federation.sqlite")
    log = Log(store, FEDERATION)
    log.append(list(league.log.entries()))
    for line in ("", league.begin(), ""):
        note = log.checkpoint(*([line] if line else []))
        for name in MEMBERS[1:]:
            note = log.add_cosignature(
                note, witness(name).sign(note.text, at=1_700_000_000), witness(name).key
            )
    store.close()
    done = league.recover(league.folder if mirrored else league.folder / "federation.sqlite").data
    assert len(done["put_back"]) == 1


def test_a_lost_ledger_is_not_taken_for_one_that_never_was(league) -> None:
    """Whoever did what the error said would have had a second, fresh budget."""
    league.spend(2)
    league.ledger.unlink()
    kept = f"hansa node grant --home {league.home} --signed FILE"
    refused(node("budget", "--home", league.home), "HANSA-752", "there was one", kept)
    refused(league.recover(league.copy(league.begin())), "HANSA-752", "there was one", kept)
    again = ("grant", "--home", league.home, *NUMBERS, "--officer-key", league.folder / "officer.key")
    refused(node(*again), "HANSA-104", "a second budget", kept, status=ExitStatus.BAD_INPUT)
    assert not league.ledger.exists()
    assert node("grant", "--home", league.home, "--signed", league.grant).status == 0
    assert node(*again).status == 0  # beside the old one, which adds up with it


def test_a_recovery_that_was_begun_shows_that_there_was_a_ledger(league) -> None:
    league.begin()
    for path in league.ledger.parent.glob("ledger.sqlite*"):
        path.unlink()
    refused(node("budget", "--home", league.home), "HANSA-752", "recovery.nonce", "--signed FILE")


def test_another_grant_does_not_take_the_lost_ones_place(league) -> None:
    """A new budget for the same data would forget what was spent: nothing is rebuilt upon it."""
    league.spend(2)
    for path in league.ledger.parent.glob("ledger.sqlite*"):
        path.unlink()
    node("grant", "--home", league.home, *NUMBERS, "--officer-key", league.folder / "officer.key")
    refused(league.recover(league.copy(league.begin())), "HANSA-757", "nothing was granted before")
    assert budget(league)["runs"] == []


def test_without_a_recovery_that_was_begun_nothing_is_believed(league) -> None:
    league.spend(1)
    refused(league.recover(league.copy("")), "HANSA-757", "no recovery was begun")


@pytest.mark.parametrize("line", ["", f"fresh {NAME} {'0' * 32}", "fresh beta"])
def test_a_checkpoint_without_this_nonce_is_refused(league, line) -> None:
    league.spend(1)
    league.begin()
    refused(league.recover(league.copy(line)), "HANSA-757", "does not carry the nonce")
    assert (league.home / "state" / "recovery.nonce").exists()


def test_a_checkpoint_that_too_few_cosigned_is_refused(league) -> None:
    league.spend(1)
    refused(league.recover(league.copy(league.begin(), MEMBERS[1:4])), "HANSA-756", "4 are needed")


def test_a_copy_that_was_changed_is_refused(league) -> None:
    league.spend(2)
    folder = league.copy(league.begin())
    (bundle,) = [path for path in (folder / "tile" / "entries").rglob("*") if path.is_file()]
    data = bundle.read_bytes()
    bundle.write_bytes(data.replace(f"{2:064x}".encode(), f"{3:064x}".encode()))
    assert bundle.read_bytes() != data
    before = league.ledger.read_bytes()
    called = league.recover(folder)
    assert called.status == ExitStatus.VERIFICATION_FAILED
    assert league.ledger.read_bytes() == before


def test_keys_of_others_are_refused(league) -> None:
    league.spend(1)
    folder = league.copy(league.begin())
    members = {**roster().members, NAME: signer(NAME, 2).public_key}
    refused(league.recover(folder, league.keys(members=members)), "HANSA-709", "another agreement's")
    officers = {NAME: signer(officer_of(NAME), 2).public_key}
    refused(league.recover(folder, league.keys(officers=officers)), "HANSA-759", status=ExitStatus.BAD_INPUT)
    members = {name: key for name, key in roster().members.items() if name != NAME}
    logs = {name: note_signer(name).key.text for name in members}
    without = {
        "members": members,
        "logs": logs,
        "witnesses": {name: witness(name).key.text for name in members},
        "officers": {},
    }
    refused(league.recover(folder, league.keys(**without)), "HANSA-702", "another agreement's")


def test_another_federations_log_is_not_waited_for(league) -> None:
    league.spend(1)
    folder = league.copy(league.begin())
    other = NoteSigner.generate(FEDERATION.key.name)
    called = league.recover(folder, league.keys(federation_log=other.key.text))
    refused(called, "HANSA-756", "checkpoint of this very federation", "its keys")
    assert "Wait" not in called.stdout


def test_what_does_not_go_together_is_refused(league, tmp_path) -> None:
    bad = ExitStatus.BAD_INPUT
    refused(node("recover", "--home", league.home, "--keys", league.keys()), "HANSA-104", status=bad)
    refused(node("recover", "--home", league.home, "--federation", tmp_path), "HANSA-104", status=bad)
    refused(node("recover", "--home", tmp_path), "HANSA-708", status=bad)
    league.begin()
    for place in ("absent", "alpha"):
        refused(league.recover(tmp_path / place), "HANSA-104", ".sqlite file of a log", status=bad)
    refused(league.recover(league.keys()), "HANSA-104", "is no log of Hansa", status=bad)
    tiles = league.copy("")
    (tiles / "checkpoint").unlink()
    refused(league.recover(tiles), "HANSA-104", "no file named 'checkpoint'", status=bad)
    SqliteLogStore.create(tmp_path / "new.sqlite").close()
    refused(league.recover(tmp_path / "new.sqlite"), "HANSA-104", "has signed no checkpoint", status=bad)
    (tmp_path / "nokeys").write_text("{}")
    refused(league.recover(league.copy(""), tmp_path / "nokeys"), "HANSA-759", status=bad)


def test_a_node_that_runs_is_not_recovered(league) -> None:
    league.spend(1)
    copy = league.copy(league.begin())
    with ledger_of(read_home(league.home)):
        refused(league.recover(copy), "HANSA-747", "in use by another process", status=ExitStatus.FAILED)


def test_a_member_that_ran_twice_is_told_apart_from_one_that_lost_its_ledger(league) -> None:
    """Two ledgers that went on differently are not put together: both go to an auditor."""
    league.spend(1)
    shutil.copytree(league.home / "state", league.folder / "twin")
    league.spend(1, first=2)
    shutil.rmtree(league.home / "state")
    shutil.copytree(league.folder / "twin", league.home / "state")
    with ledger_of(read_home(league.home)) as ledger:
        ledger.release(
            AGREEMENT.agreement_id, RUN, round_number=2, step=1, purpose="training",
            spend=Spend(CHARGE.event, 2), y_sha256="e" * 64, manifest_sha256="d4" * 32, rng="a test's",
        )  # fmt: skip
    before = [SignedEntry.parse(data) for data in league.log.entries()]
    refused(league.recover(league.copy(league.begin())), "HANSA-757", "auditor")
    assert len(before) == league.log.size
