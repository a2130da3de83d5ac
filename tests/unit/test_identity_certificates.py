"""The authority, certificates, revocation and amendments."""

from __future__ import annotations

import dataclasses
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hansa.identity import (
    Amendment,
    Authority,
    Roster,
    Signer,
    Statement,
    amend,
    check_certificate,
    request_certificate,
)
from hansa.identity.amendment import PURPOSE, approvals_needed
from hansa.identity.certificates import check_request, member_of, member_uri
from hansa.identity.errors import AmendmentError, CertificateError, KeyFileError, SignatureError

AT = datetime(2026, 11, 1, tzinfo=UTC)
NAMES = ("alpha", "beta", "gamma", "delta", "epsilon")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("Example consortium", AT)


@pytest.fixture(scope="module")
def signers() -> dict[str, Signer]:
    return {name: Signer.generate(name) for name in NAMES}


@pytest.fixture(scope="module")
def roster(signers: dict[str, Signer]) -> Roster:
    return Roster(
        {name: one.public_key for name, one in signers.items()}, Signer.generate("coordinator").public_key
    )


@pytest.fixture(scope="module")
def certificate(authority: Authority, signers: dict[str, Signer]) -> x509.Certificate:
    return authority.issue(request_certificate(signers["alpha"]), "alpha", AT)


def check(
    certificate: x509.Certificate, authority: Authority, roster: Roster, name: str = "alpha", **changes
) -> None:
    parts = {
        "authority": authority.certificate,
        "revocations": authority.revocation_list(AT),
        "at": AT,
    } | changes
    check_certificate(certificate, name, roster, **parts)


def told(caught: pytest.ExceptionInfo[CertificateError]) -> str:
    return "\n".join(map(str, caught.value.problems))


class TestCertificates:
    def test_a_members_own_certificate_is_accepted(self, certificate, authority, roster) -> None:
        check(certificate, authority, roster)

    def test_a_certificate_alone_admits_nobody(self, authority, roster) -> None:
        stranger = Signer.generate("zeta")
        issued = authority.issue(
            request_certificate(stranger), "zeta", AT
        )  # the coordinator may run the authority
        with pytest.raises(CertificateError) as caught:
            check(issued, authority, roster, "zeta")
        assert "admits nobody" in told(caught)

    def test_a_second_certificate_in_a_members_name_does_not_hold_its_key(self, authority, roster) -> None:
        impostor = Signer.generate("alpha")
        issued = authority.issue(request_certificate(impostor), "alpha", AT)
        with pytest.raises(CertificateError) as caught:
            check(issued, authority, roster)
        assert [problem.what[:7] for problem in caught.value.problems] == ["its key"]

    def test_another_members_certificate_is_refused(self, certificate, authority, roster) -> None:
        with pytest.raises(CertificateError, match="'beta'") as caught:
            check(certificate, authority, roster, "beta")
        assert "is not for 'beta'" in told(caught)

    def test_another_authority_is_refused(self, certificate, authority, roster) -> None:
        other = Authority.create("Example consortium", AT)
        with pytest.raises(CertificateError) as caught:
            check(certificate, other, roster)
        assert "not issued by" in told(caught)

    @pytest.mark.parametrize("at", [AT - timedelta(days=1), AT + timedelta(days=826)])
    def test_outside_its_time_it_is_refused(self, certificate, authority, roster, at) -> None:
        with pytest.raises(CertificateError) as caught:
            check(certificate, authority, roster, at=at, revocations=authority.revocation_list(at))
        assert [problem.place for problem in caught.value.problems] == ["certificate"]

    def test_a_revoked_certificate_is_refused(self, certificate, authority, roster) -> None:
        revoked = authority.revoke([certificate.serial_number], AT)
        assert revoked.revoke([certificate.serial_number], AT + timedelta(days=1)) == revoked
        with pytest.raises(CertificateError) as caught:
            check(certificate, revoked, roster)
        assert told(caught) == "certificate: is revoked"

    def test_a_stale_or_foreign_revocation_list_is_refused(self, certificate, authority, roster) -> None:
        stale = authority.revocation_list(AT - timedelta(days=60))
        foreign = Authority.create("Example consortium", AT).revocation_list(AT)
        for listed, what in ((stale, "out of date"), (foreign, "not signed by")):
            with pytest.raises(CertificateError) as caught:
                check(certificate, authority, roster, revocations=listed)
            assert what in told(caught)

    def test_everything_that_is_wrong_is_told_at_once(self, certificate, authority, roster) -> None:
        with pytest.raises(CertificateError) as caught:
            check(certificate, Authority.create("x", AT), roster, "gamma")
        assert len(caught.value.problems) >= 3

    def test_an_authority_may_not_make_authorities(self, authority, signers) -> None:
        issued = authority.issue(request_certificate(signers["beta"]), "beta", AT)
        assert issued.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
        assert issued.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign is False

    def test_a_request_on_another_curve_gets_no_certificate(self, authority) -> None:
        key = ec.generate_private_key(ec.SECP384R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "alpha")])
        request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
        with pytest.raises(CertificateError, match="no certificate"):
            authority.issue(request, "alpha", AT)

    def test_the_name_is_the_one_that_the_authority_was_told(self, authority, signers) -> None:
        issued = authority.issue(request_certificate(signers["alpha"]), "beta", AT)
        names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [name.value for name in names] == ["urn:hansa:member:beta"]


class TestAddresses:
    """Where a machine is reached stands beside who it is, and says nothing about it."""

    def issued(self, authority, signers, *addresses: str) -> x509.Certificate:
        return authority.issue(request_certificate(signers["beta"]), "beta", AT, addresses)

    def test_names_and_addresses_stand_beside_the_member(self, authority, roster, signers) -> None:
        shown = self.issued(authority, signers, "logs.example.org", "192.0.2.7", "2001:db8::7")
        names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["logs.example.org"]
        assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7", "2001:db8::7"]
        check(shown, authority, roster, "beta")
        assert member_of(shown) == "beta"

    def test_they_make_nobody_another_member(self, authority, roster, signers) -> None:
        with pytest.raises(CertificateError) as caught:
            check(self.issued(authority, signers, "alpha"), authority, roster, "alpha")
        assert "is not for 'alpha'" in told(caught)

    @pytest.mark.parametrize(
        "address",
        [
            "",
            "*.example.org",
            "urn:hansa:member:alpha",
            "a b",
            "-x.org",
            "x..org",
            "a" * 64,
            "300.1.1.1",
            "10.0.0.0/8",
            "host:1",
            "ä.org",
        ],
    )
    def test_what_is_no_address(self, authority, signers, address: str) -> None:
        with pytest.raises(CertificateError) as caught:
            self.issued(authority, signers, address)
        assert "is no host name and no IP address" in told(caught)

    def test_a_request_may_not_ask_for_one(self, signers) -> None:
        signer = signers["beta"]
        asked = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "beta")]))
            .add_extension(
                x509.SubjectAlternativeName([member_uri("beta"), x509.DNSName("bank.example.org")]),
                critical=False,
            )
            .sign(signer.private_key, hashes.SHA256())
        )
        with pytest.raises(CertificateError):
            check_request(asked, "beta")

    def test_a_certificate_of_two_members_is_nobody_s(self, authority, signers) -> None:
        builder = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(x509.Name([]))
        shown = (
            builder.public_key(signers["beta"].private_key.public_key())
            .serial_number(1)
            .not_valid_before(AT)
            .not_valid_after(AT + timedelta(days=1))
            .add_extension(
                x509.SubjectAlternativeName([member_uri("alpha"), member_uri("beta")]), critical=False
            )
            .sign(authority.private_key, hashes.SHA256())
        )
        with pytest.raises(CertificateError, match="names nobody"):
            member_of(shown)


class TestAuthority:
    def test_it_comes_back_from_its_folder(self, authority, certificate, tmp_path: Path) -> None:
        revoked = authority.revoke([certificate.serial_number], AT)
        revoked.save(tmp_path / "ca", AT)
        assert stat.S_IMODE((tmp_path / "ca" / "ca.key").stat().st_mode) == 0o600
        loaded = Authority.load(tmp_path / "ca")
        assert loaded.certificate == authority.certificate
        assert loaded.revoked == ((certificate.serial_number, AT),)
        with pytest.raises(KeyFileError, match="exists already"):
            authority.save(tmp_path / "ca", AT)

    def test_a_folder_with_another_certificate_is_refused(self, authority, tmp_path: Path) -> None:
        authority.save(tmp_path / "one", AT)
        Authority.create("other", AT).save(tmp_path / "two", AT)
        (tmp_path / "one" / "ca.crt").write_bytes((tmp_path / "two" / "ca.crt").read_bytes())
        with pytest.raises(CertificateError, match="cannot be used"):
            Authority.load(tmp_path / "one")
        (tmp_path / "two" / "ca.crl").unlink()
        with pytest.raises(CertificateError, match="cannot be read"):
            Authority.load(tmp_path / "two")

    def test_a_simulations_authority_says_that_it_proves_nothing(self, authority) -> None:
        ephemeral = Authority.ephemeral(AT)
        assert ephemeral.is_ephemeral
        assert not authority.is_ephemeral
        assert "proves no identity" in ephemeral.certificate.subject.rfc4514_string()


class TestAmendments:
    AGREEMENT = "a" * 64

    def amendment(self, roster: Roster, **changes) -> Amendment:
        parts = {
            "agreement_id": self.AGREEMENT, "sequence": 1, "roster_sha256": roster.sha256,
            "change": "revoke", "member": "epsilon", "reason": "laptop stolen",
        }  # fmt: skip
        return Amendment(**(parts | changes))

    def apply(
        self, roster: Roster, amendment: Amendment, approvals: list[Statement], sequence: int = 1
    ) -> Roster:
        return amend(roster, self.AGREEMENT, sequence, amendment, approvals)

    def test_four_of_five_revoke_the_fifth(self, roster, signers) -> None:
        amendment = self.amendment(roster)
        amended = self.apply(roster, amendment, [amendment.sign(signers[name]) for name in NAMES[:4]])
        assert amended.revoked == {"epsilon"}

    def test_a_new_key_takes_the_place_of_the_old_one(self, roster, signers) -> None:
        new = Signer.generate("epsilon")
        amendment = self.amendment(roster.revoke("epsilon"), change="replace-key", public_key=new.public_key)
        amended = self.apply(
            roster.revoke("epsilon"), amendment, [amendment.sign(signers[n]) for n in NAMES[:4]]
        )
        assert amended.members["epsilon"] == new.public_key
        assert amended.revoked == frozenset()
        assert amended.x == roster.x

    @pytest.mark.parametrize(
        "who",
        [NAMES[:3], (*NAMES[:3], "alpha"), (*NAMES[:3], "epsilon")],
        ids=["three", "one twice", "the one concerned"],
    )
    def test_too_few_approvals_change_nothing(self, roster, signers, who) -> None:
        amendment = self.amendment(roster)
        with pytest.raises(AmendmentError, match="3 members approved, 4 are needed"):
            self.apply(roster, amendment, [amendment.sign(signers[name]) for name in who])

    def test_an_approval_of_something_else_is_refused(self, roster, signers) -> None:
        amendment, other = self.amendment(roster), self.amendment(roster, member="alpha")
        with pytest.raises(AmendmentError, match="something else"):
            self.apply(roster, amendment, [other.sign(signers[name]) for name in NAMES[:4]])

    def test_a_revoked_member_approves_nothing(self, roster, signers) -> None:
        without = roster.revoke("delta")
        amendment = self.amendment(without)
        with pytest.raises(AmendmentError, match="revoked"):
            self.apply(without, amendment, [amendment.sign(signers[name]) for name in NAMES[:4]])

    def test_a_forged_approval_is_refused(self, roster, signers) -> None:
        amendment = self.amendment(roster)
        good = [amendment.sign(signers[name]) for name in NAMES[:3]]
        forged = dataclasses.replace(good[0], signer="delta")
        with pytest.raises(AmendmentError, match="does not count"):
            self.apply(roster, amendment, [*good, forged])

    @pytest.mark.parametrize(
        "change", [{"sequence": 2}, {"agreement_id": "b" * 64}, {"roster_sha256": "0" * 64}]
    )
    def test_an_amendment_fits_in_one_place_only(self, roster, signers, change) -> None:
        amendment = self.amendment(roster, **change)
        with pytest.raises(AmendmentError, match="does not follow"):
            self.apply(roster, amendment, [amendment.sign(signers[name]) for name in NAMES[:4]])

    def test_an_amendment_about_nobody_is_refused(self, roster, signers) -> None:
        amendment = self.amendment(roster, member="zeta")
        with pytest.raises(AmendmentError, match="no member"):
            self.apply(roster, amendment, [amendment.sign(signers[name]) for name in NAMES[:4]])

    def test_only_a_replacement_names_a_key(self, roster) -> None:
        for change in ({"public_key": Signer.generate("x").public_key}, {"change": "replace-key"}):
            with pytest.raises(AmendmentError):
                self.amendment(roster, **change)
        with pytest.raises(SignatureError):
            self.amendment(roster, change="replace-key", public_key="p256:00")

    @pytest.mark.parametrize(("n", "needed"), [(3, 2), (4, 3), (5, 4), (10, 7), (100, 67)])
    def test_how_many_approvals_are_needed(self, n: int, needed: int) -> None:
        keys = {f"m{i}": Signer.generate("x").public_key for i in range(n)}
        assert approvals_needed(Roster(keys, Signer.generate("x").public_key)) == needed

    def test_approvals_are_signed_for_this_purpose(self, roster, signers) -> None:
        assert self.amendment(roster).sign(signers["alpha"]).purpose == PURPOSE
