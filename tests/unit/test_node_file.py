"""`node.toml`: what a party may set, what is told when it is wrong, and where its files are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hansa.errors import ExitStatus
from hansa.identity import COORDINATOR, Signer
from hansa.identity.errors import KeyFileError, NodeFileError
from hansa.identity.keys import CREDENTIALS
from hansa.secagg.seal import Seal
from hansa_client.node_file import FILE, NodeFile, node_toml, read_home
from hansa_client.policy import Policy

MEMBER = 'name = "north"\nstate = "state"\nsealing_key = "sealing.key"\n'


def write(folder: Path, text: str) -> Path:
    (folder / FILE).write_text(text, encoding="utf-8")
    return folder


def told(folder: Path, text: str) -> dict[str, str]:
    with pytest.raises(NodeFileError) as caught:
        read_home(write(folder, text))
    assert caught.value.exit_status is ExitStatus.BAD_INPUT
    return {problem.place: problem.what for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("name", "role"), [("north", "member"), (COORDINATOR, COORDINATOR), ("eye", "auditor")]
)
def test_what_is_written_for_a_new_node_is_read_back(tmp_path, name, role):
    text = node_toml(name, role)
    home = read_home(write(tmp_path, text))
    assert (home.settings.name, home.settings.role) == (name, role)
    assert home.identity_key == tmp_path / "identity.key"
    assert home.certificate == tmp_path / f"{name}.crt"
    assert sum(line.startswith("#") for line in text.splitlines()) >= 4
    assert all(len(line) <= 118 for line in text.splitlines())
    if role == "member":
        assert home.state == tmp_path / "state"
        assert home.sealing_key == tmp_path / "sealing.key"
        assert (home.settings.max_retries, home.settings.data) == (2, None)
        assert home.ledger == tmp_path / "state" / "ledger.sqlite"


def test_every_setting_of_a_member_is_explained_in_the_file(tmp_path):
    text = node_toml("north", "member")
    told = [name for name in NodeFile.model_fields if f"{name} = " in text or f"[{name}]" in text]
    assert told == list(NodeFile.model_fields)
    assert [name for name in Policy.model_fields if f"# {name} = " not in text] == []


def test_absolute_paths_stay_and_relative_ones_start_at_the_file(tmp_path):
    text = (
        MEMBER.replace('"state"', '"/var/lib/hansa"') + 'identity_key = "keys/id"\ncertificate = "c/n.crt"\n'
    )
    home = read_home(write(tmp_path, text))
    assert home.state == Path("/var/lib/hansa")
    assert home.identity_key == tmp_path / "keys" / "id"
    assert home.certificate == tmp_path / "c" / "n.crt"


def test_everything_that_is_wrong_is_told_together(tmp_path):
    text = 'name = "a b"\nrole = "member"\nmax_retries = -1\ncolour = "red"\ndata = 3\nstate = "s"\n'
    found = told(tmp_path, text)
    assert set(found) == {"name", "max_retries", "colour", "data", "sealing_key"}
    assert found["colour"] == "is not a key of this section"
    assert found["sealing_key"] == "is missing"


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("", {"name", "sealing_key", "state"}),
        ('role = "member"\n', {"name", "sealing_key", "state"}),
        ('name = "north"\nrole = "boss"\n', {"role"}),
        ('name = "north"\nrole = "coordinator"\n', {"role"}),
        (MEMBER.replace("north", COORDINATOR), {"role"}),
        (f'name = "{COORDINATOR}"\nrole = "{COORDINATOR}"\nstate = "s"\nmax_retries = 1\n', {"state", "max_retries"}),
        ('name = "eye"\nrole = "auditor"\nsealing_key = "k"\ndata = "d"\n', {"sealing_key", "data"}),
        (MEMBER + "max_retries = true\n", {"max_retries"}),
        (MEMBER + "max_retries = 101\n", {"max_retries"}),
        (MEMBER + "max_retries = 1.0\n", {"max_retries"}),
        (MEMBER + 'identity_key = ""\n', {"identity_key"}),
        (MEMBER + 'former_keys = ["p256:00"]\n', {"former_keys.0"}),
        ('name = "eye"\nrole = "auditor"\nlog_key = "l"\nwitness_key = "w"\n', {"log_key", "witness_key"}),
        (f'name = "{COORDINATOR}"\nrole = "{COORDINATOR}"\nofficer = "o"\nlog_key = "l"\n', {"officer"}),
        (MEMBER + "[sealing]\nkey = 1\n", {"sealing"}),
        (MEMBER.replace("sealing.key", "state/sealing.key"), {"sealing_key"}),
        (MEMBER.replace("sealing.key", "x/../state/deep/k"), {"sealing_key"}),
        (MEMBER.replace("sealing.key", "credential:"), {"sealing_key"}),
        (MEMBER.replace("sealing.key", "credential:../k"), {"sealing_key"}),
        (MEMBER.replace("sealing.key", "credential:.."), {"sealing_key"}),
    ],
)  # fmt: skip
def test_each_mistake_is_told_with_its_place(tmp_path, text, places):
    assert set(told(tmp_path, text)) == places


def test_a_sealing_key_reached_by_a_link_into_the_state_folder_is_told(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "keys").symlink_to(tmp_path / "state")
    assert set(told(tmp_path, MEMBER.replace("sealing.key", "keys/sealing.key"))) == {"sealing_key"}


def test_a_file_that_is_missing_or_no_toml_is_told_without_its_content(tmp_path):
    with pytest.raises(NodeFileError, match="cannot read") as caught:
        read_home(tmp_path)
    assert "hansa node init" in caught.value.problems[0].remedy
    for content in (b"-----BEGIN PRIVATE KEY-----\nsecret", b'name = "\xff"'):
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises(NodeFileError, match="cannot read") as caught:
            read_home(tmp_path)
        assert "PRIVATE" not in caught.value.diagnostics()
        assert "secret" not in caught.value.diagnostics()


def test_a_key_pasted_into_the_file_is_not_repeated(tmp_path):
    text = MEMBER + 'private_key = "0123456789secret"\nidentity_key = 99999999\n'
    with pytest.raises(NodeFileError) as caught:
        read_home(write(tmp_path, text))
    assert "secret" not in caught.value.diagnostics()
    assert "99999999" not in caught.value.diagnostics()


def test_a_sealing_key_may_come_from_systemd(tmp_path, monkeypatch):
    home = read_home(write(tmp_path, MEMBER.replace("sealing.key", "credential:hansa-sealing")))
    monkeypatch.delenv(CREDENTIALS, raising=False)
    with pytest.raises(NodeFileError, match="this process has none"):
        _ = home.sealing_key
    handed = tmp_path / "run"
    handed.mkdir()
    Seal.create(handed / "hansa-sealing")
    (handed / "hansa-sealing").chmod(0o440)
    monkeypatch.setenv(CREDENTIALS, str(handed))
    assert home.sealing_key == handed / "hansa-sealing"
    seal = Seal.load(home.sealing_key)
    assert seal.open("a", seal.seal("a", b"data")) == b"data"


def test_who_is_no_member_has_no_state(tmp_path):
    home = read_home(write(tmp_path, 'name = "eye"\nrole = "auditor"\n'))
    for name in ("state", "sealing_key"):
        with pytest.raises(NodeFileError, match="no member's"):
            getattr(home, name)


def test_the_signer_is_the_files(tmp_path):
    home = read_home(write(tmp_path, MEMBER))
    with pytest.raises(KeyFileError, match="cannot read"):
        home.signer()
    signer = Signer.generate("north")
    signer.save(home.identity_key)
    assert (home.signer().name, home.signer().public_key) == ("north", signer.public_key)
    home.identity_key.chmod(0o640)
    with pytest.raises(KeyFileError, match="read by others"):
        home.signer()


def test_reading_it_needs_neither_torch_nor_flwr():
    program = "import sys, hansa_client.node_file; print(*{name.partition('.')[0] for name in sys.modules})"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"torch", "flwr", "pandas", "opacus", "numpy.random"} & set(ran.stdout.split())
