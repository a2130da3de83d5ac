"""Keys of places at a SuperLink: whose they are is signed with the key that the agreement pins."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from hansa.errors import UsageError, WireError
from hansa.identity import Roster, Signer, Statement
from hansa.identity.errors import KeyFileError, SignatureError, UnknownSignerError
from hansa.identity.link_key import PURPOSE, make_link_key, read_link, read_link_key, vouched
from support.identities import mode

SIGNERS = {name: Signer.generate(name) for name in ("north", "harbour", "valley", "coordinator", "stranger")}
ROSTER = Roster(
    {name: SIGNERS[name].public_key for name in ("north", "harbour", "valley")},
    SIGNERS["coordinator"].public_key,
)


def written(folder: Path, text: str) -> Path:
    path = folder / "some.link"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_key_is_its_owners_and_read_by_it_alone(tmp_path: Path) -> None:
    line = make_link_key(tmp_path / "link.key", SIGNERS["north"])
    key = read_link_key(tmp_path / "link.key")
    assert mode(tmp_path / "link.key") == 0o600
    assert isinstance(key.curve, ec.SECP384R1)
    assert read_link(written(tmp_path, line), ROSTER) == ("north", key.public_key())
    with pytest.raises(KeyFileError, match="exists already"):
        make_link_key(tmp_path / "link.key", SIGNERS["north"])
    (tmp_path / "link.key").chmod(0o640)
    with pytest.raises(KeyFileError, match="read by others"):
        read_link_key(tmp_path / "link.key")


def test_another_key_is_no_key_of_a_place(tmp_path: Path) -> None:
    SIGNERS["north"].save(tmp_path / "identity.key")
    with pytest.raises(KeyFileError, match="no P-384 key"):
        read_link_key(tmp_path / "identity.key")
    p256 = vouched(ec.generate_private_key(ec.SECP256R1()), SIGNERS["north"])
    with pytest.raises(WireError, match="something else than a key on P-384"):
        read_link(written(tmp_path, p256), ROSTER)


KEY = ec.generate_private_key(ec.SECP384R1())
GOOD = vouched(KEY, SIGNERS["north"])


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (vouched(KEY, SIGNERS["stranger"]), UnknownSignerError),
        (GOOD.replace(" north ", " harbour "), SignatureError),  # north's key in harbour's name
        (GOOD + GOOD, WireError),
        (GOOD.replace("AAAA", "AAAB", 1), SignatureError),
        (Statement.sign(SIGNERS["north"], "secagg.keys", {"public_key": "x"}).line + "\n", WireError),
        (Statement.sign(SIGNERS["north"], PURPOSE, {"public_key": "x"}).line + "\n", WireError),
        (Statement.sign(SIGNERS["north"], PURPOSE, {}).line + "\n", WireError),
        ("", WireError),
        ("north p256:02\n", WireError),
    ],
)
def test_nobodys_key_is_taken_in_anothers_name(tmp_path: Path, text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        read_link(written(tmp_path, text), ROSTER)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        read_link(tmp_path / "none.link", ROSTER)
