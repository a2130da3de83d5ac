"""What members do to their own logs, and keys that do not count: `hansa audit verify` names the entry with status 4."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from hansa.identity import Amendment, Signer
from hansa.ledger import (
    AmendmentMade,
    Charging,
    NoteSigner,
    RunClosed,
    SignatureType,
    SignedEntry,
    Spending,
    officer_of,
    real,
)
from hansa.privacy.charges import Charge
from hansa.privacy.events import Spend
from support.auditing import audited, failure_of, failures, named, with_one, without
from support.audits import (
    AGREEMENT,
    CHARGE,
    DATASETS,
    EVENT,
    FEDERATION_SIGNER,
    KEYS,
    MEMBERS,
    ROSTER,
    RUN,
    SIGNERS,
    STEPS,
    WITNESSES,
    Story,
    at,
    changed,
    entry_of,
    reworded,
    signed,
    story,
    write_log,
)
from support.cli import hansa

TRUTH = story()
VICTIM = MEMBERS[1]
RELEASE = TRUTH.find("federation", "release", member=VICTIM, round=2)
OWN_RELEASE = TRUTH.find(VICTIM, "release", round=2)


def changed_by_officer(data: bytes, **changes: Any) -> bytes:
    return signed(reworded(data, **changes))


class TestAMemberThatLies:
    def test_it_under_reports_its_events(self, tmp_path: Path) -> None:
        own = TRUTH.own[VICTIM]
        less = changed(own[OWN_RELEASE], spends=(Spending.of(Spend(EVENT, 1)),))
        failure = failure_of(
            audited(TRUTH.with_own(VICTIM, with_one(own, OWN_RELEASE, less)).write(tmp_path)),
            f"members/{VICTIM}",
        )
        assert (failure["entry"], failure["type"]) == (OWN_RELEASE, "release")
        assert failure["beside"] == {"log": "federation", "entry": RELEASE}

    def test_it_reports_more_noise_than_it_reserved(self, tmp_path: Path) -> None:
        own = TRUTH.own[VICTIM]
        noisier = {**EVENT, "event": {"type": "Gaussian", "noise_multiplier": 9.0}}
        less = changed(own[OWN_RELEASE], spends=(Spending.of(Spend(noisier, STEPS)),))
        failure = failure_of(
            audited(TRUTH.with_own(VICTIM, with_one(own, OWN_RELEASE, less)).write(tmp_path)),
            f"members/{VICTIM}",
        )
        assert (failure["entry"], "other events" in failure["what"]) == (OWN_RELEASE, True)

    def test_it_closes_a_run_with_less_than_it_released(self, tmp_path: Path) -> None:
        own = TRUTH.own[VICTIM]
        index = TRUTH.find(VICTIM, "closed")
        less = changed(own[index], released={"training": STEPS})
        failure = failure_of(
            audited(TRUTH.with_own(VICTIM, with_one(own, index, less)).write(tmp_path)), f"members/{VICTIM}"
        )
        assert (failure["entry"], failure["type"]) == (index, "closed")

    def test_it_drops_a_release_from_its_own_log(self, tmp_path: Path) -> None:
        told = TRUTH.with_own(VICTIM, without(TRUTH.own[VICTIM], OWN_RELEASE))
        failure = failure_of(audited(told.write(tmp_path)), "federation")
        assert (failure["entry"], failure["beside"]["entry"]) == (RELEASE, OWN_RELEASE)

    def test_it_grants_itself_a_budget(self, tmp_path: Path) -> None:
        own = TRUTH.own[VICTIM]
        more = reworded(own[0], epsilon=real(50.0))
        forged = SignedEntry.sign(more, Signer.generate(officer_of(VICTIM))).encoded
        failure = failure_of(
            audited(TRUTH.with_own(VICTIM, with_one(own, 0, forged)).write(tmp_path)), f"members/{VICTIM}"
        )
        assert (failure["entry"], failure["type"]) == (0, "budget")
        assert "not granted by its officer" in failure["what"]

    def test_it_is_granted_a_budget_twice(self, tmp_path: Path) -> None:
        own = TRUTH.own[VICTIM]
        again = changed_by_officer(own[0], epsilon=real(50.0))
        failure = failure_of(
            audited(TRUTH.with_own(VICTIM, [*own, again]).write(tmp_path)), f"members/{VICTIM}"
        )
        assert (failure["entry"], failure["type"]) == (len(own), "budget")

    def test_it_reserves_more_than_it_was_granted(self, tmp_path: Path) -> None:
        own = TRUTH.own[VICTIM]
        index = TRUTH.find(VICTIM, "reservation")
        greedy = Charging.of(Charge("training", EVENT, 2000))
        more = changed(own[index], run="run-2", charges=(greedy,), at=at(70))
        told = TRUTH.with_own(VICTIM, [*own, more]).with_federation([*TRUTH.federation, more])
        failure = failure_of(audited(told.write(tmp_path)), f"members/{VICTIM}")
        assert (failure["entry"], failure["type"]) == (len(own), "reservation")
        assert "remains" in failure["what"]

    def test_it_releases_more_than_it_reserved(self, tmp_path: Path) -> None:
        told = story(2, close=False)
        more = changed(
            told.own[VICTIM][-1], round=99, at=at(60), spends=(Spending.of(Spend(EVENT, CHARGE.count)),)
        )
        told = told.with_own(VICTIM, [*told.own[VICTIM], more]).with_federation([*told.federation, more])
        called = audited(told.write(tmp_path))
        assert named(called) == {
            (f"members/{VICTIM}", len(told.own[VICTIM]) - 1, "release"),
            ("federation", len(told.federation) - 1, "release"),
        }

    def test_it_releases_after_it_closed_the_run(self, tmp_path: Path) -> None:
        own = TRUTH.own[VICTIM]
        told = TRUTH.with_own(VICTIM, [*own, changed(own[OWN_RELEASE], round=99)])
        failure = failure_of(audited(told.write(tmp_path)), f"members/{VICTIM}")
        assert (failure["entry"], "was closed" in failure["what"]) == (len(own), True)

    def test_it_uses_a_round_twice(self, tmp_path: Path) -> None:
        told = story(2, close=False)
        twice = changed(told.own[VICTIM][-1], y_sha256="e5" * 32)
        told = told.with_own(VICTIM, [*told.own[VICTIM], twice]).with_federation([*told.federation, twice])
        assert ("federation", len(told.federation) - 1, "release") in named(audited(told.write(tmp_path)))

    def test_it_signs_an_agreement_with_other_keys(self, tmp_path: Path) -> None:
        own = TRUTH.own[VICTIM]
        other = NoteSigner.generate(WITNESSES[VICTIM].key.name, SignatureType.WITNESS)
        forged = changed(own[1], witness_key=other.key.text)
        failure = failure_of(
            audited(TRUTH.with_own(VICTIM, with_one(own, 1, forged)).write(tmp_path)), f"members/{VICTIM}"
        )
        assert (failure["entry"], "witness key" in failure["what"]) == (1, True)


class TestKeysThatDoNotCount:
    def revoked(self) -> Story:
        """The victim's key is revoked between the second and the third round."""
        index = TRUTH.find("federation", "aggregate", round=2) + 1
        change = Amendment(AGREEMENT, 1, ROSTER.sha256, "revoke", VICTIM, reason="laptop stolen")
        approvals = {name: change.sign(SIGNERS[name]) for name in MEMBERS if name != VICTIM}
        entry = signed(AmendmentMade.of(change, approvals, at(25)))
        return TRUTH.with_federation([*TRUTH.federation[:index], entry, *TRUTH.federation[index:]])

    def test_a_signature_by_a_revoked_key(self, tmp_path: Path) -> None:
        told = self.revoked()
        failure = failure_of(audited(told.write(tmp_path)), "federation")
        assert failure["entry"] == told.find("federation", "release", member=VICTIM, round=3)
        assert "revoked" in failure["what"]

    def replaced(self, key: Signer) -> tuple[AmendmentMade, Story]:
        """The victim's key is replaced before it closes its run, which it signs with the new one in both logs."""
        change = Amendment(AGREEMENT, 1, ROSTER.sha256, "replace-key", VICTIM, key.public_key, "rotated")
        made = AmendmentMade.of(
            change, {name: change.sign(SIGNERS[name]) for name in MEMBERS if name != VICTIM}, at(95)
        )
        index, last = TRUTH.find("federation", "closed", member=VICTIM), TRUTH.find(VICTIM, "closed")
        closed = SignedEntry.sign(entry_of(TRUTH.federation[index]), key).encoded
        federation = [*TRUTH.federation[:index], signed(made), closed, *TRUTH.federation[index + 1 :]]
        return made, TRUTH.with_own(VICTIM, with_one(TRUTH.own[VICTIM], last, closed)).with_federation(
            federation
        )

    @pytest.mark.parametrize("noted", [False, True], ids=["", "and its own log holds the amendment too"])
    def test_an_honest_member_whose_key_was_replaced_is_not_accused(
        self, tmp_path: Path, noted: bool
    ) -> None:
        made, told = self.replaced(Signer.generate(VICTIM))
        if noted:
            own = told.own[VICTIM]
            told = told.with_own(VICTIM, [*own[:-1], signed(made), own[-1]])
        ledgers = told.write(tmp_path)
        # In whichever order the copies are named.
        for paths in ([ledgers], [ledgers / "members", ledgers / "federation", ledgers / "rounds.jsonl"]):
            called = audited(paths[0], *paths[1:])
            assert (called.status, called.data["failures"]) == (0, []), called.stdout

    def test_a_key_counts_only_if_the_federation_made_it_one(self, tmp_path: Path) -> None:
        _, told = self.replaced(Signer.generate(VICTIM))
        forged = SignedEntry.sign(entry_of(told.own[VICTIM][OWN_RELEASE]), Signer.generate(VICTIM)).encoded
        told = told.with_own(VICTIM, with_one(told.own[VICTIM], OWN_RELEASE, forged))
        failure = failure_of(audited(told.write(tmp_path)), f"members/{VICTIM}")
        assert (failure["entry"], failure["type"]) == (OWN_RELEASE, "release")

    @pytest.mark.parametrize("early", [True, False], ids=["new key before", "old key after"])
    def test_a_key_that_is_used_outside_its_time(self, tmp_path: Path, early: bool) -> None:
        key = Signer.generate(VICTIM)
        _, told = self.replaced(key)
        last = len(told.own[VICTIM]) - 1
        place = OWN_RELEASE if early else last
        index = RELEASE if early else told.find("federation", "closed", member=VICTIM)
        wrong = SignedEntry.sign(entry_of(told.own[VICTIM][place]), key if early else SIGNERS[VICTIM]).encoded
        own = told.with_own(VICTIM, with_one(told.own[VICTIM], place, wrong))
        both = own.with_federation(with_one(told.federation, index, wrong))
        assert failure_of(audited(both.write(tmp_path / "both")), "federation")["entry"] == index
        failure = failure_of(audited(own.write(tmp_path / "own")), f"members/{VICTIM}")
        assert (failure["entry"], failure["beside"]) == (place, {"log": "federation", "entry": index})

    def test_an_amendment_that_too_few_approved(self, tmp_path: Path) -> None:
        change = Amendment(AGREEMENT, 1, ROSTER.sha256, "revoke", VICTIM, reason="a whim")
        approvals = {MEMBERS[0]: change.sign(SIGNERS[MEMBERS[0]])}
        told = TRUTH.with_federation([*TRUTH.federation, signed(AmendmentMade.of(change, approvals, at(99)))])
        failure = failure_of(audited(told.write(tmp_path)), "federation")
        assert (failure["entry"], failure["type"]) == (len(TRUTH.federation), "amendment")

    @pytest.mark.parametrize("log", ["federation", VICTIM])
    def test_a_signature_by_a_foreign_key(self, tmp_path: Path, log: str) -> None:
        entries, index = (TRUTH.federation, RELEASE) if log == "federation" else (TRUTH.own[log], OWN_RELEASE)
        forged = SignedEntry.sign(entry_of(entries[index]), Signer.generate(VICTIM)).encoded
        told = (
            TRUTH.with_federation(with_one(entries, index, forged))
            if log == "federation"
            else TRUTH.with_own(log, with_one(entries, index, forged))
        )
        failure = failure_of(
            audited(told.write(tmp_path)), "federation" if log == "federation" else f"members/{log}"
        )
        assert (failure["entry"], failure["type"]) == (index, "release")

    def test_a_log_that_another_key_signs(self, tmp_path: Path) -> None:
        ledgers = TRUTH.write(tmp_path)
        shutil.rmtree(ledgers / "federation")
        write_log(
            TRUTH.federation, NoteSigner.generate(FEDERATION_SIGNER.key.name), ledgers / "federation", MEMBERS
        )
        assert failure_of(audited(ledgers), "federation", entries=False)["entry"] is None

    def test_a_log_that_nobody_knows(self, tmp_path: Path) -> None:
        ledgers = TRUTH.write(tmp_path)
        write_log(TRUTH.federation, NoteSigner.generate("hansa.example/other"), ledgers / "other")
        assert [one for one in failures(audited(ledgers)) if "name no such log" in one["what"]]

    def test_cosignatures_of_strangers_do_not_count(self, tmp_path: Path) -> None:
        ledgers = TRUTH.write(tmp_path, witnesses=MEMBERS[:3])
        path = ledgers / "federation" / "checkpoint"
        stranger = NoteSigner.generate("hansa.example/stranger", SignatureType.WITNESS)
        text = path.read_text().split("\n\n")[0] + "\n"
        path.write_text(path.read_text() + stranger.sign(text, 5).line + "\n")
        assert "3 members" in failure_of(audited(ledgers), "federation", entries=False)["what"]

    def test_all_is_false_under_other_keys(self, tmp_path: Path) -> None:
        ledgers = TRUTH.write(tmp_path)
        members = {name: Signer.generate(name).public_key for name in MEMBERS}
        other = KEYS.model_copy(update={"members": members})
        type(KEYS).model_validate(other.model_dump()).write(tmp_path / "other.json")
        called = hansa("audit", "verify", ledgers, "--keys", tmp_path / "other.json", "--format", "json")
        assert {one["log"] for one in failures(called)} >= {
            "federation",
            *(f"members/{name}" for name in MEMBERS),
        }
        assert {one["entry"] for one in failures(called) if one["log"].startswith("members/")} == {1}


class TestClocks:
    def test_a_clock_that_went_back_is_noted_and_nothing_more(self, tmp_path: Path) -> None:
        told = story(2, close=False)
        close = RunClosed(
            at="2020-01-01T00:00:00Z",
            agreement_id=AGREEMENT,
            run=RUN,
            member=VICTIM,
            dataset_id=DATASETS[VICTIM],
            released={"training": 2 * STEPS},
        )
        data = signed(close)
        told = told.with_own(VICTIM, [*told.own[VICTIM], data]).with_federation([*told.federation, data])
        called = audited(told.write(tmp_path))
        assert called.status == 0, called.stdout
        remarks = {(one["log"], one["entry"]) for one in called.data["remarks"] if "clock" in one["what"]}
        assert remarks == {
            ("federation", len(told.federation) - 1),
            (f"members/{VICTIM}", len(told.own[VICTIM]) - 1),
        }
