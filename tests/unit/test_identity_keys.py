"""Keys, signatures, statements and rosters."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest
import rfc8785
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from hansa.errors import HansaError, WireError
from hansa.identity import COORDINATOR, Roster, Signer, Statement, fingerprint
from hansa.identity.errors import KeyFileError, RevokedError, RosterError, SignatureError, UnknownSignerError
from hansa.identity.keys import ORDER, load_public, verify
from hansa.identity.statement import MAX_PACKED_BYTES, MAX_STATEMENTS, pack, statement_bytes, unpack


class TestSigner:
    def test_a_signature_counts_for_its_key_purpose_and_bytes_alone(self) -> None:
        signer, other = Signer.generate("a"), Signer.generate("b")
        signature = signer.sign("purpose", b"data")
        verify(signer.public_key, "purpose", b"data", signature)
        for key, purpose, data, bad in (
            (other.public_key, "purpose", b"data", signature),
            (signer.public_key, "purpos", b"edata", signature),
            (signer.public_key, "purpose", b"dat", signature),
            (signer.public_key, "purpose", b"data", signature[:-1]),
            (signer.public_key, "purpose", b"data", b""),
        ):
            with pytest.raises(SignatureError):
                verify(key, purpose, data, bad)

    def test_nobody_without_the_key_makes_other_bytes_that_verify(self) -> None:
        """Of (r, s) and (r, n - s) only one is a signature; both verify under ECDSA."""
        for number in range(20):
            signer, data = Signer.generate("a"), b"data %d" % number
            signature = signer.sign("purpose", data)
            r, s = decode_dss_signature(signature)
            assert s <= ORDER // 2
            with pytest.raises(SignatureError):
                verify(signer.public_key, "purpose", data, encode_dss_signature(r, ORDER - s))

    def test_signatures_are_deterministic(self) -> None:
        signer = Signer.generate("a")
        assert signer.sign("p", b"x") == signer.sign("p", b"x")
        assert signer.sign("p", b"x") != signer.sign("q", b"x")

    def test_rfc_6979_known_answer(self) -> None:
        # RFC 6979, A.2.5: P-256, SHA-256, message "sample". Hansa's own messages have a prefix, so sign below it.
        key = ec.derive_private_key(
            0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721, ec.SECP256R1()
        )
        from hansa.identity.keys import _SIGN

        r, s = decode_dss_signature(key.sign(b"sample", _SIGN))
        assert r == 0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716
        assert s == 0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8

    def test_keys_are_files_of_their_owner(self, tmp_path: Path) -> None:
        signer = Signer.generate("a")
        path = tmp_path / "node.key"
        signer.save(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert Signer.load("a", path).public_key == signer.public_key
        with pytest.raises(KeyFileError, match="exists already"):
            signer.save(path)
        path.chmod(0o604)
        with pytest.raises(KeyFileError, match="chmod 600"):
            raise_with_remedy(lambda: Signer.load("a", path))

    @pytest.mark.parametrize("content", [b"", b"no key", "p384", "ed25519"])
    def test_files_that_hold_no_p256_key_are_refused(self, tmp_path: Path, content: bytes | str) -> None:
        path = tmp_path / "node.key"
        if isinstance(content, str):
            made = (
                ec.generate_private_key(ec.SECP384R1())
                if content == "p384"
                else ed25519.Ed25519PrivateKey.generate()
            )
            content = made.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(KeyFileError):
            Signer.load("a", path)

    def test_a_key_on_another_curve_makes_no_signer(self) -> None:
        with pytest.raises(KeyFileError, match="P-256"):
            Signer("a", ec.generate_private_key(ec.SECP384R1()))

    def test_a_signer_shows_no_secret(self) -> None:
        signer = Signer.generate("a")
        secret = f"{signer.private_key.private_numbers().private_value:x}"
        assert secret not in repr(signer)
        assert signer.public_key in repr(signer)


def raise_with_remedy(call) -> None:
    try:
        call()
    except HansaError as error:
        raise type(error)(error.diagnostics()) from None


class TestPinnedKeys:
    def test_the_pinned_form_is_the_only_form(self) -> None:
        text = Signer.generate("a").public_key
        load_public(text)
        point = load_public(text).public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        for bad in (
            text.upper(),
            text[5:],
            text[:-2],
            "p256:" + point.hex(),
            "p256:" + "00" * 33,
            "p256:",
            "",
            "p256:zz",
        ):
            with pytest.raises(SignatureError, match="compressed point"):
                load_public(bad)

    def test_fingerprints_differ(self) -> None:
        prints = {fingerprint(Signer.generate("a").public_key) for _ in range(20)}
        assert len(prints) == 20
        assert all(len(one.split("-")) == 8 for one in prints)


class TestStatement:
    JSON = st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text("abcXYZ_09", max_size=5), inner, max_size=4)
        ),
        max_leaves=12,
    )

    @given(st.dictionaries(st.text("abc_Z0", max_size=4), JSON, max_size=5))
    def test_statements_are_rfc_8785(self, value: dict) -> None:
        assert statement_bytes(value) == rfc8785.dumps(value)

    @pytest.mark.parametrize(
        "value", [{"a": 1.5}, {"a": object()}, {"a": {1: 2}}, {"a": b"x"}, {"é": 1}, {"a": 2**53}]
    )
    def test_what_statements_may_not_hold_is_refused(self, value: dict) -> None:
        with pytest.raises(ValueError, match="a statement holds"):
            statement_bytes(value)

    def test_a_line_holds_a_statement_and_comes_back(self) -> None:
        statement = Statement.sign(
            Signer.generate("a"), "purpose", {"text": "two words, ünd a\nbreak", "n": [1, None]}
        )
        assert Statement.parse(statement.line) == statement
        assert "\n" not in statement.line
        assert statement.value == {"text": "two words, ünd a\nbreak", "n": [1, None]}

    @pytest.mark.parametrize(
        "line",
        [
            "",
            "a b c",
            "p a zz {}",
            "p a  {}",
            "p a 3 {}",
            "p a 30 {}\n",
            f"p a {'30' * 73} {{}}",
            "p a 3O {}",
            "p a \ud800 {}",
            "p a 30 \ud800",
        ],
    )
    def test_lines_that_are_none_are_refused(self, line: str) -> None:
        with pytest.raises(WireError):
            Statement.parse(line)

    @pytest.mark.parametrize(
        "data",
        [b"", b"[]", b"1", b'{"b":1,"a":2}', b'{"a": 1}', b'{"a":1,"a":1}', b'{"a":1.5}', b'{"a":NaN}', b'{"a":"\\ud800"}', b'{"a":1e3}', b"\xff", b'{"a":"\\u0041"}', b"[" * 100_000],
    )  # fmt: skip
    def test_bytes_that_are_not_canonical_have_no_value(self, data: bytes) -> None:
        with pytest.raises(WireError):
            _ = Statement("p", "a", data, b"x").value

    def test_a_statement_counts_for_its_purpose_and_signer_alone(self) -> None:
        signer, other = Signer.generate("a"), Signer.generate("b")
        roster = Roster({"a": signer.public_key, "b": other.public_key}, Signer.generate("c").public_key)
        statement = Statement.sign(signer, "purpose", {"a": 1})
        statement.verify(roster, "purpose")
        with pytest.raises(WireError, match="another"):
            statement.verify(roster, "another")
        renamed = Statement("purpose", "b", statement.data, statement.signature)
        with pytest.raises(SignatureError):
            renamed.verify(roster, "purpose")
        purpose = Statement("another", "a", statement.data, statement.signature)
        with pytest.raises(SignatureError):
            purpose.verify(roster, "another")

    def test_lists_of_statements_travel_as_lines(self) -> None:
        signer = Signer.generate("a")
        statements = tuple(Statement.sign(signer, "p", {"i": i}) for i in range(3))
        packed = pack(statements)
        assert packed.dtype == np.uint8
        assert unpack(packed) == statements
        assert unpack(pack([])) == ()
        for bad in (
            packed[:-1],
            packed.astype("<u4"),
            packed.reshape(1, -1),
            np.frombuffer(b"\xff\n", np.uint8),
        ):
            with pytest.raises(WireError):
                unpack(bad)
        with pytest.raises(WireError, match="over the limit"):
            unpack(np.zeros(MAX_PACKED_BYTES + 1, np.uint8))
        with pytest.raises(WireError, match="more than the limit"):
            unpack(pack(statements[:1] * (MAX_STATEMENTS + 1)))


class TestRoster:
    def make(self, **changes) -> Roster:
        keys = {name: Signer.generate(name).public_key for name in ("a", "b", "c", COORDINATOR, "auditor")}
        parts = {
            "members": {n: keys[n] for n in ("a", "b", "c")},
            "coordinator": keys[COORDINATOR],
            "auditors": {"auditor": keys["auditor"]},
        }
        return Roster(**(parts | changes))

    def test_x_follows_the_agreements_order_and_revocation_moves_nobody(self) -> None:
        roster = self.make().revoke("b")
        assert dict(roster.x) == {"a": 1, "b": 2, "c": 3}
        assert roster.active == ("a", "c")
        with pytest.raises(RevokedError):
            roster.key_of("b")
        with pytest.raises(UnknownSignerError):
            roster.key_of("d")
        assert roster.key_of("auditor").startswith("p256:")

    def test_every_change_changes_the_hash(self) -> None:
        roster = self.make()
        key = Signer.generate("x").public_key
        changed = [
            roster.revoke("a"),
            roster.replace_key("a", key),
            Roster(dict(reversed(roster.members.items())), roster.coordinator),
        ]
        assert len({one.sha256 for one in [roster, *changed]}) == 4
        assert roster.replace_key("a", key).x == roster.x

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"members": {}}, "0 members"),
            ({"members": {f"m{i}": "x" for i in range(101)}}, "101 members"),
            ({"members": {"a b": Signer.generate("x").public_key}}, "is not a name"),
            ({"members": {"a": "p256:00"}}, "compressed point"),
            ({"members": {COORDINATOR: Signer.generate("x").public_key}}, "another's name"),
            ({"auditors": {"a": Signer.generate("x").public_key}}, "another's name"),
            ({"revoked": frozenset({"z"})}, "is no member"),
        ],
    )
    def test_rosters_that_cannot_be_are_refused(self, changes: dict, told: str) -> None:
        with pytest.raises(RosterError) as caught:
            self.make(**changes)
        assert told in caught.value.diagnostics()

    def test_one_key_for_two_parties_is_refused_and_both_are_named(self) -> None:
        key = Signer.generate("x").public_key
        with pytest.raises(RosterError) as caught:
            self.make(coordinator=key, members={"a": key, "b": Signer.generate("b").public_key})
        assert "a, coordinator have the same key" in caught.value.diagnostics()
