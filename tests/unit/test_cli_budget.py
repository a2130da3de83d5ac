"""`hansa node grant|budget` through the command line: what an officer allows, what is left of it, what would fit."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hansa.agreement.writing import agreement_toml
from hansa.errors import ExitStatus
from hansa.identity.keys import Signer
from hansa.ledger import BudgetGranted, SignedEntry, SqliteLogStore, officer_of
from hansa.ledger.budgets import granted
from hansa.ledger.entry import utc
from hansa.ledger.files import entry_lines, read_entry
from hansa.privacy.charges import Charge
from hansa.privacy.events import Spend, gaussian
from hansa_client.node_file import read_home
from hansa_client.node_ledger import ledger_of
from hansa_client.protection import Protection
from support.budgets import grant as limits
from support.cli import Called, hansa
from support.identities import pinned, secrets_of, terms

NUMBERS = ("--epsilon", "4", "--delta", "1e-6", "--unit", "record", "--max-records", "1")
CHARGE = Charge("training", gaussian(20.0), 20)
AGREEMENT, RUN = "a1" * 32, "run-1"


def node(*arguments: str | Path) -> Called:
    return hansa("node", *arguments, "--format", "json")


def refused(called: Called, code: str, *words: str, status: ExitStatus = ExitStatus.BAD_INPUT) -> None:
    assert called.status == status, called
    error = called.envelope["error"]
    assert error["code"] == code, error
    for word in words:
        assert word in json.dumps(error)


@pytest.fixture
def north(tmp_path: Path) -> Path:
    """The home of a member, with an officer beside it."""
    card = node("officer", "north", "--out", tmp_path / "officer").data["card"]
    assert node("init", "north", "--home", tmp_path / "north", "--officer", card).status == 0
    return tmp_path / "north"


def key(north: Path) -> Path:
    return north.parent / "officer" / "north.officer.key"


def grant(north: Path, *arguments: str | Path, numbers: tuple[str, ...] = NUMBERS) -> Called:
    return node("grant", "--home", north, *numbers, "--officer-key", key(north), *arguments)


def spent(north: Path, releases: int = 3, run: str = RUN) -> None:
    """Have the node reserve a run and release so often."""
    home = read_home(north)
    with ledger_of(home) as ledger:
        ledger.sign_agreement(
            AGREEMENT, terms_id="b2" * 32, roster_sha256="c3" * 32, witness_key=home.witness_signer().key
        )
        ledger.reserve(AGREEMENT, run, [CHARGE], Protection("record", 1))
        for number in range(1, releases + 1):
            ledger.release(
                AGREEMENT,
                run,
                round_number=number,
                step=number - 1,
                purpose="training",
                spend=Spend(CHARGE.event, 2),
                y_sha256=f"{number:064x}",
                manifest_sha256="d4" * 32,
                rng="a test's",
            )
        ledger.checkpoint()


class TestGrant:
    def test_it_stands_in_the_ledger_signed_by_the_officer(self, north) -> None:
        made = grant(north, "--reservations", "3", "--reason", "first league").data
        assert made["began_ledger"] is True
        assert made["limits"][0]["rule"]["rule"] == "any-of"
        with ledger_of(read_home(north)) as ledger:
            granted = ledger.granted
        assert (granted.member, granted.dataset_id, granted.reason) == (
            "north",
            made["dataset"],
            "first league",
        )
        assert (granted.unit, granted.max_records_per_unit) == ("record", 1)

    def test_it_says_in_words_what_it_allows(self, north) -> None:
        said = ("node", "grant", "--home", north, *NUMBERS, "--officer-key", key(north))
        one = hansa(*said).stdout
        assert "ε = 4 at δ = 1e-06" in one
        assert "Any further run is refused" in one
        more = hansa(*said, "--reservations", "3").stdout
        assert "At most 3 runs" in more
        assert "one record loses at most ε = 8 at δ = 2e-06" in more  # with the first

    def test_the_officer_signs_elsewhere_and_the_engineer_takes_the_file(self, north, tmp_path) -> None:
        file = tmp_path / "north.grant"
        made = node("grant", "--member", "north", *NUMBERS, "--officer-key", key(north), "--out", file).data
        assert not (north / "state" / "ledger.sqlite").exists()
        entry = read_entry(file).entry
        assert isinstance(entry, BudgetGranted)
        for held in (False, True):  # the same grant again changes nothing
            taken = node("grant", "--home", north, "--signed", file).data
            assert taken["dataset"] == made["dataset"] == entry.dataset_id
            assert taken["held_before"] is held
        again = hansa("node", "grant", "--home", north, "--signed", file).stdout
        assert f"The ledger of north in {north} held it already; nothing was changed." in again
        assert (
            f"It stands in the ledger of north in {north} now."
            in hansa("node", "grant", "--home", north, *NUMBERS, "--officer-key", key(north)).stdout
        )
        with ledger_of(read_home(north)) as ledger:
            assert ledger.log.size == 2
        there = node("grant", "--member", "north", *NUMBERS, "--officer-key", key(north), "--out", file)
        refused(there, "HANSA-102", "Name another file.")
        assert "--force" not in there.stdout  # which the command does not have

    def test_nobody_but_the_officer_grants(self, north, tmp_path) -> None:
        engineer = ("grant", "--home", north, *NUMBERS, "--officer-key", north / "identity.key")
        refused(
            node(*engineer), "HANSA-701", "not granted by its officer", status=ExitStatus.VERIFICATION_FAILED
        )
        node("officer", "north", "--out", tmp_path / "other")
        other = tmp_path / "other" / "north.officer.key"
        refused(node(*engineer[:-1], other), "HANSA-701", status=ExitStatus.VERIFICATION_FAILED)
        refused(node(*engineer[:-1], tmp_path / "absent"), "HANSA-705")
        with ledger_of(read_home(north)) as ledger:
            assert ledger.log.size == 0

    def test_a_grant_that_was_edited_is_refused(self, north, tmp_path) -> None:
        file = tmp_path / "north.grant"
        node("grant", "--member", "north", *NUMBERS, "--officer-key", key(north), "--out", file)
        file.write_text(file.read_text().replace((4.0).hex(), (40.0).hex()))
        refused(
            node("grant", "--home", north, "--signed", file),
            "HANSA-701",
            status=ExitStatus.VERIFICATION_FAILED,
        )
        file.write_text("nonsense\n")
        refused(node("grant", "--home", north, "--signed", file), "HANSA-745")

    def test_a_grant_of_another_member_is_refused(self, north, tmp_path) -> None:
        file = tmp_path / "south.grant"
        node("grant", "--member", "south", *NUMBERS, "--officer-key", key(north), "--out", file)
        refused(node("grant", "--home", north, "--signed", file), "HANSA-745", "'south' is none of 'north'")

    def test_a_second_limit_and_disjoint_datasets(self, north) -> None:
        first = grant(north).data["dataset"]
        made = grant(north, "--disjoint-from", first, "--colluding", "2", "--epsilon-colluding", "1.5").data
        assert [one["epsilon"] for one in made["limits"]] == [4.0, 1.5]
        assert made["disjoint_from"] == [first]
        assert made["in_all"] == {"epsilon": 4.0, "delta": 1e-6}
        unknown = "0" * 32
        refused(grant(north, "--disjoint-from", unknown), "HANSA-104", unknown)

    def test_budgets_for_several_units_are_not_added_up(self, north) -> None:
        grant(north)
        patients = (*NUMBERS[:4], "--unit", "patient", "--max-records", "4")
        said = ("node", "grant", "--home", north, *patients, "--officer-key", key(north))
        text = hansa(*said).stdout
        assert "different units (patient, record), and have no total" in text
        assert "loses at most" not in text
        text = hansa("node", "budget", "--home", north).stdout
        assert "different units (patient, record), and have no total" in text
        assert "loses at most" not in text
        assert node("budget", "--home", north).data["in_all"] == []

    @pytest.mark.parametrize(
        ("numbers", "code"),
        [
            (("--epsilon", "0", *NUMBERS[2:]), "HANSA-402"),
            (("--epsilon", "inf", *NUMBERS[2:]), "HANSA-402"),
            (("--epsilon", "nan", *NUMBERS[2:]), "HANSA-402"),
            (("--epsilon", "4", "--delta", "1", *NUMBERS[4:]), "HANSA-402"),
            (("--epsilon", "4", "--delta", "0", *NUMBERS[4:]), "HANSA-402"),
            (("--epsilon", "4", "--delta", "1e-10", *NUMBERS[4:]), "HANSA-402"),
            ((*NUMBERS, "--reservations", "1000"), "HANSA-402"),
            ((*NUMBERS, "--reservations", "0"), "HANSA-104"),
            ((*NUMBERS[:-1], "0"), "HANSA-104"),
            ((*NUMBERS, "--colluding", "2"), "HANSA-104"),
            ((*NUMBERS, "--disjoint-from", "x"), "HANSA-402"),
            (NUMBERS[:4], "HANSA-104"),
            ((), "HANSA-104"),
        ],
    )
    def test_numbers_that_promise_nothing_are_refused(self, north, numbers, code) -> None:
        refused(grant(north, numbers=numbers), code)
        assert not (north / "state" / "ledger.sqlite").exists() or not hansa_budget(north)["datasets"]

    @pytest.mark.parametrize(
        "arguments",
        [
            (*NUMBERS,),
            (*NUMBERS, "--officer-key", "k"),
            (*NUMBERS, "--officer-key", "k", "--signed", "s", "--home", "h"),
            (*NUMBERS, "--officer-key", "k", "--home", "h", "--member", "north"),
            (*NUMBERS, "--officer-key", "k", "--member", "north"),
            (*NUMBERS, "--signed", "s", "--home", "h"),
            ("--signed", "s", "--member", "north", "--out", "o"),
        ],
    )
    def test_what_does_not_go_together_is_refused_before_any_key_is_read(
        self, tmp_path, monkeypatch, arguments
    ):
        monkeypatch.chdir(tmp_path)
        refused(node("grant", *arguments), "HANSA-104", "hansa node grant --help")
        assert list(tmp_path.iterdir()) == []

    def test_a_record_is_one_record(self, north, tmp_path) -> None:
        """A budget is for life: one that fits no agreement is refused before anybody signs it."""
        assert grant(north, numbers=NUMBERS[:6]).data["max_records_per_unit"] == 1
        four = (*NUMBERS[:-1], "4")
        refused(grant(north, numbers=four), "HANSA-402", "holds 1 record, not 4")
        out = tmp_path / "g"
        elsewhere = ("grant", "--member", "north", *four, "--officer-key", key(north), "--out", out)
        refused(node(*elsewhere), "HANSA-402")
        assert not out.exists()
        refused(grant(north, numbers=("--epsilon", "4", "--delta", "1e-6", "--unit", "patient")), "HANSA-104")
        assert len(hansa_budget(north)["datasets"]) == 1

    def test_a_file_for_a_record_of_many_is_not_taken(self, north, tmp_path) -> None:
        signer = Signer.load(officer_of("north"), key(north))
        said = granted(
            limits(4.0), member="north", unit="patient", max_records_per_unit=4, at=utc(datetime.now(UTC))
        )
        entry = SignedEntry.sign(said.model_copy(update={"unit": "record"}), signer)
        file = tmp_path / "old.grant"
        file.write_text(entry_lines(entry))
        refused(node("grant", "--home", north, "--signed", file), "HANSA-402", "not 4")

    @pytest.mark.parametrize(
        ("colluding", "words"), [("0.5", "ε = 0.5 is what holds"), ("9", "never matters")]
    )
    def test_a_second_limit_is_set_beside_the_first(self, north, colluding, words) -> None:
        more = ("--colluding", "1", "--epsilon-colluding", colluding)
        assert words in grant(north, *more).data["remark"]
        assert (
            words
            in hansa("node", "grant", "--home", north, *NUMBERS, "--officer-key", key(north), *more).stdout
        )
        assert grant(north).data["remark"] is None

    def test_delta_that_add_up_to_one_are_refused_before_anything_is_written(self, north) -> None:
        numbers = ("--epsilon", "4", "--delta", "0.6", *NUMBERS[4:])
        assert grant(north, numbers=numbers).status == 0
        refused(grant(north, numbers=numbers), "HANSA-402")
        assert len(hansa_budget(north)["datasets"]) == 1

    def test_nothing_secret_is_shown(self, north, tmp_path) -> None:
        shown = [grant(north, "--out", tmp_path / "g"), node("budget", "--home", north)]
        text = (
            "".join(called.stdout + called.stderr for called in shown).encode()
            + (tmp_path / "g").read_bytes()
        )
        secrets = {**secrets_of(north), **secrets_of(tmp_path / "officer")}
        assert len(secrets) >= 15
        assert [place for place, secret in secrets.items() if secret in text] == []


def hansa_budget(north: Path, *arguments: str | Path) -> dict[str, Any]:
    return node("budget", "--home", north, *arguments).data


class TestBudget:
    def test_granted_reserved_spent_and_remaining(self, north) -> None:
        grant(north, "--reservations", "3")
        spent(north)
        data = hansa_budget(north)
        assert data["signatures_verified"] is True
        (dataset,) = data["datasets"]
        (limit,) = dataset["limits"]
        assert (limit["epsilon"], limit["delta"]) == (4.0, 1e-6)
        assert 0 < limit["spent"] <= limit["spent"] + limit["reserved"] < 4.0
        assert limit["spent"] + limit["reserved"] + limit["remaining"] == pytest.approx(4.0)
        (run,) = dataset["runs"]
        assert (run["run"], run["agreement"], run["state"]) == (RUN, AGREEMENT, "open")
        assert (run["reserved"], run["released"]) == ({"training": 20}, {"training": 6})
        assert dataset["agreements"] == [{"agreement": AGREEMENT, "epsilon": run["epsilon"]}]
        text = hansa("node", "budget", "--home", north).stdout
        assert "training 6 of 20 released; all of it counts" in text
        assert "every entry is signed as it must be" in text

    def test_a_ledger_alone_says_the_same(self, north, tmp_path) -> None:
        grant(north)
        spent(north)
        alone = node("budget", "--ledger", north / "state" / "ledger.sqlite").data
        assert alone.pop("signatures_verified") is False
        assert alone["source"].endswith("ledger.sqlite")
        of_home = hansa_budget(north)
        assert {key: of_home[key] for key in ("datasets", "in_all", "member")} == {
            key: alone[key] for key in ("datasets", "in_all", "member")
        }
        text = hansa("node", "budget", "--ledger", north / "state" / "ledger.sqlite").stdout
        assert "hansa audit verify" in text

    def test_it_is_read_beside_a_node_that_runs_and_changes_nothing(self, north) -> None:
        grant(north)
        home = read_home(north)
        with ledger_of(home) as ledger:
            before = ledger.log.root
            assert hansa_budget(north)["datasets"][0]["runs"] == []
            assert node("budget", "--ledger", home.ledger).status == 0
            refused(grant(north), "HANSA-747", "in use by another process", status=ExitStatus.FAILED)
            ledger.sign_agreement(
                AGREEMENT, terms_id="b2" * 32, roster_sha256="c3" * 32, witness_key=home.witness_signer().key
            )
            ledger.reserve(AGREEMENT, RUN, [CHARGE], Protection("record", 1))
            assert len(hansa_budget(north)["datasets"][0]["runs"]) == 1
            assert ledger.log.root != before

    def test_a_copy_on_a_medium_that_cannot_be_written_is_read(self, north, tmp_path) -> None:
        grant(north)
        spent(north)
        copy = tmp_path / "copy"
        copy.mkdir()
        (copy / "ledger.sqlite").write_bytes((north / "state" / "ledger.sqlite").read_bytes())
        copy.chmod(0o500)
        try:
            assert len(node("budget", "--ledger", copy / "ledger.sqlite").data["datasets"]) == 1
        finally:
            copy.chmod(0o700)

    def test_a_home_without_a_ledger_says_what_to_do(self, north) -> None:
        refused(
            node("budget", "--home", north),
            "HANSA-752",
            "nothing was granted yet, or it was lost",
            f"hansa node grant --home {north} --officer-key FILE",
            f"hansa node grant --home {north} --signed FILE",
            status=ExitStatus.REFUSED,
        )

    @pytest.mark.parametrize(
        ("name", "words"),
        [("absent.sqlite", "no log at"), ("node.toml", "no log of"), ("state", "is a folder"), ("", "")],
    )
    def test_what_is_no_ledger_is_bad_input(self, north, name, words) -> None:
        refused(node("budget", "--ledger", north / name), "HANSA-104", words, ".sqlite file of a log")

    def test_the_database_of_another_program_is_bad_input(self, north, tmp_path) -> None:
        with closing(sqlite3.connect(tmp_path / "other.sqlite")) as other:
            other.execute("CREATE TABLE things (one INTEGER)")
        refused(node("budget", "--ledger", tmp_path / "other.sqlite"), "HANSA-104", "is no log of Hansa")

    def test_an_empty_ledger_has_granted_nothing(self, tmp_path) -> None:
        SqliteLogStore.create(tmp_path / "l.sqlite").close()
        assert node("budget", "--ledger", tmp_path / "l.sqlite").data["datasets"] == []
        assert "Nothing was granted" in hansa("node", "budget", "--ledger", tmp_path / "l.sqlite").stdout

    def test_what_does_not_go_together_is_refused(self, north) -> None:
        refused(node("budget"), "HANSA-104")
        refused(node("budget", "--home", north, "--ledger", north), "HANSA-104")
        grant(north)
        refused(node("budget", "--home", north, "--dataset", "x"), "HANSA-104", "no dataset x")

    def test_a_grant_under_another_officers_card_is_told_with_its_place(self, north, tmp_path) -> None:
        grant(north)
        card = node("officer", "north", "--out", tmp_path / "other").data["card"]
        (north / "north.officer.pub").write_bytes(Path(card).read_bytes())
        refused(
            node("budget", "--home", north), "HANSA-746", "entry 0", status=ExitStatus.VERIFICATION_FAILED
        )

    def test_a_key_that_an_amendment_replaced_still_counts_for_what_it_signed(self, north, tmp_path) -> None:
        grant(north)
        spent(north)
        old = node("init", "north", "--home", tmp_path / "new").data
        before = read_home(north).signer().public_key
        (tmp_path / "new" / "identity.key").replace(north / "identity.key")
        refused(node("budget", "--home", north), "HANSA-746", status=ExitStatus.VERIFICATION_FAILED)
        toml = north / "node.toml"
        toml.write_text(f'former_keys = ["{before}"]\n' + toml.read_text())
        assert hansa_budget(north)["datasets"][0]["runs"][0]["run"] == RUN
        assert read_home(north).signer().public_key == old["public_key"] != before


class TestForecast:
    @pytest.fixture
    def agreement(self, tmp_path: Path) -> Path:
        path = tmp_path / "league.toml"
        path.write_text(agreement_toml(terms()), encoding="utf-8")  # ε = 5 at δ = 1e-3, 4 rounds
        return path

    def granted(self, north: Path, epsilon: str, delta: str = "1e-3") -> str:
        numbers = ("--epsilon", epsilon, "--delta", delta, *NUMBERS[4:])
        made = grant(north, numbers=numbers).data
        return str(made["dataset"])

    def test_all_rounds_fit(self, north, agreement) -> None:
        dataset = self.granted(north, "5")
        called = node("budget", "--home", north, "--forecast", agreement)
        assert called.status == 0
        told = called.data["forecast"]
        assert (told["rounds"], told["affordable_rounds"], told["fits"], told["refused"]) == (
            4,
            4,
            True,
            None,
        )
        assert called.data["chosen"] == dataset

    def test_status_3_where_they_do_not_and_how_many_would(self, north, agreement) -> None:
        self.granted(north, "4")
        called = node("budget", "--home", north, "--forecast", agreement)
        assert (called.status, called.envelope["status"]) == (ExitStatus.REFUSED, "refused")
        told = called.data["forecast"]
        assert 0 < told["affordable_rounds"] < 4
        assert told["noise_multiplier_needed"] > told["noise_multiplier"]
        text = hansa("node", "budget", "--home", north, "--forecast", agreement).stdout
        assert f"{told['affordable_rounds']} of 4 rounds fit" in text

    def test_nothing_is_written_by_looking(self, north, agreement) -> None:
        self.granted(north, "5")
        before = hansa_budget(north)
        node("budget", "--home", north, "--forecast", agreement)
        assert hansa_budget(north) == before

    def test_the_dataset_that_was_granted_last_unless_another_is_named(self, north, agreement) -> None:
        rich = self.granted(north, "5")
        poor = self.granted(north, "1")
        looked = ("budget", "--home", north, "--forecast", agreement)
        assert (node(*looked).status, node(*looked).data["chosen"]) == (ExitStatus.REFUSED, poor)
        assert (node(*looked, "--dataset", rich).status, node(*looked, "--dataset", rich).data["chosen"]) == (
            0,
            rich,
        )

    def test_an_agreement_that_protects_something_else_fits_in_no_round(self, north, agreement) -> None:
        numbers = ("--epsilon", "50", "--delta", "1e-3", "--unit", "patient", "--max-records", "3")
        grant(north, numbers=numbers)
        called = node("budget", "--home", north, "--forecast", agreement)
        assert called.status == ExitStatus.REFUSED
        told = called.data["forecast"]
        assert (told["fits"], told["affordable_rounds"]) == (False, 0)
        assert "patient with at most 3 records" in told["refused"]

    def test_of_a_frozen_agreement_the_frozen_noise_counts(self, north, tmp_path) -> None:
        self.granted(north, "5")
        frozen = tmp_path / "league.frozen.toml"
        frozen.write_text(agreement_toml(pinned()), encoding="utf-8")  # frozen with noise that is too small
        called = node("budget", "--home", north, "--forecast", frozen)
        assert called.status == ExitStatus.REFUSED
        assert called.data["forecast"]["noise_multiplier"] == 1.0

    def test_an_agreement_without_privacy_has_no_price(self, north, tmp_path) -> None:
        self.granted(north, "5")
        path = tmp_path / "open.toml"
        path.write_text(agreement_toml(terms(privacy={"mechanism": "none"})), encoding="utf-8")
        refused(
            node("budget", "--home", north, "--forecast", path), "HANSA-402", "without privacy has no price"
        )
        refused(node("budget", "--home", north, "--forecast", tmp_path / "absent"), "HANSA-101")

    def test_of_a_ledger_without_a_grant_nothing_is_afforded(self, agreement, tmp_path) -> None:
        SqliteLogStore.create(tmp_path / "l.sqlite").close()
        called = node("budget", "--ledger", tmp_path / "l.sqlite", "--forecast", agreement)
        refused(called, "HANSA-752", status=ExitStatus.REFUSED)
