"""A published package in which anything was changed, added, taken away, or put together by the wrong people."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hansa.artifact import verify_package
from hansa.artifact.errors import PackageError, PublicationExistsError
from hansa.artifact.signing import SIGNATURE, read_signature, write_signature
from hansa.canonical import sha256_hex
from hansa.errors import HansaError
from hansa.identity import COORDINATOR
from support.ledgers import MEMBERS, SIGNERS, fixed_signer
from support.packages import agreement_of, keys_of, published


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("publication") / "readmission"
    published(folder)
    return folder


@pytest.fixture
def copy(package, tmp_path) -> Path:
    return Path(shutil.copytree(package, tmp_path / "copy"))


@pytest.fixture(scope="module")
def keys():
    from support.packages import TERMS

    return keys_of(agreement_of(TERMS))


def resigned(folder: Path) -> None:
    """Sign whatever is there, as a coordinator that cheats would."""
    files = {p.name: sha256_hex(p.read_bytes()) for p in folder.iterdir() if p.name != SIGNATURE}
    (folder / SIGNATURE).write_bytes(write_signature("readmission", files, SIGNERS[COORDINATOR]))


def test_an_honest_package_is_accepted(package, keys):
    found = verify_package(package, keys)
    assert found.approved_by == MEMBERS[:3]
    assert len(found.cosigned_by) == 3
    assert not found.keys_of_package
    assert verify_package(package).keys_of_package


def test_a_changed_byte_is_found_in_every_file(package, copy, keys):
    names = sorted(path.name for path in package.iterdir())
    assert len(names) == 14
    for name in names:
        data = bytearray((package / name).read_bytes())
        for place in sorted({0, len(data) // 3, len(data) // 2, len(data) - 1}):
            changed = bytearray(data)
            changed[place] ^= 1
            (copy / name).write_bytes(changed)
            with pytest.raises(HansaError):
                verify_package(copy, keys)
        (copy / name).write_bytes(data)
    verify_package(copy, keys)


def test_every_byte_of_the_signature_counts(package, copy, keys):
    data = (package / SIGNATURE).read_bytes()
    for place in range(0, len(data), 7):
        changed = bytearray(data)
        changed[place] ^= 1
        with pytest.raises(PackageError):
            read_signature(bytes(changed), keys.coordinator)
    for other in (data + b"\n", data.replace(b",", b", ", 1), data.rstrip(b"\n")):
        with pytest.raises(PackageError):
            read_signature(other, keys.coordinator)


def test_a_file_more_and_a_file_less_are_found(package, copy, keys):
    (copy / "README.txt").write_text("hello")
    with pytest.raises(PackageError, match="not what was signed"):
        verify_package(copy, keys)
    (copy / "README.txt").unlink()
    for path in sorted(package.iterdir()):
        (copy / path.name).unlink()
        with pytest.raises(HansaError):
            verify_package(copy, keys)
        shutil.copy(path, copy / path.name)
    (copy / "folder").mkdir()
    with pytest.raises(PackageError, match="no package"):
        verify_package(copy, keys)
    (copy / "folder").rmdir()
    (copy / "model.onnx").unlink()
    (copy / "model.onnx").symlink_to(package / "model.onnx")
    with pytest.raises(PackageError, match="no package"):
        verify_package(copy, keys)


def test_a_coordinator_cannot_change_what_members_approved(copy, keys):
    card = copy / "MODEL_CARD.md"
    card.write_text(card.read_text(encoding="utf-8") + "\nApproved for anything.\n", encoding="utf-8")
    resigned(copy)
    with pytest.raises(PackageError, match="approved other files"):
        verify_package(copy, keys)


def test_a_coordinator_cannot_add_a_file_after_the_approval(copy, keys):
    (copy / "extra.txt").write_text("x")
    resigned(copy)
    with pytest.raises(PackageError, match="approved other files"):
        verify_package(copy, keys)


def test_too_few_members_are_too_few(tmp_path, keys):
    published(tmp_path / "few", approving=MEMBERS[:2])
    with pytest.raises(PackageError, match="not published") as caught:
        verify_package(tmp_path / "few", keys)
    assert "2 members approved" in caught.value.diagnostics()


def test_a_signer_outside_the_roster_is_refused(tmp_path, keys):
    published(tmp_path / "stranger", signer=fixed_signer("stranger"))
    with pytest.raises(PackageError) as caught:
        verify_package(tmp_path / "stranger", keys)
    assert "roster pins" in caught.value.diagnostics()


def test_a_certificate_in_place_of_the_pinned_key_is_refused(copy, keys):
    tree = json.loads((copy / SIGNATURE).read_text())
    tree["verificationMaterial"] = {"x509CertificateChain": {"certificates": [{"rawBytes": "AAAA"}]}}
    (copy / SIGNATURE).write_text(json.dumps(tree))
    with pytest.raises(PackageError) as caught:
        verify_package(copy, keys)
    assert "certificate" in caught.value.diagnostics()


def test_keys_of_another_federation_accept_nothing(package, keys):
    other = keys.model_copy(update={"agreement_id": "ab" * 32})
    with pytest.raises(PackageError):
        verify_package(package, other)


def test_nothing_is_published_twice(package):
    with pytest.raises(PublicationExistsError):
        published(package)


def test_an_epsilon_that_does_not_follow_from_the_events_is_found(copy, keys, monkeypatch):
    # all parties lie together: documents, approvals and signature fit, and the number is still recomputed
    from hansa.gate.record import MemberSpent
    from support import packages

    with monkeypatch.context() as lying:
        lying.setattr(MemberSpent, "epsilon", lambda *_: 0.25)
        packages.published(copy.parent / "lie")
    with pytest.raises(PackageError, match="contradicts itself") as caught:
        verify_package(copy.parent / "lie", keys)
    assert "0.25" in caught.value.diagnostics()


def test_a_gate_that_says_open_where_the_sums_say_otherwise_publishes_nothing(tmp_path, keys):
    # coordinator and a quorum of members lie together: whoever has the package still sees the sums
    from support.gates import HOLDS, UNFAIR

    for name, cells in (("unfair", UNFAIR), ("few", {"f": (40, 10, 10, 40), "m": (860, 140, 140, 860)})):
        published(tmp_path / name, cells=cells, decision="open", conditions=(HOLDS,))
        with pytest.raises(PackageError, match="did not go through the gate") as caught:
            verify_package(tmp_path / name, keys)
        assert "closed" in caught.value.diagnostics()


def test_a_quality_that_does_not_follow_from_the_sums_is_found(tmp_path, keys, monkeypatch):
    from hansa.artifact import judged
    from support import packages

    honest = judged.fairness_table

    def better(*told):
        table = honest(*told)
        rows = [row.model_copy(update={"records": row.records + 1}) for row in table.rows]
        return table.model_copy(update={"rows": rows})

    monkeypatch.setattr(packages, "fairness_table", better)
    published(tmp_path / "better")
    with pytest.raises(PackageError) as caught:
        verify_package(tmp_path / "better", keys)
    assert "not the quality that follows" in caught.value.diagnostics()
