"""`hansa ca init|issue|revoke|refresh` through the command line."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from hansa.cli import authority as authority_module
from hansa.errors import ExitStatus
from hansa.identity import Authority, check_certificate, fingerprint, request_certificate
from hansa.identity import files as files_module
from hansa.identity.authority import EPHEMERAL_NAME
from hansa.identity.certificates import member_uri
from hansa.identity.pem import pem, read_certificate, read_revocations
from support.cli import Called, hansa
from support.identities import mode, roster, secrets_of, signer

NOW = datetime.now(UTC)


def ca(*arguments: str | Path) -> Called:
    return hansa("ca", *arguments, "--format", "json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = ca("init", tmp_path / "ca", "--name", "North Sea hospitals")
    assert made.status == ExitStatus.DONE
    return tmp_path / "ca"


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    path = tmp_path / "alpha.csr"
    path.write_bytes(pem(request_certificate(signer("alpha"))))
    return path


def refused(called: Called, code: str, *words: str, status: ExitStatus = ExitStatus.BAD_INPUT) -> None:
    assert called.status == status, called
    error = called.envelope["error"]
    assert error["code"] == code
    for word in words:
        assert word in str(error)


class TestInit:
    def test_it_makes_key_certificate_and_list(self, folder: Path) -> None:
        assert {path.name for path in folder.iterdir()} == {"ca.key", "ca.crt", "ca.crl"}
        assert mode(folder / "ca.key") == 0o600
        authority = Authority.load(folder)
        assert not authority.is_ephemeral
        assert "North Sea hospitals" in authority.certificate.subject.rfc4514_string()
        assert authority.revoked == ()

    def test_it_says_what_to_do_next(self, tmp_path: Path) -> None:
        called = hansa("ca", "init", tmp_path / "ca", "--name", "League")
        assert called.status == ExitStatus.DONE
        assert "hansa ca refresh" in called.stdout
        until = read_revocations(tmp_path / "ca" / "ca.crl").next_update_utc
        assert f"{until:%Y-%m-%d}" in called.stdout

    @pytest.mark.parametrize("file", ["ca.key", "ca.crt", "ca.crl"])
    def test_nothing_is_overwritten(self, tmp_path: Path, file: str) -> None:
        (tmp_path / "ca").mkdir()
        (tmp_path / "ca" / file).write_text("mine")
        refused(ca("init", tmp_path / "ca", "--name", "League"), "HANSA-102", file)
        assert [path.read_text() for path in (tmp_path / "ca").iterdir()] == ["mine"]

    @pytest.mark.parametrize("name", ["", "x" * 65, "two\nlines", "\x1b[31m", EPHEMERAL_NAME])
    def test_what_is_no_name_is_refused(self, tmp_path: Path, name: str) -> None:
        refused(ca("init", tmp_path / "ca", "--name", name), "HANSA-104", "no name for a consortium")
        assert not (tmp_path / "ca").exists()

    def test_a_file_in_the_folders_place_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "ca").write_text("")
        refused(ca("init", tmp_path / "ca", "--name", "League"), "HANSA-104", "cannot make the folder")


class TestIssue:
    def test_a_certificate_for_the_members_key(self, folder, request_file, tmp_path) -> None:
        issued = ca("issue", folder, "--request", request_file, "--member", "alpha")
        assert issued.data["certificate"] == str(tmp_path / "alpha.crt")
        assert issued.data["fingerprint"] == fingerprint(signer("alpha").public_key)
        assert issued.data["earlier"] == []
        certificate = read_certificate(tmp_path / "alpha.crt")
        assert hex(certificate.serial_number) == issued.data["serial"]
        check_certificate(
            certificate,
            "alpha",
            roster(),
            authority=read_certificate(folder / "ca.crt"),
            revocations=read_revocations(folder / "ca.crl"),
            at=datetime.now(UTC) + timedelta(minutes=1),
        )

    def test_the_fingerprint_is_shown_to_be_read_over_the_phone(self, folder, request_file, tmp_path) -> None:
        called = hansa("ca", "issue", folder, "--request", request_file, "--member", "alpha")
        assert fingerprint(signer("alpha").public_key) in called.stdout
        assert "over the phone" in called.stdout
        assert "admits nobody" in called.stdout

    def test_addresses_under_which_a_machine_serves_others(self, folder, request_file, tmp_path) -> None:
        out = tmp_path / "addressed.crt"
        called = hansa(
            "ca", "issue", folder, "--request", request_file, "--member", "alpha", "--out", out,
            "--address", "logs.example.org", "--address", "192.0.2.7", "--format", "json",
        )  # fmt: skip
        assert called.data["addresses"] == ["logs.example.org", "192.0.2.7"]
        names = read_certificate(out).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [str(name.value) for name in names] == [
            "urn:hansa:member:alpha",
            "logs.example.org",
            "192.0.2.7",
        ]

    def test_what_is_no_address_gets_no_certificate(self, folder, request_file, tmp_path) -> None:
        out = tmp_path / "addressed.crt"
        called = hansa(
            "ca",
            "issue",
            folder,
            "--request",
            request_file,
            "--member",
            "alpha",
            "--out",
            out,
            "--address",
            "*.org",
        )
        assert called.status == 2
        assert "'*.org' is no host name and no IP address" in called.stderr
        assert not out.exists()

    def test_another_name_than_the_requests_is_refused(self, folder, request_file, tmp_path) -> None:
        out = tmp_path / "beta.crt"
        refused(
            ca("issue", folder, "--request", request_file, "--member", "beta", "--out", out),
            "HANSA-704",
            "in the name of 'alpha'",
            "not for 'beta'",
        )
        assert not out.exists()
        assert not (folder / "issued").exists()

    def request(self, common: list[str], uris: list[str], curve=None) -> x509.CertificateSigningRequest:
        builder = x509.CertificateSigningRequestBuilder().subject_name(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in common])
        )
        if uris:
            names = x509.SubjectAlternativeName([member_uri(name) for name in uris])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(ec.generate_private_key(curve or ec.SECP256R1()), hashes.SHA256())

    @pytest.mark.parametrize(
        ("common", "uris", "curve", "words"),
        [
            (["alpha"], [], None, ["no readable subject alternative name"]),
            (["alpha"], ["beta"], None, ["not for 'alpha'"]),
            (["alpha"], ["alpha", "beta"], None, ["not for 'alpha'"]),
            (["alpha", "beta"], ["alpha"], None, ["'alpha', 'beta'"]),
            ([], ["alpha"], None, ["in the name of nobody"]),
            (["\x1b[31malpha"], ["alpha"], None, ["\\\\x1b[31malpha"]),
            (["alpha"], ["alpha"], ec.SECP384R1(), ["not on P-256"]),
            (["beta"], ["beta"], ec.SECP384R1(), ["'beta'", "not for 'alpha'", "not on P-256"]),
        ],
    )
    def test_requests_that_are_not_plainly_the_members_are_refused(
        self, folder, tmp_path, common, uris, curve, words
    ) -> None:
        (tmp_path / "a.csr").write_bytes(pem(self.request(common, uris, curve)))
        refused(
            ca("issue", folder, "--request", tmp_path / "a.csr", "--member", "alpha"), "HANSA-704", *words
        )
        assert not (tmp_path / "a.crt").exists()

    def test_a_request_whose_key_did_not_sign_it_is_refused(self, folder, request_file) -> None:
        der = request_certificate(signer("alpha")).public_bytes(Encoding.DER)
        broken = base64.encodebytes(der[:-1] + bytes([der[-1] ^ 1]))  # the signature ends the request
        armour = b"-----%s CERTIFICATE REQUEST-----\n"
        request_file.write_bytes(armour % b"BEGIN" + broken + armour % b"END")
        refused(ca("issue", folder, "--request", request_file, "--member", "alpha"), "HANSA-704", "own key")

    def test_what_is_no_request_is_told(self, folder, tmp_path) -> None:
        refused(
            ca("issue", folder, "--request", folder / "ca.crt", "--member", "N", "--out", tmp_path / "n.crt"),
            "HANSA-704",
            "no request",
        )
        refused(
            ca("issue", folder, "--request", tmp_path / "absent", "--member", "North"), "HANSA-104", "absent"
        )

    def test_a_file_that_is_there_is_kept_and_nothing_is_issued(self, folder, request_file, tmp_path) -> None:
        (tmp_path / "alpha.crt").write_text("mine")
        refused(ca("issue", folder, "--request", request_file, "--member", "alpha"), "HANSA-102")
        assert (tmp_path / "alpha.crt").read_text() == "mine"
        assert not (folder / "issued").exists()

    def test_earlier_certificates_that_still_count_are_told(self, folder, request_file, tmp_path) -> None:
        serials = [
            ca(
                "issue",
                folder,
                "--request",
                request_file,
                "--member",
                "alpha",
                "--out",
                tmp_path / f"{i}.crt",
            )
            for i in range(3)
        ]
        first, second, third = (called.data for called in serials)
        assert second["earlier"] == [first["serial"]]
        assert sorted(third["earlier"]) == sorted([first["serial"], second["serial"]])
        ca("revoke", folder, "--serial", first["serial"])
        shown = hansa(
            "ca", "issue", folder, "--request", request_file, "--member", "alpha", "--out", tmp_path / "4.crt"
        )
        assert "2 earlier certificates that still count" in shown.stdout

    def test_an_authoritys_key_that_others_can_read_is_not_used(self, folder, request_file) -> None:
        (folder / "ca.key").chmod(0o644)
        refused(ca("issue", folder, "--request", request_file, "--member", "alpha"), "HANSA-705", "chmod 600")

    def test_no_authority_no_certificate(self, tmp_path, request_file) -> None:
        refused(ca("issue", tmp_path / "absent", "--request", request_file, "--member", "alpha"), "HANSA-104")


class TestRevoke:
    @pytest.fixture
    def issued(self, folder, request_file) -> dict:
        return ca("issue", folder, "--request", request_file, "--member", "alpha").data

    def listed(self, folder: Path) -> set[int]:
        revocations = read_revocations(folder / "ca.crl")
        key = read_certificate(folder / "ca.crt").public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert revocations.is_signature_valid(key)
        return {entry.serial_number for entry in revocations}

    @pytest.mark.parametrize("how", ["certificate", "hexadecimal", "decimal"])
    def test_a_certificate_is_revoked_and_stays_so(self, folder, issued, how) -> None:
        number = int(issued["serial"], 16)
        arguments = {
            "certificate": ["--certificate", issued["certificate"]],
            "hexadecimal": ["--serial", issued["serial"]],
            "decimal": ["--serial", str(number)],
        }[how]
        assert ca("revoke", folder, *arguments).data["revoked_before"] is False
        assert self.listed(folder) == {number}
        assert Authority.load(folder).revoked[0][0] == number
        assert ca("refresh", folder).data["revoked"] == 1
        assert self.listed(folder) == {number}

    def test_revoking_again_says_so_and_keeps_the_date(self, folder, issued) -> None:
        ca("revoke", folder, "--serial", issued["serial"])
        before = Authority.load(folder).revoked
        again = hansa("ca", "revoke", folder, "--serial", issued["serial"])
        assert again.stdout.startswith("Was revoked before")
        assert Authority.load(folder).revoked == before

    def test_revocations_add_up(self, folder, issued, request_file, tmp_path) -> None:
        second = ca(
            "issue", folder, "--request", request_file, "--member", "alpha", "--out", tmp_path / "2.crt"
        ).data
        ca("revoke", folder, "--serial", issued["serial"])
        ca("revoke", folder, "--serial", second["serial"])
        assert self.listed(folder) == {int(one["serial"], 16) for one in (issued, second)}

    def test_it_is_said_that_the_pinned_key_stays(self, folder, issued) -> None:
        assert "amendment" in hansa("ca", "revoke", folder, "--serial", issued["serial"]).stdout

    @pytest.mark.parametrize("serial", ["0x12", "12", "twelve", "", "-1"])
    def test_a_number_that_was_not_issued_here_is_refused(self, folder, issued, serial) -> None:
        refused(ca("revoke", folder, f"--serial={serial}"), "HANSA-104")
        assert self.listed(folder) == set()

    def test_a_certificate_of_another_authority_is_refused(self, folder, issued, tmp_path) -> None:
        ca("init", tmp_path / "other", "--name", "North Sea hospitals")
        refused(
            ca("revoke", tmp_path / "other", "--certificate", issued["certificate"]),
            "HANSA-704",
            "not issued by this authority",
        )
        assert self.listed(tmp_path / "other") == set()

    def test_exactly_one_certificate_is_named(self, folder, issued) -> None:
        refused(ca("revoke", folder), "HANSA-104", "either")
        both = ["--serial", issued["serial"], "--certificate", issued["certificate"]]
        refused(ca("revoke", folder, *both), "HANSA-104", "either")

    def test_a_crash_while_revoking_leaves_the_old_list_whole(self, folder, issued, monkeypatch) -> None:
        before = (folder / "ca.crl").read_bytes()

        def crash(handle: int, data: bytes) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(files_module, "_write", crash)
            refused(ca("revoke", folder, "--serial", issued["serial"]), "HANSA-104", "No space left")
        assert (folder / "ca.crl").read_bytes() == before
        assert ca("revoke", folder, "--serial", issued["serial"]).status == ExitStatus.DONE

    def test_a_list_is_renewed_before_it_expires(self, folder, issued, monkeypatch) -> None:
        ca("revoke", folder, "--serial", issued["serial"])
        monkeypatch.setattr(authority_module, "_now", lambda: NOW + timedelta(days=29))
        until = ca("refresh", folder).data["revocations_until"]
        assert until == f"{NOW + timedelta(days=59):%Y-%m-%d}"
        assert self.listed(folder) == {int(issued["serial"], 16)}


def test_nothing_secret_is_ever_shown(folder, request_file, tmp_path) -> None:
    shown = [
        hansa("ca", "init", folder, "--name", "x"),
        hansa("ca", "issue", folder, "--request", request_file, "--member", "alpha"),
        hansa(
            "ca",
            "issue",
            folder,
            "--request",
            folder / "ca.key",
            "--member",
            "alpha",
            "--out",
            tmp_path / "x",
        ),
        hansa("ca", "revoke", folder, "--certificate", tmp_path / "alpha.crt"),
        hansa("ca", "revoke", folder, "--certificate", folder / "ca.key"),
        hansa("ca", "refresh", folder),
    ]
    assert [called.status for called in shown] == [2, 0, 2, 0, 2, 0]
    text = "".join(called.stdout + called.stderr for called in shown).encode()
    secrets = secrets_of(folder)
    assert len(secrets) >= 4
    assert [place for place, secret in secrets.items() if secret in text] == []
    others = b"".join(path.read_bytes() for path in folder.rglob("*.cr*"))
    assert [place for place, secret in secrets.items() if secret in others] == []
