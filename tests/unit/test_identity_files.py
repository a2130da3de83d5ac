"""Files written once or replaced whole, files of statements, public cards, PEM, and secrets that others can read."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hansa.errors import OutputExistsError, UsageError, WireError
from hansa.identity import Authority, Signer, Statement, request_certificate
from hansa.identity import files as files_module
from hansa.identity.cards import Card, read_card, roster_of_cards
from hansa.identity.errors import CertificateError, KeyFileError, RosterError
from hansa.identity.files import locked, read_small, read_statements, replace_file, write_new
from hansa.identity.keys import CREDENTIALS, fingerprint, read_private
from hansa.identity.pem import pem, read_certificate, read_request, read_revocations
from support.identities import AUDITOR, COORDINATOR, MEMBERS, mode, signer


class TestFiles:
    def test_a_new_file_is_written_once(self, tmp_path: Path) -> None:
        write_new(tmp_path / "a", b"one")
        with pytest.raises(OutputExistsError, match="already there"):
            write_new(tmp_path / "a", b"two")
        assert (tmp_path / "a").read_bytes() == b"one"

    def test_a_dangling_link_is_not_written_through(self, tmp_path: Path) -> None:
        (tmp_path / "a").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(OutputExistsError):
            write_new(tmp_path / "a", b"one")
        assert not (tmp_path / "elsewhere").exists()

    def test_replacing_leaves_the_old_content_or_the_new(self, tmp_path: Path, monkeypatch) -> None:
        path = tmp_path / "a"
        path.write_bytes(b"old")

        def crash(handle: int, data: bytes) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(files_module, "_write", crash)
            with pytest.raises(UsageError, match="No space left"):
                replace_file(path, b"new")
        assert path.read_bytes() == b"old"
        replace_file(path, b"new")
        assert path.read_bytes() == b"new"
        assert [one.name for one in tmp_path.iterdir()] == ["a"]

    @pytest.mark.parametrize("write", [write_new, replace_file])
    def test_where_nothing_can_be_written_is_told(self, tmp_path: Path, write) -> None:
        with pytest.raises(UsageError, match="absent"):
            write(tmp_path / "absent" / "a", b"")

    def test_commands_on_one_folder_wait_for_each_other(self, tmp_path: Path) -> None:
        order = []
        started = threading.Event()

        def second() -> None:
            started.set()
            with locked(tmp_path):
                order.append("second")

        thread = threading.Thread(target=second)
        with locked(tmp_path):
            thread.start()
            assert started.wait(10)
            thread.join(0.2)  # long enough to get past a lock that does not hold
            order.append("first")
        thread.join(10)
        assert order == ["first", "second"]

    def test_only_a_folder_is_locked(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        for path in (tmp_path / "file", tmp_path / "absent"):
            with pytest.raises(UsageError, match=path.name), locked(path):
                pytest.fail("was locked")

    def test_a_file_larger_than_its_kind_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"x" * 11)
        assert read_small(tmp_path / "a", 11) == b"x" * 11
        with pytest.raises(UsageError, match="larger than 10 bytes"):
            read_small(tmp_path / "a", 10)

    def test_statements_come_back_from_their_file(self, tmp_path: Path) -> None:
        statements = tuple(Statement.sign(signer(name), "p", {"by": name}) for name in MEMBERS)
        (tmp_path / "a.sig").write_text("".join(one.line + "\n" for one in statements))
        assert read_statements(tmp_path / "a.sig") == statements

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (b"", "no statement"),
            (b"\xff\n", "UTF-8"),
            (b"no statement\n", "not a signed statement"),
            (b"p a 30 {}", "cut short"),
            (b"p a 30 {}\n\n", "not a signed statement"),
            (b"p a 30 {}\r\n\x00\n", "not a signed statement"),
        ],
    )
    def test_files_that_hold_no_statements_are_told_by_name(self, tmp_path: Path, content, told) -> None:
        (tmp_path / "a.sig").write_bytes(content)
        with pytest.raises(WireError, match=told) as caught:
            read_statements(tmp_path / "a.sig")
        assert "a.sig" in caught.value.cause


class TestSecrets:
    def test_a_systemd_credential_may_show_the_mask_of_its_access_list(
        self, tmp_path: Path, monkeypatch
    ) -> None:
        handed, other = tmp_path / "credentials", tmp_path / "other"
        for folder in (handed, other):
            folder.mkdir()
            (folder / "sealing").write_bytes(b"k" * 32)
            (folder / "sealing").chmod(0o440)
        with pytest.raises(KeyFileError, match="read by others"):
            read_private(handed / "sealing")  # systemd did not start this process
        monkeypatch.setenv(CREDENTIALS, str(handed))
        assert read_private(handed / "sealing") == b"k" * 32
        with pytest.raises(KeyFileError, match="read by others"):
            read_private(other / "sealing")

    @pytest.mark.parametrize("bits", [0o444, 0o404, 0o460, 0o450])
    def test_a_credential_that_others_can_read_is_refused(self, tmp_path: Path, monkeypatch, bits) -> None:
        (tmp_path / "sealing").write_bytes(b"k" * 32)
        (tmp_path / "sealing").chmod(bits)
        monkeypatch.setenv(CREDENTIALS, str(tmp_path))
        with pytest.raises(KeyFileError, match="read by others"):
            read_private(tmp_path / "sealing")


def cards(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / f"{name}.pub").write_text(Card(name, signer(name).public_key).line)
    return folder


def told(caught: pytest.ExceptionInfo) -> dict[str, str]:
    return {problem.place: problem.what for problem in caught.value.problems}


class TestCards:
    def test_a_card_is_one_line_and_comes_back(self, tmp_path: Path) -> None:
        cards(tmp_path, "alpha")
        card = read_card(tmp_path / "alpha.pub")
        assert card == Card("alpha", signer("alpha").public_key)
        assert card.line == f"alpha {signer('alpha').public_key}\n"
        assert card.fingerprint == fingerprint(card.public_key)

    def test_mail_may_change_the_end_of_the_line(self, tmp_path: Path) -> None:
        (tmp_path / "a.pub").write_bytes(f"alpha {signer('alpha').public_key}\r\n".encode())
        assert read_card(tmp_path / "a.pub").name == "alpha"

    @pytest.mark.parametrize(
        ("content", "what"),
        [
            ("", "one line"),
            ("alpha", "one line"),
            ("alpha KEY extra", "one line"),
            ("alphä KEY", "one line"),
            ("../alpha KEY", "a name"),
            ("al\x1b[2Kpha KEY", "a name"),
            ("alpha p256:00", "compressed point"),
            (f"alpha p256:02{'f' * 64}", "compressed point"),
        ],
    )
    def test_what_is_no_card_is_told(self, tmp_path: Path, content: str, what: str) -> None:
        (tmp_path / "a.pub").write_text(content.replace("KEY", signer("alpha").public_key), encoding="utf-8")
        with pytest.raises(RosterError, match="no public card") as caught:
            read_card(tmp_path / "a.pub")
        assert what in told(caught)["a.pub"]

    def test_a_whole_book_is_no_card(self, tmp_path: Path) -> None:
        (tmp_path / "a.pub").write_text(f"alpha {signer('alpha').public_key}" + " " * 1000)
        with pytest.raises(RosterError, match="no public card") as caught:
            read_card(tmp_path / "a.pub")
        assert told(caught)["a.pub"] == "is larger than 512 bytes"

    def test_a_certificate_is_no_card(self, tmp_path: Path) -> None:
        pem = "-----BEGIN CERTIFICATE-----\n" + "MIIB" * 200 + "\n-----END CERTIFICATE-----\n"
        (tmp_path / "a.pub").write_text(pem)
        with pytest.raises(RosterError, match="no public card") as caught:
            read_card(tmp_path / "a.pub")
        assert told(caught)["a.pub"] == "is a certificate, which pins no key"

    def test_the_cards_of_all_parties_make_a_roster(self, tmp_path: Path) -> None:
        cards(tmp_path, *MEMBERS, COORDINATOR, AUDITOR)
        (tmp_path / "notes.txt").write_text("passed over")
        roster = roster_of_cards(tmp_path, MEMBERS, [AUDITOR])
        assert list(roster.members) == list(MEMBERS)
        assert roster.coordinator == signer(COORDINATOR).public_key
        assert dict(roster.auditors) == {AUDITOR: signer(AUDITOR).public_key}

    def test_everything_wrong_with_the_cards_is_told_at_once(self, tmp_path: Path) -> None:
        cards(tmp_path, "alpha", "beta", "stranger", AUDITOR)
        (tmp_path / "gamma.pub").write_text(Card("delta", signer("delta").public_key).line)
        (tmp_path / "delta.pub").write_text(Card("delta", signer("alpha").public_key).line)
        (tmp_path / "epsilon.pub").write_text("nothing")
        (tmp_path / "copy of beta.pub").write_text(Card("beta", signer("beta").public_key).line)
        with pytest.raises(RosterError, match="do not make a roster") as caught:
            roster_of_cards(tmp_path, MEMBERS, [])
        assert told(caught) == {
            "stranger.pub": "is the card of 'stranger', whom the agreement does not need",
            f"{AUDITOR}.pub": f"is the card of {AUDITOR!r}, whom the agreement does not need",
            "copy of beta.pub": "is the card of 'beta', whom the agreement does not need",
            "gamma.pub": "is the card of 'delta'",
            "epsilon.pub": "is not one line with a name and a key",
            "coordinator.pub": "is missing",
            "alpha.pub, delta.pub": "have the same key",
            "beta.pub, copy of beta.pub": "have the same key",
        }

    @pytest.mark.parametrize("auditors", [["alpha"], [COORDINATOR], [AUDITOR, AUDITOR]])
    def test_a_name_is_one_partys(self, tmp_path: Path, auditors: list[str]) -> None:
        cards(tmp_path, *MEMBERS, COORDINATOR, AUDITOR)
        with pytest.raises(RosterError) as caught:
            roster_of_cards(tmp_path, MEMBERS, auditors)
        assert "is named twice" in told(caught)[auditors[0]]

    def test_a_member_called_coordinator_is_told(self, tmp_path: Path) -> None:
        cards(tmp_path, *MEMBERS, COORDINATOR)
        with pytest.raises(RosterError) as caught:
            roster_of_cards(tmp_path, [*MEMBERS, COORDINATOR], [])
        assert "is named twice" in told(caught)[COORDINATOR]


class TestPem:
    AT = datetime(2026, 11, 1, tzinfo=UTC)

    def test_certificates_requests_and_lists_come_back(self, tmp_path: Path) -> None:
        authority = Authority.create("Example", self.AT)
        authority.save(tmp_path, self.AT)
        request = request_certificate(signer("alpha"))
        (tmp_path / "alpha.csr").write_bytes(pem(request))
        (tmp_path / "alpha.crt").write_bytes(pem(authority.issue(request, "alpha", self.AT)))
        assert read_request(tmp_path / "alpha.csr") == request
        assert read_certificate(tmp_path / "ca.crt") == authority.certificate
        assert read_certificate(tmp_path / "alpha.crt").issuer == authority.certificate.subject
        assert len(read_revocations(tmp_path / "ca.crl")) == 0
        assert mode(tmp_path / "ca.key") == 0o600

    @pytest.mark.parametrize("read", [read_certificate, read_request, read_revocations])
    def test_anything_else_is_told(self, tmp_path: Path, read) -> None:
        (tmp_path / "a").write_text("no PEM")
        Signer.generate("a").save(tmp_path / "b")
        for name in ("a", "b"):
            with pytest.raises(CertificateError, match=f"{name} is no "):
                read(tmp_path / name)
        with pytest.raises(UsageError, match="absent"):
            read(tmp_path / "absent")
