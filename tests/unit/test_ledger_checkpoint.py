"""Checkpoints, the policies that accept them, and offline proofs."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.errors import ProofError
from hansa.ledger.checkpoint import Checkpoint, LogPolicy
from hansa.ledger.errors import CosignatureQuorumError, NoteFormatError, NoteSignatureError
from hansa.ledger.note import NoteSigner, SignatureType, SignedNote, VerifierKey
from hansa.ledger.proof import TlogProof
from hansa.merkle import EMPTY_ROOT, MAX_SIZE, inclusion_paths, leaf_hash, tree_root

# A checkpoint of a public log of certificates, as published, with signatures of types that are known here and not.
PUBLIC = """arche2025h1.staging.ct.transparency.dev
1432088532
U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=

— arche2025h1.staging.ct.transparency.dev zTM8sQAAAZ5W0WdjBAMARjBEAiBjW5IQf9pvsYLfQFX6hoGREPMHbdQ3urbllzalApkptQIgIpwtEroeW2BXaHAI4kJXFbon5Ch9MNL5zRNZ55lvGt0=
— arche2025h1.staging.ct.transparency.dev ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygNI75MdhL1bfTW9g8Ei59RA23oHP7Ry1k3ZFWwQ=
— transparency.dev/DEV:witness-little-garden 2AQqhwAAAABqEiEgzgFIqqhbUoDwjMWE6UP8nd8/KYTzwZ2rhIgcqoXHAwVkjZr4AscylP3v7sEodkRAErumC2q44vdgJY096st5BQ==
— witness1.smartit.nu/witness1 pIyCDwAAAABqEiEghIp82KWebrw7/oHQwlTAm3g2RKS4+eebl8eO0WH+/iEcxZ75W3u5hNI7TOQtmJbqmNWVuE0tgh0XwzdZsDsUAQ==
— remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTynk5XeU/zZ0WBxtqB0DrAWfBw==
— witness.stagemole.eu Z/euoAAAAABqEiEgw0i+7g2ENfDAWHmtRzCfKTHSDwYDJA2NmKeGi9Y8FtEyOUvVr+AJmIY/2TUFucgKi7lI7cUiOvKFYe/TmN9DAg==
"""
PUBLIC_LOG = VerifierKey.parse(
    "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f"
)
PUBLIC_WITNESSES = tuple(
    map(
        VerifierKey.parse,
        (
            "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
            "witness.stagemole.eu+67f7aea0+BEqSG3yu9YrmcM3BHvQYTxwFj3uSWakQepafafpUqklv",
            "transparency.dev/DEV:witness-little-garden+d8042a87+BCtusOxINQNUTN5Oj8HObRkh2yHf/MwYaGX4CPdiVEPM",
            "witness1.smartit.nu/witness1+a48c820f+BPSFWg9G6KPiO7QPryYO5Xq4oYJJ+kAvLKLSimDhoxMO",
        ),
    )
)
ORIGIN = "hansa.example/league/member-1"
LOG = NoteSigner.generate(ORIGIN)
WITNESSES = [NoteSigner.generate(f"hansa.example/witness-{i}", SignatureType.WITNESS) for i in range(4)]
KEYS = tuple(witness.key for witness in WITNESSES)
ROOT = leaf_hash(b"entry")


def cosigned(count: int, checkpoint: Checkpoint | None = None, signer: NoteSigner = LOG) -> SignedNote:
    text = (checkpoint or Checkpoint(ORIGIN, 1, ROOT)).text
    lines = [witness.sign(text, 1_700_000_000 + i) for i, witness in enumerate(WITNESSES[:count])]
    return SignedNote(text, (signer.sign(text), *lines))


class TestCheckpoint:
    def test_it_survives_its_text(self) -> None:
        for checkpoint in (
            Checkpoint(ORIGIN, 0, EMPTY_ROOT),
            Checkpoint("any words at all", MAX_SIZE, ROOT, ("nonce 00", "more")),
        ):
            assert Checkpoint.parse(checkpoint.text) == checkpoint

    def test_the_form_is_that_of_the_specification(self) -> None:
        text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
        checkpoint = Checkpoint.parse(text)
        assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
        assert checkpoint.text == text

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "origin\n",
            "origin\n1\n",
            "\n1\nROOT\n",
            "origin\n1\nROOT",
            "origin\n01\nROOT\n",
            "origin\n+1\nROOT\n",
            "origin\n-1\nROOT\n",
            "origin\n 1\nROOT\n",
            "origin\n1.0\nROOT\n",
            "origin\n\u0661\nROOT\n",
            "origin\n9223372036854775808\nROOT\n",
            "origin\n" + "9" * 5000 + "\nROOT\n",
            "origin\n0\nROOT\n",
            "origin\n1\nROOT=\n",
            "origin\n1\n" + b64encode(bytes(31)).decode() + "\n",
            "origin\n1\nROOT\n\n",
            "origin\n1\nROOT\n\nextension\n",
            "origin\n1\nROOT\r\n",
        ],
    )
    def test_texts_that_are_no_checkpoint(self, text: str) -> None:
        with pytest.raises(NoteFormatError):
            Checkpoint.parse(text.replace("ROOT", b64encode(ROOT).decode()))

    @pytest.mark.parametrize(
        ("origin", "size", "root", "extensions"),
        [
            ("", 1, ROOT, ()),
            ("two\nlines", 1, ROOT, ()),
            ("x", -1, ROOT, ()),
            ("x", MAX_SIZE + 1, ROOT, ()),
            ("x", 1, ROOT[:-1], ()),
            ("x", 0, ROOT, ()),
            ("x", 1, ROOT, ("",)),
            ("x", 1, ROOT, ("two\nlines",)),
            ("x", 1, ROOT, ("\x00",)),
        ],
    )
    def test_values_that_are_no_checkpoint(self, origin, size, root, extensions) -> None:
        with pytest.raises(NoteFormatError):
            Checkpoint(origin, size, root, extensions)


class TestPolicy:
    def test_a_published_checkpoint_with_four_public_witnesses(self) -> None:
        seen = LogPolicy(PUBLIC_LOG, PUBLIC_WITNESSES, 4).verify(PUBLIC)
        assert seen.checkpoint.size == 1432088532
        assert set(seen.cosigned) == {key.name for key in PUBLIC_WITNESSES}
        assert set(seen.cosigned.values()) == {0x6A122120}
        assert seen.note.encoded == PUBLIC
        with pytest.raises(NoteSignatureError):
            LogPolicy(PUBLIC_LOG).verify(PUBLIC.replace("1432088532", "1432088533"))

    def test_a_quorum_counts_witnesses_that_are_known(self) -> None:
        policy = LogPolicy(LOG.key, KEYS, 3)
        assert len(policy.verify(cosigned(3)).cosigned) == 3
        assert len(policy.verify(cosigned(4).encoded.encode()).cosigned) == 4
        with pytest.raises(CosignatureQuorumError, match="2 witnesses"):
            policy.verify(cosigned(2))
        with pytest.raises(CosignatureQuorumError):
            LogPolicy(LOG.key, KEYS[:2], 2).verify(cosigned(4).encoded.replace("witness-1", "witness-9"))

    def test_a_quorum_of_strangers_is_none(self) -> None:
        strangers = tuple(
            NoteSigner.generate(f"hansa.example/witness-{i}", SignatureType.WITNESS).key for i in range(4)
        )
        with pytest.raises(CosignatureQuorumError, match="0 witnesses"):
            LogPolicy(LOG.key, strangers, 1).verify(cosigned(4))

    def test_witnesses_alone_do_not_speak_for_the_log(self) -> None:
        note = cosigned(4)
        with pytest.raises(NoteSignatureError, match="has not signed"):
            LogPolicy(LOG.key, KEYS, 3).verify(SignedNote(note.text, note.signatures[1:]))

    def test_a_checkpoint_of_another_log_is_refused_though_its_key_signed(self) -> None:
        text = Checkpoint("hansa.example/league/member-2", 1, ROOT).text
        with pytest.raises(NoteSignatureError, match="is of the log"):
            LogPolicy(LOG.key).verify(SignedNote(text, (LOG.sign(text),)))

    def test_a_key_under_two_names_does_not_count_twice(self) -> None:
        alias = VerifierKey("hansa.example/alias", KEYS[0].public, SignatureType.WITNESS)
        with pytest.raises(NoteFormatError, match="twice"):
            LogPolicy(LOG.key, (*KEYS, alias), 5)

    def test_a_log_is_no_witness_of_itself(self) -> None:
        own = VerifierKey("hansa.example/own", LOG.key.public, SignatureType.WITNESS)
        with pytest.raises(NoteFormatError, match="twice"):
            LogPolicy(LOG.key, (own,), 1)

    @pytest.mark.parametrize(
        ("log", "witnesses", "quorum"),
        [
            (KEYS[0], (), 0),
            (LOG.key, (NoteSigner.generate("x").key,), 1),
            (LOG.key, KEYS, 5),
            (LOG.key, KEYS, -1),
            (LOG.key, (KEYS[0], VerifierKey(KEYS[0].name, bytes(32), SignatureType.WITNESS)), 1),
        ],
        ids=["a witness as log", "a log as witness", "too many", "negative", "one name twice"],
    )
    def test_policies_that_make_no_sense(self, log, witnesses, quorum) -> None:
        with pytest.raises(NoteFormatError):
            LogPolicy(log, witnesses, quorum)

    def test_extensions_are_covered_by_cosignatures(self) -> None:
        note = cosigned(3, Checkpoint(ORIGIN, 1, ROOT, ("nonce 01",)))
        assert LogPolicy(LOG.key, KEYS, 3).verify(note).checkpoint.extensions == ("nonce 01",)
        with pytest.raises(NoteSignatureError):
            LogPolicy(LOG.key, KEYS, 3).verify(note.encoded.replace("nonce 01", "nonce 02"))


ENTRIES = [f"entry {i}".encode() for i in range(11)]
HASHES = [leaf_hash(entry) for entry in ENTRIES]
WHOLE = Checkpoint(ORIGIN, 11, tree_root(HASHES))


def proof(index: int = 4, extra: bytes | None = None) -> TlogProof:
    return TlogProof(index, tuple(inclusion_paths(HASHES)[index]), cosigned(3, WHOLE), extra)


class TestProof:
    POLICY = LogPolicy(LOG.key, KEYS, 3)

    @pytest.mark.parametrize("extra", [None, b"extra information"])
    def test_it_survives_its_text_and_proves_its_entry(self, extra: bytes | None) -> None:
        for index, entry in enumerate(ENTRIES):
            read = TlogProof.parse(proof(index, extra).encoded.encode())
            assert read == proof(index, extra)
            assert read.verify(entry, self.POLICY).checkpoint == WHOLE

    def test_the_form_is_that_of_the_specification(self) -> None:
        lines = proof(4, b"abc").encoded.split("\n")
        assert lines[:3] == ["c2sp.org/tlog-proof@v1", "extra YWJj", "index 4"]
        assert lines[3:7] == [b64encode(node).decode() for node in inclusion_paths(HASHES)[4]]
        assert lines[7] == ""
        assert "\n".join(lines[8:]) == cosigned(3, WHOLE).encoded

    def test_a_log_of_one_entry_needs_no_hashes(self) -> None:
        lonely = TlogProof(0, (), cosigned(3, Checkpoint(ORIGIN, 1, HASHES[0])))
        assert lonely.encoded.startswith("c2sp.org/tlog-proof@v1\nindex 0\n\n" + ORIGIN)
        TlogProof.parse(lonely.encoded).verify(ENTRIES[0], self.POLICY)

    def test_another_entry_another_place_and_too_few_witnesses_are_refused(self) -> None:
        with pytest.raises(ProofError):
            proof().verify(b"another", self.POLICY)
        with pytest.raises(ProofError):
            TlogProof(5, proof().path, proof().note).verify(ENTRIES[4], self.POLICY)
        with pytest.raises(ProofError):
            TlogProof(4, proof().path[:-1], proof().note).verify(ENTRIES[4], self.POLICY)
        with pytest.raises(CosignatureQuorumError):
            proof().verify(ENTRIES[4], LogPolicy(LOG.key, KEYS, 4))

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("c2sp.org/tlog-proof@v1", "c2sp.org/tlog-proof@v2"),
            ("index 4", "index 04"),
            ("index 4", "index -4"),
            ("index 4", "index four"),
            ("index 4", "index \u0664"),
            ("index 4", "index " + "9" * 30),
            ("index 4\n", ""),
            ("extra YWJj", "extra !!"),
            ("extra YWJj", "extra "),
            ("extra YWJj", "extra YWJj\nextra YWJj"),
            ("index 4\n", "index 4\n!!notbase64!!\n"),
            ("index 4\n", "index 4\n" + b64encode(bytes(64)).decode() + "\n"),
            ("index 4\n", "index 4\n" + (b64encode(bytes(32)).decode() + "\n") * 64),
            ("index 4\n", "index 4\n\n"),
            ("\n\nhansa", "\nhansa"),
            ("\n", "\r\n"),
        ],
    )
    def test_texts_that_are_no_proof(self, old: str, new: str) -> None:
        text = proof(4, b"abc").encoded
        assert old in text
        with pytest.raises(NoteFormatError):
            TlogProof.parse(text.replace(old, new))

    def test_bytes_that_are_no_text_and_too_many(self) -> None:
        with pytest.raises(NoteFormatError, match="UTF-8"):
            TlogProof.parse(b"c2sp.org/tlog-proof@v1\nindex 0\n\xff")
        with pytest.raises(NoteFormatError, match="too large"):
            TlogProof.parse(b"c2sp.org/tlog-proof@v1\nindex 0\n" + b"a" * 3_000_000)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_proof_or_a_typed_error(data: bytes) -> None:
    for text in (data, b"c2sp.org/tlog-proof@v1\n" + data, b"c2sp.org/tlog-proof@v1\nindex 1\n\n" + data):
        with pytest.raises(NoteFormatError):
            TlogProof.parse(text)
