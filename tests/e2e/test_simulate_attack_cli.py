"""`hansa simulate --attack`: in the report, in a member's log, and in what an audit says of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hansa.privacy.randomness import SecretRandomness
from hansa.report import read_report
from support.cli import TERMS, hansa, league_on_disk


def test_report_ledger_and_audit_say_the_same(tmp_path: Path) -> None:
    agreement, out = league_on_disk(tmp_path), tmp_path / "out"
    called = hansa("simulate", agreement, "--data", tmp_path, "--attack", "--out", out, "--format", "json")
    assert called.status == 0, called.stderr
    attack = read_report(out / "report.json").attack
    assert attack is not None
    assert (attack.member, attack.kind, attack.canaries, attack.seed) == ("a", "gradients", 10_000, 0)
    assert not attack.contradicts
    assert 0 < attack.epsilon_lower_bound < (attack.epsilon_claimed or 0) < attack.ceiling
    assert "An attack on the trainer" in (out / "report.html").read_text(encoding="utf-8")

    verified = hansa("audit", "verify", out / "ledgers", "--report", out / "report.json", "--format", "json")
    assert verified.status == 0, verified.stdout
    assert hansa("audit", "report", out / "ledgers", "--out", tmp_path / "audit.json").status == 0
    empirical = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))["empirical"]
    (told,) = empirical["attacks"]
    assert empirical["measured"] is True
    assert (told["member"], told["correct"], told["lower_bound"], told["contradicts"]) == (
        "a", attack.correct, attack.epsilon_lower_bound, False,
    )  # fmt: skip
    assert hansa("audit", "report", out / "ledgers", "--out", tmp_path / "audit.html").status == 0
    assert "not contradicted" in (tmp_path / "audit.html").read_text(encoding="utf-8")


def test_a_broken_trainer_fails_the_run_and_the_audit_report_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise of a tenth, enough to move weights: the run itself looks well."""
    real = SecretRandomness.noise
    monkeypatch.setattr(
        SecretRandomness,
        "noise",
        lambda self, sigma, size: np.rint(real(self, sigma, size) / 10).astype(np.int64),
    )
    agreement, out = league_on_disk(tmp_path), tmp_path / "out"
    called = hansa("simulate", agreement, "--data", tmp_path, "--attack", "--out", out)
    assert called.status == 1
    assert "CONTRADICTED" in called.stdout
    assert "its ε is contradicted" in (out / "report.html").read_text(encoding="utf-8")
    audited = hansa("audit", "report", out / "ledgers", "--out", tmp_path / "audit.json")
    assert audited.status == 4
    assert "(attack)" in audited.stdout
    empirical = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))["empirical"]
    assert empirical["attacks"][0]["contradicts"] is True
    assert empirical["why"].startswith("An attack contradicts the stated ε")


@pytest.mark.parametrize("option", ["--no-dp", "--baseline=pooled"])
def test_what_claims_nothing_or_is_no_federation_is_not_attacked(tmp_path: Path, option: str) -> None:
    called = hansa(
        "simulate", league_on_disk(tmp_path), "--data", tmp_path, "--attack", option, "--format", "json"
    )
    assert called.status == 2
    assert called.envelope["error"]["code"] == "HANSA-104"


def test_batches_that_are_not_poisson_are_not_attacked(tmp_path: Path) -> None:
    """Told before anything is trained."""
    agreement = league_on_disk(
        tmp_path, terms=TERMS.replace("steps = 8", 'steps = 8\nsampling = "fixed-batches"')
    )
    called = hansa("simulate", agreement, "--data", tmp_path, "--attack", "--format", "json")
    assert called.status == 2
    assert "fixed-batches" in called.envelope["error"]["cause"]


def test_without_the_option_nothing_is_attacked(tmp_path: Path) -> None:
    agreement, out = league_on_disk(tmp_path), tmp_path / "out"
    assert hansa("simulate", agreement, "--data", tmp_path, "--out", out).status == 0
    assert read_report(out / "report.json").attack is None
