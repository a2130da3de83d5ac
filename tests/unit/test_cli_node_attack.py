"""`hansa node attack` through the command line, into a node's ledger and out of it again."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from hansa.agreement.freezing import freeze_with
from hansa.agreement.roster import pin
from hansa.agreement.writing import agreement_toml
from hansa.audit.attacks import verdict_of
from hansa.ledger import AttackMade, LogView, SignedEntry, SqliteLogStore
from hansa.models import build_model
from hansa.privacy.attack import MOST_CANARIES
from hansa.privacy.randomness import SecretRandomness
from support.cli import Called, hansa
from support.identities import home, roster, terms
from support.leagues import terms_of

ONE = {"epsilon": 1.0, "delta": 1e-5, "sampling_rate": 1.0, "steps": 4}


# Noise is secret, so a right trainer is accused once in 500 times at 95 % and 1,000 canaries. Not in these tests.
SURE = ("--confidence", "0.999999")


def attack(*arguments: str | Path) -> Called:
    return hansa("node", "attack", *SURE, *arguments, "--count", "1000", "--format", "json")


@pytest.fixture(scope="module")
def agreement(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frozen with keys, on the small logistic model."""
    path = tmp_path_factory.mktemp("agreement") / "league.frozen.toml"
    asked = terms(privacy=ONE)
    built = build_model(asked.terms)
    frozen = freeze_with(asked, built, built.initial_vector())
    path.write_text(agreement_toml(pin(frozen, roster())), encoding="utf-8")
    return path


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SecretRandomness, "noise", lambda _self, _sigma, size: np.zeros(size, dtype=np.int64))


def attacks_in(node: Path) -> list[AttackMade]:
    with closing(SqliteLogStore(node / "state" / "ledger.sqlite", read_only=True)) as store:
        entries = [SignedEntry.parse(data).entry for data in LogView(store).entries()]
    return [entry for entry in entries if isinstance(entry, AttackMade)]


def test_it_tells_bound_claim_and_ceiling(agreement: Path) -> None:
    called = attack(agreement, "--seed", "3")
    assert called.status == 0, called.stderr
    data = called.data
    assert (data["member"], data["kind"], data["canaries"], data["seed"]) == ("alpha", "gradients", 1000, 3)
    assert 0 <= data["epsilon_lower_bound"] < data["epsilon_claimed"] <= 1.0 < data["ceiling"]
    assert (data["contradicts"], data["recorded"]) == (False, False)
    assert "code" not in data


def test_for_people_it_says_what_it_cannot_find(agreement: Path) -> None:
    called = hansa("node", "attack", agreement, "--count", "400", *SURE)
    assert called.status == 0, called.stderr
    for words in ("Lower bound: ε ≥", "Ceiling", "Not contradicted", "It cannot find", "alpha"):
        assert words in called.stdout


def test_a_contradiction_ends_with_status_1_and_its_code(agreement: Path, broken: None) -> None:
    called = attack(agreement)
    assert called.status == 1
    assert called.envelope["status"] == "failed"
    assert (called.data["code"], called.data["contradicts"]) == ("HANSA-403", True)
    told = hansa("node", "attack", agreement, "--count", "1000")
    assert told.status == 1
    assert "CONTRADICTED" in told.stdout
    assert "HANSA-403" in told.stdout


def test_generated_units_in_the_agreements_model(agreement: Path) -> None:
    called = attack(agreement, "--canaries", "units", "--member", "beta")
    assert called.status == 0, called.stderr
    assert (called.data["kind"], called.data["member"]) == ("units", "beta")
    assert called.data["detectable_noise"] is None


def test_the_result_is_signed_into_the_ledger_and_says_the_same_there(
    agreement: Path, tmp_path: Path
) -> None:
    node = home(tmp_path / "beta", "beta")
    refused = attack(agreement, "--home", node)
    assert refused.status == 3
    assert refused.envelope["error"]["code"] == "HANSA-752"  # nothing was ever signed there
    assert hansa("agreement", "sign", agreement, "--home", node).status == 0
    called = attack(agreement, "--home", node)
    assert called.status == 0, called.stderr
    assert (called.data["member"], called.data["recorded"], called.data["seed"]) == ("beta", True, None)
    (entry,) = attacks_in(node)
    assert (entry.member, entry.correct, entry.seed) == ("beta", called.data["correct"], None)
    verdict = verdict_of(entry)
    assert verdict.epsilon == called.data["epsilon_lower_bound"]
    assert verdict.design.ceiling == called.data["ceiling"]
    assert attack(agreement, "--home", node).status == 0
    assert len(attacks_in(node)) == 2


def test_a_contradiction_is_recorded_too(agreement: Path, tmp_path: Path, broken: None) -> None:
    node = home(tmp_path / "gamma", "gamma")
    assert hansa("agreement", "sign", agreement, "--home", node).status == 0
    assert attack(agreement, "--home", node).status == 1
    (entry,) = attacks_in(node)
    assert verdict_of(entry).contradicts


class TestRefusals:
    def error(self, called: Called, status: int) -> dict[str, str]:
        assert called.status == status, called.stdout + called.stderr
        error: dict[str, str] = called.envelope["error"]
        return error

    def test_own_records_are_not_attacked_for_nothing(self, agreement: Path, tmp_path: Path) -> None:
        error = self.error(attack(agreement, "--data", tmp_path), 3)
        assert error["code"] == "HANSA-401"
        assert "own records" in error["cause"]

    def test_a_stranger(self, agreement: Path, tmp_path: Path) -> None:
        assert "no member" in self.error(attack(agreement, "--member", "nobody"), 2)["cause"]
        node = home(tmp_path / "beta", "beta")
        assert (
            "not of 'alpha'" in self.error(attack(agreement, "--home", node, "--member", "alpha"), 2)["cause"]
        )

    def test_a_confidence_that_is_none(self, agreement: Path) -> None:
        assert self.error(attack(agreement, "--confidence", "1"), 2)["code"] == "HANSA-402"

    def test_more_canaries_than_an_audit_would_look_at(self, agreement: Path) -> None:
        assert hansa("node", "attack", agreement, "--count", str(MOST_CANARIES + 1)).status == 2

    def test_an_agreement_that_is_not_frozen_or_claims_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "terms.toml"
        path.write_text(agreement_toml(terms_of()), encoding="utf-8")
        assert self.error(attack(path), 2)["code"] == "HANSA-101"
        asked = terms_of(privacy={"mechanism": "none", "epsilon": None, "delta": None})
        built = build_model(asked.terms)
        path.write_text(agreement_toml(freeze_with(asked, built, built.initial_vector())), encoding="utf-8")
        assert "claims nothing" in self.error(attack(path), 2)["cause"]
