"""Signed notes: known answers of other implementations, round trips, and texts that somebody bent."""

from __future__ import annotations

import os
import stat
from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.identity.errors import KeyFileError
from hansa.ledger.errors import NoteFormatError, NoteSignatureError
from hansa.ledger.note import (
    MAX_NOTE_BYTES,
    MAX_SIGNATURES,
    MAX_TIME,
    NoteSignature,
    NoteSigner,
    SignatureType,
    SignedNote,
    VerifierKey,
)

# The example of the specification of signed-note.
FOO = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
FOO_NOTE = (
    "This is an example message.\n\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
# The example in the documentation of golang.org/x/mod/sumdb/note, with its private key.
PETER_SECRET = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_TEXT = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
)
PETER_LINE = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
WITNESS_TYPE = SignatureType.WITNESS


def log(name: str = "example.com/log") -> NoteSigner:
    return NoteSigner.generate(name)


def witness(name: str = "example.com/witness") -> NoteSigner:
    return NoteSigner.generate(name, WITNESS_TYPE)


class TestKnownAnswers:
    def test_the_example_of_the_specification_verifies(self) -> None:
        key = VerifierKey.parse(FOO)
        assert (key.name, key.id.hex(), key.kind) == ("example.com/foo", "530d903a", SignatureType.LOG)
        assert key.text == FOO
        note = SignedNote.parse(FOO_NOTE)
        assert note.text == "This is an example message.\n"
        assert note.verify([key]) == {key: None}
        assert note.encoded == FOO_NOTE

    def test_the_go_implementation_signs_the_same_bytes(self) -> None:
        signer = NoteSigner.parse(PETER_SECRET)
        assert signer.key == VerifierKey.parse(PETER)
        assert signer.text == PETER_SECRET
        assert signer.sign(PETER_TEXT).line == PETER_LINE

    @pytest.mark.parametrize(
        "vkey",
        [
            "TEST+7997405c+AQcC+FTVKf0jlTdHDY3rbevmnKxxPjigCXlVtGe6RIr6",  # base64 with a plus in it
            "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",  # a public witness
            "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop",
        ],
    )
    def test_public_keys_of_others_are_read_and_written(self, vkey: str) -> None:
        assert VerifierKey.parse(vkey).text == vkey


class TestKeys:
    @pytest.mark.parametrize("kind", list(SignatureType))
    def test_keys_survive_their_text(self, kind: SignatureType) -> None:
        signer = NoteSigner.generate("example.com/log", kind)
        assert NoteSigner.parse(signer.text).key == signer.key == VerifierKey.parse(signer.key.text)

    def test_one_key_has_another_id_for_another_purpose(self) -> None:
        public = os.urandom(32)
        ids = {VerifierKey(name, public, kind).id for name in ("a", "b") for kind in SignatureType}
        assert len(ids) == 4

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "example.com/foo",
            "example.com/foo+530d903a",
            FOO.replace("530d903a", "530d903b"),
            FOO.replace("530d903a", "530D903A"),
            FOO.replace("530d903a", "0530d903a"),
            FOO.replace("foo", "bar"),
            FOO[:-1],
            FOO + "=",
            FOO + "\n",
            " " + FOO,
            FOO.replace("+Ae", "+!e"),
            FOO.replace("example.com/foo", ""),
            FOO.replace("example.com/foo", "two words"),
            "example.com/foo+530d903a+" + b64encode(b"\x02" + bytes(32)).decode(),  # ECDSA
            "example.com/foo+530d903a+" + b64encode(b"\x06" + bytes(1312)).decode(),  # ML-DSA
            "example.com/foo+530d903a+" + b64encode(b"\x01" + bytes(31)).decode(),
            "x" * 256 + "+530d903a+" + b64encode(b"\x01" + bytes(32)).decode(),
        ],
    )
    def test_texts_that_are_no_vkey(self, text: str) -> None:
        with pytest.raises(NoteFormatError):
            VerifierKey.parse(text)

    @pytest.mark.parametrize(
        "text",
        [
            PETER,
            PETER_SECRET[1:],
            PETER_SECRET.replace("c74f20a3", "c74f20a4"),
            PETER_SECRET[:-4],
            "PRIVATE+KEY+",
        ],
    )
    def test_texts_that_are_no_private_key_and_say_nothing_about_it(self, text: str) -> None:
        with pytest.raises(NoteFormatError) as caught:
            NoteSigner.parse(text)
        assert "AYEKFALV" not in caught.value.diagnostics()

    def test_a_signer_shows_its_public_side_only(self) -> None:
        assert repr(NoteSigner.parse(PETER_SECRET)) == f"NoteSigner({PETER!r})"

    def test_a_private_key_is_a_file_of_its_owner(self, tmp_path: Path) -> None:
        path = tmp_path / "log.key"
        signer = witness()
        signer.save(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert NoteSigner.load(path).key == signer.key
        with pytest.raises(KeyFileError, match="exists already"):
            signer.save(path)
        path.chmod(0o644)
        with pytest.raises(KeyFileError, match="read by others"):
            NoteSigner.load(path)

    @pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"PRIVATE+KEY+x\n"])
    def test_a_file_without_a_key_is_a_clear_error(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "log.key"
        path.touch(0o600)
        path.write_bytes(content)
        with pytest.raises(NoteFormatError):
            NoteSigner.load(path)


class TestSignatures:
    def test_a_witness_signs_a_time(self) -> None:
        signer, text = witness(), "example.com/log\n0\n"
        for at in (0, 1679315147, MAX_TIME):
            note = SignedNote(text, (signer.sign(text, at),))
            assert SignedNote.parse(note.encoded).verify([signer.key]) == {signer.key: at}

    def test_the_time_is_covered(self) -> None:
        signer, text = witness(), "x\n"
        line = signer.sign(text, 100)
        for at in (99, 101, 2**63):
            later = NoteSignature(line.name, line.id, at.to_bytes(8, "big") + line.data[8:])
            with pytest.raises(NoteSignatureError):
                SignedNote(text, (later,)).verify([signer.key])

    def test_a_witness_without_a_time_and_a_log_with_one_do_not_sign(self) -> None:
        for signer, at in ((witness(), None), (log(), 1), (witness(), -1), (witness(), MAX_TIME + 1)):
            with pytest.raises(NoteFormatError, match="signs at a time"):
                signer.sign("x\n", at)

    def test_a_log_signature_is_no_cosignature_and_the_other_way_round(self) -> None:
        signer = log("a")
        same = NoteSigner.parse(signer.text)
        as_witness = VerifierKey("a", same.key.public, WITNESS_TYPE)
        line = signer.sign("x\n")
        forged = NoteSignature("a", as_witness.id, bytes(8) + line.data)
        with pytest.raises(NoteSignatureError):
            SignedNote("x\n", (forged,)).verify([as_witness])
        with pytest.raises(NoteSignatureError):
            SignedNote("x\n", (NoteSignature("a", same.key.id, bytes(8) + line.data),)).verify([same.key])

    def test_signatures_of_strangers_are_kept_and_mean_nothing(self) -> None:
        ours, stranger = log("a"), log("b")
        note = SignedNote("x\n", (stranger.sign("x\n"), ours.sign("x\n")))
        assert note.verify([ours.key]) == {ours.key: None}
        assert SignedNote.parse(note.encoded) == note
        with pytest.raises(NoteSignatureError, match="nobody who is known"):
            note.verify([log("c").key])
        with pytest.raises(NoteSignatureError, match="nobody who is known"):
            note.verify([])

    def test_a_known_name_with_an_unknown_id_is_a_stranger(self) -> None:
        ours, impostor = log("a"), log("a")
        note = SignedNote("x\n", (impostor.sign("x\n"),))
        with pytest.raises(NoteSignatureError, match="nobody who is known"):
            note.verify([ours.key])

    def test_one_false_signature_of_a_known_key_spoils_the_note(self) -> None:
        ours, other = log("a"), log("b")
        false = NoteSignature("b", other.key.id, bytes(64))
        with pytest.raises(NoteSignatureError, match="'b'"):
            SignedNote("x\n", (ours.sign("x\n"), false)).verify([ours.key, other.key])

    def test_two_signatures_of_one_key_are_refused(self) -> None:
        signer = witness()
        note = SignedNote("x\n", (signer.sign("x\n", 1), signer.sign("x\n", 2)))
        with pytest.raises(NoteSignatureError, match="twice"):
            note.verify([signer.key])
        same = log()
        with pytest.raises(NoteSignatureError, match="twice"):
            SignedNote("x\n", (same.sign("x\n"),) * 2).verify([same.key])

    def test_a_key_that_signs_again_takes_the_place_of_its_signature(self) -> None:
        signer, other = witness("w1"), witness("w2")
        note = SignedNote("x\n", (signer.sign("x\n", 1), other.sign("x\n", 1)))
        again = note.with_signatures(signer.sign("x\n", 2))
        assert again.verify([signer.key, other.key]) == {signer.key: 2, other.key: 1}

    @pytest.mark.parametrize("length", [0, 1, 63, 65, 71, 73, 2420])
    def test_signatures_of_another_length(self, length: int) -> None:
        for signer in (log(), witness()):
            line = NoteSignature(signer.key.name, signer.key.id, bytes(length))
            if length == (72 if signer.key.kind is WITNESS_TYPE else 64):
                continue
            with pytest.raises(NoteSignatureError):
                SignedNote("x\n", (line,)).verify([signer.key])


SIGNATURE = FOO_NOTE.split("\n")[2]


class TestForm:
    @pytest.mark.parametrize(
        "note",
        [
            "",
            "\n",
            "\n\n",
            "text\n",
            "text\n\n",
            "text\n" + SIGNATURE + "\n",
            "text\n\n" + SIGNATURE,
            "text\n\n" + SIGNATURE + "\n\n",
            "text\n\n" + SIGNATURE + "\nmore\n",
            "text\n\nmore\n" + SIGNATURE + "\n",
            "text\n\n" + SIGNATURE + " \n",
            "text\n\n " + SIGNATURE + "\n",
            "text\n\n" + SIGNATURE.replace("— ", "- ") + "\n",
            "text\n\n" + SIGNATURE.replace("— ", "—") + "\n",
            "text\n\n" + SIGNATURE.replace("example.com/foo ", "") + "\n",
            "text\n\n" + SIGNATURE.replace("foo", "f+o") + "\n",
            "text\n\n" + SIGNATURE.replace("foo", "f\u00a0o") + "\n",
            "text\n\n" + SIGNATURE.replace("example.com/foo", "x" * 256) + "\n",
            "text\n\n" + SIGNATURE[:-1] + "\n",
            "text\n\n" + SIGNATURE[:-2] + "N=\n",  # bits that mean nothing
            "text\n\n" + SIGNATURE.replace("Uw2Q", "Uw-Q") + "\n",
            "text\n\n— name " + b64encode(b"four").decode() + "\n",
            "text\r\n\n" + SIGNATURE + "\n",
            "te\x00xt\n\n" + SIGNATURE + "\n",
            "te\txt\n\n" + SIGNATURE + "\n",
            "te\x1fxt\n\n" + SIGNATURE + "\n",
        ],
    )
    def test_texts_that_are_no_note(self, note: str) -> None:
        with pytest.raises(NoteFormatError):
            SignedNote.parse(note)
        with pytest.raises(NoteFormatError):
            SignedNote.parse(note.encode())

    def test_bytes_that_are_no_text(self) -> None:
        with pytest.raises(NoteFormatError, match="UTF-8"):
            SignedNote.parse(b"text \xff\n\n" + SIGNATURE.encode() + b"\n")
        with pytest.raises(NoteFormatError):
            SignedNote.parse("text \ud800\n\n" + SIGNATURE + "\n")

    def test_a_text_may_hold_empty_lines_and_any_letters(self) -> None:
        signer = log("é/λ")
        text = "one\n\n\ntwo — three\n\n"
        note = SignedNote.parse(SignedNote(text, (signer.sign(text),)).encoded.encode())
        assert note.text == text
        assert note.verify([signer.key]) == {signer.key: None}

    def test_too_large_is_refused_before_it_is_read(self) -> None:
        with pytest.raises(NoteFormatError, match="larger"):
            SignedNote.parse(b"x" * (MAX_NOTE_BYTES + 1))

    def test_so_many_signatures_and_no_more(self) -> None:
        lines = tuple(log(f"log-{i}").sign("x\n") for i in range(MAX_SIGNATURES + 1))
        assert SignedNote.parse(SignedNote("x\n", lines[:-1]).encoded).signatures == lines[:-1]
        with pytest.raises(NoteFormatError, match="signatures"):
            SignedNote("x\n", lines)
        with pytest.raises(NoteFormatError, match="more than"):
            SignedNote.parse("x\n\n" + "".join(f"{one.line}\n" for one in lines))

    @pytest.mark.parametrize("text", ["", "x", "x\r\n", "\x7f\x00\n"])
    def test_a_signer_signs_only_texts_of_notes(self, text: str) -> None:
        with pytest.raises(NoteFormatError, match="text of a note"):
            log().sign(text)


@given(place=st.integers(0, len(FOO_NOTE.encode()) - 1), bit=st.integers(0, 7))
def test_a_bit_changed_anywhere_is_noticed(place: int, bit: int) -> None:
    note = bytearray(FOO_NOTE.encode())
    note[place] ^= 1 << bit
    with pytest.raises((NoteFormatError, NoteSignatureError)):
        SignedNote.parse(bytes(note)).verify([VerifierKey.parse(FOO)])


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_any_bytes_are_a_note_or_a_typed_error(data: bytes | str) -> None:
    try:
        note = SignedNote.parse(data)
    except NoteFormatError:
        return
    assert SignedNote.parse(note.encoded) == note
