"""The second verifier, written from docs/for-auditors.md alone, on good and on tampered logs: it and Hansa agree."""

from __future__ import annotations

import ast
import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hansa.identity import Amendment, Signer
from hansa.ledger import AmendmentMade, NoteSigner, SignedEntry, Spending, officer_of, real
from hansa.ledger.entry import event_text
from hansa.privacy.events import (
    EventJson,
    Spend,
    Truncation,
    gaussian,
    poisson_gaussian,
    truncated_poisson_gaussian,
)
from hansa.privacy.rdp import RdpAccountant
from hansa.privacy.renyi import epsilon_of_renyi, renyi_loss
from support.audits import (
    AGREEMENT,
    DATASETS,
    DELTA,
    EVENT,
    FEDERATION_SIGNER,
    KEYS,
    LATE,
    LOG_SIGNERS,
    MEMBERS,
    ROSTER,
    SIGNERS,
    STEPS,
    Story,
    at,
    changed,
    edited,
    reworded,
    signed,
    story,
    write_log,
)
from support.cli import hansa

VERIFIER = Path(__file__).parent / "independent_verifier.py"
TRUTH = story()
VICTIM = MEMBERS[1]
RELEASE = TRUTH.find("federation", "release", member=VICTIM, round=2)
AGGREGATE = TRUTH.find("federation", "aggregate", round=2)
OWN = TRUTH.find(VICTIM, "release", round=2)


def checked(ledgers: Path) -> subprocess.CompletedProcess[str]:
    """Run it as an auditor would: a Python that sees no package of Hansa's source tree."""
    return subprocess.run(
        [sys.executable, "-I", str(VERIFIER), str(ledgers), str(ledgers / "keys.json")],
        capture_output=True,
        text=True,
        check=False,
    )


def federation(change: Callable[[list[bytes]], list[bytes]]) -> Story:
    return TRUTH.with_federation(change(list(TRUTH.federation)))


def own(change: Callable[[list[bytes]], list[bytes]]) -> Story:
    return TRUTH.with_own(VICTIM, change(list(TRUTH.own[VICTIM])))


def put(index: int, data: bytes) -> Callable[[list[bytes]], list[bytes]]:
    return lambda entries: [*entries[:index], data, *entries[index + 1 :]]


def drop(index: int) -> Callable[[list[bytes]], list[bytes]]:
    return lambda entries: [*entries[:index], *entries[index + 1 :]]


def revoked() -> Story:
    change = Amendment(AGREEMENT, 1, ROSTER.sha256, "revoke", VICTIM, reason="laptop stolen")
    approvals = {name: change.sign(SIGNERS[name]) for name in MEMBERS if name != VICTIM}
    entry = signed(AmendmentMade.of(change, approvals, at(25)))
    return federation(lambda entries: [*entries[: AGGREGATE + 1], entry, *entries[AGGREGATE + 1 :]])


def grant() -> bytes:
    more = reworded(TRUTH.own[VICTIM][0], epsilon=real(50.0))
    return SignedEntry.sign(more, Signer.generate(officer_of(VICTIM))).encoded


LESS = changed(TRUTH.own[VICTIM][OWN], spends=(Spending.of(Spend(EVENT, 1)),))
FOREIGN = SignedEntry.sign(reworded(TRUTH.federation[RELEASE]), Signer.generate(VICTIM)).encoded
NO_RECEIPTS = json.dumps({**json.loads(TRUTH.records[2]), "receipts": []}, separators=(",", ":")).encode()

# name: what is told, and what the message names
TAMPERED: dict[str, tuple[Story, str]] = {
    "entry edited": (
        federation(put(RELEASE, edited(TRUTH.federation[RELEASE], step=9))),
        f"federation, entry {RELEASE}",
    ),
    "entry dropped": (federation(drop(RELEASE)), f"federation, entry {AGGREGATE - 1}"),
    "entry duplicated": (
        federation(lambda e: [*e, e[RELEASE]]),
        f"federation, entry {len(TRUTH.federation)}",
    ),
    "entries reordered": (
        federation(lambda e: [*e[:AGGREGATE], e[AGGREGATE + 1], e[AGGREGATE], *e[AGGREGATE + 2 :]]),
        f"federation, entry {TRUTH.find('federation', 'aggregate', round=3)}",
    ),
    "foreign key": (federation(put(RELEASE, FOREIGN)), f"federation, entry {RELEASE}"),
    "revoked key": (
        revoked(),
        f"federation, entry {revoked().find('federation', 'release', member=VICTIM, round=3)}",
    ),
    "sum of another vector": (
        federation(put(RELEASE, changed(TRUTH.federation[RELEASE], y_sha256="e5" * 32))),
        f"federation, entry {AGGREGATE}",
    ),
    "release dropped that no sum names": (
        federation(drop(TRUTH.find("federation", "release", member=LATE, round=3))),
        f"federation, entry {TRUTH.find('federation', 'aggregate', round=4) - 1}",  # its manifest's checkpoint
    ),
    "log cut": (
        TRUTH.with_federation(TRUTH.federation[: TRUTH.sizes[2]]),
        "a record is of no sum",
    ),
    "receipt hidden": (
        replace(TRUTH, records=(*TRUTH.records[:2], NO_RECEIPTS, TRUTH.records[3])),
        f"federation, entry {TRUTH.find('federation', 'aggregate', round=3)}",
    ),
    "another model": (
        federation(put(AGGREGATE, changed(TRUTH.federation[AGGREGATE], model_sha256="e5" * 32))),
        f"federation, entry {TRUTH.find('federation', 'aggregate', round=3)}",
    ),
    "events under-reported": (own(put(OWN, LESS)), f"federation, entry {RELEASE}"),
    "restored from a backup": (own(lambda e: e[:OWN]), f"federation, entry {RELEASE}"),
    "closed with less": (
        own(lambda e: [*e[:-1], changed(e[-1], released={"training": 1})]),
        f"{VICTIM}, entry {len(TRUTH.own[VICTIM]) - 1}",
    ),
    "budget forged": (own(put(0, grant())), f"{VICTIM}, entry 0"),
}


def test_it_accepts_an_honest_run_and_bounds_epsilon(tmp_path: Path) -> None:
    ran = checked(TRUTH.write(tmp_path))
    assert (ran.returncode, ran.stderr) == (0, "")
    accountant = RdpAccountant()
    assert ran.stdout.splitlines() == [
        f"{name}, dataset {DATASETS[name][:8]}: ε is at most "
        f"{accountant.epsilon([Spend(EVENT, STEPS * (3 if name == LATE else 4))], DELTA):.4f}"
        for name in MEMBERS
    ]


@pytest.mark.parametrize("what", list(TAMPERED))
def test_it_and_hansa_refuse_what_was_tampered_with(tmp_path: Path, what: str) -> None:
    told, place = TAMPERED[what]
    ledgers = told.write(tmp_path)
    ran = checked(ledgers)
    assert ran.returncode != 0
    assert place in ran.stderr.splitlines()[-1]
    assert hansa("audit", "verify", ledgers).status == 4


def test_a_clock_that_went_back_is_nothing_to_either(tmp_path: Path) -> None:
    told = story(2, close=False)
    late = changed(told.own[VICTIM][-1], round=9, step=8, at="2020-01-01T00:00:00Z")
    told = told.with_own(VICTIM, [*told.own[VICTIM], late]).with_federation([*told.federation, late])
    ledgers = told.write(tmp_path)
    assert checked(ledgers).returncode == 0
    assert hansa("audit", "verify", ledgers).status == 0


@pytest.mark.parametrize("number", [3, 0])
def test_too_few_cosignatures(tmp_path: Path, number: int) -> None:
    ledgers = TRUTH.write(tmp_path, witnesses=MEMBERS[:number])
    assert "too few have cosigned" in checked(ledgers).stderr


def test_a_log_that_another_key_signs(tmp_path: Path) -> None:
    ledgers = TRUTH.write(tmp_path)
    (ledgers / "federation" / "checkpoint").unlink()
    write_log(TRUTH.federation, NoteSigner.generate(FEDERATION_SIGNER.key.name), tmp_path / "false", MEMBERS)
    (ledgers / "federation" / "checkpoint").write_bytes((tmp_path / "false" / "checkpoint").read_bytes())
    assert "not by its log" in checked(ledgers).stderr


def test_it_reads_logs_of_more_than_one_bundle(tmp_path: Path) -> None:
    """Two full bundles and a partial one: a member that reserved many runs and closed them."""
    entries = list(TRUTH.own[VICTIM])
    entries[0] = signed(reworded(entries[0], rule={"rule": "renyi-filter", "order": 8}))
    reserved = entries[TRUTH.find(VICTIM, "reservation")]
    closed = entries[TRUTH.find(VICTIM, "closed")]
    for number in range(300):
        run = {"run": f"other-{number}", "agreement_id": "9" * 64}
        entries += [changed(reserved, **run), changed(closed, **run, released={"training": 0})]
    ledgers = TRUTH.write(tmp_path)
    write_log(entries, LOG_SIGNERS[VICTIM], tmp_path / "long")
    (ledgers / "members" / VICTIM).rename(tmp_path / "short")
    (tmp_path / "long").rename(ledgers / "members" / VICTIM)
    ran = checked(ledgers)
    assert (ran.returncode, ran.stderr) == (0, "")
    called = hansa("audit", "verify", ledgers, "--format", "json")
    assert called.status == 0, called.stdout
    assert any(seen["entries"] == len(entries) > 512 for seen in called.data["logs"])


def test_it_knows_nothing_of_hansa() -> None:
    tree = ast.parse(VERIFIER.read_text(encoding="utf-8"))
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
        if name is not None
    }
    assert "cryptography" in imported
    assert imported - {"cryptography"} <= sys.stdlib_module_names


def test_the_page_and_the_keys_name_the_same_members() -> None:
    page = (VERIFIER.parents[2] / "docs" / "for-auditors.md").read_text(encoding="utf-8")
    for name in type(KEYS).model_fields:
        assert f"`{name}`" in page, name


def test_the_page_names_every_type_of_entry_and_all_that_it_says() -> None:
    from hansa.ledger import kinds

    page = (VERIFIER.parents[2] / "docs" / "for-auditors.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("| `")}
    types = kinds.Kind.__args__[0].__args__
    assert len(types) >= 15
    for model in types:
        row = rows[f"`{model.model_fields['type'].default}`"]
        for name in set(model.model_fields) - {"type", "version", "at"}:
            assert f"`{name}`" in row, (model, name)


@pytest.mark.parametrize(
    "event",
    [
        gaussian(7.0),
        poisson_gaussian(0.05, 1.5),
        truncated_poisson_gaussian(0.05, 1.5, Truncation(1000, 60)),
        truncated_poisson_gaussian(0.05, 1.5, Truncation(1000, 40)),
        truncated_poisson_gaussian(0.2, 4.0, Truncation(50, 200)),
    ],
    ids=["gaussian", "poisson", "cut", "cut often", "never cut"],
)
def test_the_page_says_how_every_event_costs(event: EventJson) -> None:
    """Written from the page alone, the same ε as Hansa's closed form at the orders that both try."""
    theirs = runpy.run_path(str(VERIFIER), run_name="verifier")["epsilon"]([(event_text(event), 30)], 1e-6)
    orders = (*range(2, 65), 128, 256)
    ours = min(epsilon_of_renyi(renyi_loss([Spend(event, 30)], order), order, 1e-6) for order in orders)
    assert theirs == pytest.approx(ours, rel=1e-5)  # ours leaves room for what float64 loses of t


def test_the_page_names_every_kind_of_event() -> None:
    page = (VERIFIER.parents[2] / "docs" / "for-auditors.md").read_text(encoding="utf-8")
    for name in ("Gaussian", "PoissonSampled", "TruncatedPoissonSampled", "NonPrivate"):
        assert f'"type": "{name}"' in page, name
