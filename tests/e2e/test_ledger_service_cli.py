"""`hansa ledger serve` in a process of its own, and `hansa audit follow` against it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hansa.following.mirror import REFUSED_NAME
from hansa.identity import COORDINATOR
from hansa.ledger import NoteSigner, TrustedKeys
from support.audits import FEDERATION_SIGNER, KEYS, MEMBERS, SIGNERS, story, write_store
from support.cli import Called, finished, hansa, hansa_process
from support.services import HOST, Consortium

ENTRIES = story().federation


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return Consortium.make(tmp_path)


def log_at(path: Path, size: int = len(ENTRIES), witnesses: tuple[str, ...] = MEMBERS) -> Path:
    return write_store(ENTRIES[:size], FEDERATION_SIGNER, path, [size], witnesses)


@contextmanager
def served(consortium: Consortium, *logs: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    home = consortium.home(SIGNERS[COORDINATOR], HOST)
    process = hansa_process(
        "ledger", "serve", *logs, "--listen", f"{HOST}:0", "--home", home, "--keys", consortium.keys,
        "--ca", consortium.ca, "--crl", consortium.crl,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.startswith(f"Serving at {HOST}:"), first + (
            process.stderr.read() if process.stderr else ""
        )
        yield first.split()[2].rstrip(","), process
    finally:
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=600)
        assert process.returncode == 0, stdout + stderr


def followed(consortium: Consortium, address: str, mirror: Path, *more: str | Path) -> Called:
    home = next(iter(consortium.folder.glob(f"home-*-{MEMBERS[0]}")), None) or consortium.home(
        SIGNERS[MEMBERS[0]]
    )
    return hansa(
        "audit", "follow", address, "--keys", consortium.keys, "--mirror", mirror, "--home", home,
        "--ca", consortium.ca, "--once", *more,
    )  # fmt: skip


def test_a_log_is_served_mirrored_and_audited(consortium: Consortium, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    with served(consortium, log_at(tmp_path / "log.sqlite")) as (address, _):
        called = followed(consortium, address, mirror, "--format", "json")
        assert called.status == 0, called.stderr
        assert called.data["entries"] == called.data["cosigned"] == len(ENTRIES)
        assert len(called.data["by"]) == 5
        again = followed(consortium, address, mirror)
        assert again.status == 0
        assert again.stdout.startswith("Verified and mirrored.")
    verified = hansa("audit", "verify", mirror, "--keys", consortium.keys, "--format", "json")
    assert verified.status == 0, verified.stdout
    assert verified.data["logs"][0]["sealed"] == len(ENTRIES)


def test_a_log_that_became_shorter_ends_with_status_4(consortium: Consortium, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    with served(consortium, log_at(tmp_path / "log.sqlite")) as (address, _):
        assert followed(consortium, address, mirror).status == 0
    with served(consortium, log_at(tmp_path / "older.sqlite", 20)) as (address, _):
        called = followed(consortium, address, mirror, "--format", "json")
    assert called.status == 4
    assert called.envelope["error"]["code"] == "HANSA-746"
    assert "cut off, or restored" in called.envelope["error"]["cause"]
    assert (mirror / REFUSED_NAME).exists()
    refused = hansa(
        "audit", "verify", mirror, mirror / REFUSED_NAME, "--keys", consortium.keys, "--format", "json"
    )
    assert refused.status == 0  # an older checkpoint of the same history: no proof of anything by itself


def test_a_log_without_a_quorum_ends_with_status_4(consortium: Consortium, tmp_path: Path) -> None:
    with served(consortium, log_at(tmp_path / "log.sqlite", witnesses=MEMBERS[:2])) as (address, _):
        called = followed(consortium, address, tmp_path / "mirror")
    assert called.status == 4
    assert "HANSA-744" in called.stderr


def test_keys_of_another_federation_are_named_as_such(consortium: Consortium, tmp_path: Path) -> None:
    with served(consortium, log_at(tmp_path / "log.sqlite")) as (address, _):
        for name, status, words in (
            ("hansa.example/other", 5, "Are these the keys of the federation"),
            (FEDERATION_SIGNER.key.name, 4, "they may be those of another federation"),
        ):
            others = KEYS.model_copy(update={"federation_log": NoteSigner.generate(name).key.text})
            TrustedKeys(**others.model_dump()).write(tmp_path / "others.json")
            called = followed(
                consortium, address, tmp_path / f"mirror-{status}", "--keys", tmp_path / "others.json"
            )
            assert called.status == status, called
            assert words in called.stderr
            assert "certificate" not in called.stderr


def test_nobody_there_ends_with_status_5(consortium: Consortium, tmp_path: Path) -> None:
    called = followed(consortium, f"{HOST}:1", tmp_path / "mirror")
    assert called.status == 5
    assert "HANSA-771" in called.stderr


def test_a_stranger_ends_with_status_5_and_the_server_says_why(
    consortium: Consortium, tmp_path: Path
) -> None:
    home = consortium.home(SIGNERS[MEMBERS[0]], name=MEMBERS[1])
    with served(consortium, log_at(tmp_path / "log.sqlite")) as (address, process):
        called = hansa(
            "audit", "follow", address, "--keys", consortium.keys, "--mirror", tmp_path / "mirror", "--home", home,
            "--ca", consortium.ca, "--once",
        )  # fmt: skip
        assert called.status == 5
        assert "does not admit this party" in called.stderr
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        told = process.stderr.read()
    assert "was refused: HANSA-704: the certificate shown for 'member-2' is refused — " in told
    assert "certificate: its key is not the pinned" in told


def test_following_goes_on_until_it_is_stopped(consortium: Consortium, tmp_path: Path) -> None:
    home = consortium.home(SIGNERS[MEMBERS[0]])
    with served(consortium, log_at(tmp_path / "log.sqlite")) as (address, _):
        process = hansa_process(
            "audit", "follow", address, "--keys", consortium.keys, "--mirror", tmp_path / "mirror", "--home", home,
            "--ca", consortium.ca,
        )  # fmt: skip
        assert process.stderr is not None
        assert (
            process.stderr.readline()
            == f"{len(ENTRIES)} entries, {len(ENTRIES)} of them cosigned by 5 members\n"
        )
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=600)
        assert process.returncode == 1
        assert "HANSA-504" in stderr
    assert (tmp_path / "mirror" / "federation.sqlite").exists()


class TestServing:
    def serve(self, consortium: Consortium, *logs: Path, home: Path, listen: str = f"{HOST}:0") -> Called:
        return hansa(
            "ledger", "serve", *logs, "--listen", listen, "--home", home, "--keys", consortium.keys,
            "--ca", consortium.ca, "--crl", consortium.crl,
        )  # fmt: skip

    def test_a_certificate_that_is_revoked_serves_nothing(
        self, consortium: Consortium, tmp_path: Path
    ) -> None:
        home = consortium.home(SIGNERS[COORDINATOR], HOST)
        consortium.revoke(home)
        called = self.serve(consortium, log_at(tmp_path / "log.sqlite"), home=home)
        assert called.status == 2
        assert "is revoked" in called.stderr

    def test_what_is_no_log(self, consortium: Consortium, tmp_path: Path) -> None:
        home = consortium.home(SIGNERS[COORDINATOR], HOST)
        (tmp_path / "not.sqlite").write_text("nothing")
        (tmp_path / "keys").mkdir()
        for name in ("not.sqlite", "none.sqlite", "keys", "keys.json"):
            called = self.serve(consortium, tmp_path / name, home=home)
            assert called.status == 2, name
            assert f"{tmp_path / name}" in called.stderr
            assert "Name the .sqlite file of a log" in called.stderr
        log = log_at(tmp_path / "log.sqlite")
        twice = self.serve(consortium, log, log, home=home)
        assert twice.status == 2
        assert "is named twice" in twice.stderr

    @pytest.mark.parametrize(
        "listen",
        [
            "nowhere",
            f"{HOST}:",
            f"{HOST}:-1",
            f"{HOST}:65536",
            f"{HOST}:99999",
            ":8443",
            "::1:0",
            f"{HOST}:0x1",
        ],
    )
    def test_what_is_no_address(self, consortium: Consortium, tmp_path: Path, listen: str) -> None:
        home = consortium.home(SIGNERS[COORDINATOR], HOST)
        called = self.serve(consortium, log_at(tmp_path / "log.sqlite"), home=home, listen=listen)
        assert called.status == 2
        assert f"{listen!r} is not HOST:PORT" in called.stderr

    @pytest.mark.parametrize("name", ["hansa.example/other", FEDERATION_SIGNER.key.name])
    def test_a_log_of_another_federation(self, consortium: Consortium, tmp_path: Path, name: str) -> None:
        """Also one that is called the same, as every coordinator's log is at first."""
        home = consortium.home(SIGNERS[COORDINATOR], HOST)
        other = write_store(ENTRIES[:5], NoteSigner.generate(name), tmp_path / "other.sqlite", [5], ())
        called = self.serve(consortium, log_at(tmp_path / "log.sqlite"), other, home=home)
        assert called.status == 2
        twice = name == FEDERATION_SIGNER.key.name
        assert ("is named twice" if twice else f"the keys name no log {name!r}") in called.stderr
        called = self.serve(consortium, other, home=home)
        assert called.status == 2
        assert name in called.stderr
        assert "Are these the keys of this federation?" in called.stderr

    def test_where_somebody_else_listens(
        self, consortium: Consortium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In a process of its own: what gRPC writes beside what is said goes past Python."""
        monkeypatch.delenv("GRPC_VERBOSITY", raising=False)  # Flower sets it where it was imported
        home = consortium.home(SIGNERS[COORDINATOR], HOST)
        with socket.create_server((HOST, 0)) as taken:
            listen = f"{HOST}:{taken.getsockname()[1]}"
            called = finished(
                hansa_process(
                    "ledger", "serve", log_at(tmp_path / "log.sqlite"), "--listen", listen, "--home", home,
                    "--keys", consortium.keys, "--ca", consortium.ca, "--crl", consortium.crl,
                )
            )  # fmt: skip
        assert called.status == 5
        assert called.stderr.startswith(f"HANSA-507: cannot listen at {listen}\n"), called.stderr
        assert called.stderr.count("\n") == 2


@pytest.mark.parametrize(
    "address", ["localhost", "localhost:", "localhost:abc", "localhost:0", "localhost:99999", ""]
)
def test_what_is_no_address_is_told_at_once(consortium: Consortium, tmp_path: Path, address: str) -> None:
    called = followed(consortium, address, tmp_path / "mirror")
    assert called.status == 2
    assert "is not HOST:PORT" in called.stderr
    assert not (tmp_path / "mirror").exists()


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (
            ["audit", "follow", "localhost:1", "--keys", "k", "--mirror", "m", "--home", "h", "--ca", "c"],
            "follow",
        ),
        (
            [
                "ledger",
                "serve",
                "l",
                "--listen",
                "x",
                "--home",
                "h",
                "--keys",
                "k",
                "--ca",
                "c",
                "--crl",
                "r",
            ],
            "server",
        ),
    ],
)
def test_without_grpc_the_extra_is_named(arguments: list[str], extra: str) -> None:
    program = (
        f"import sys; sys.modules['grpc'] = None; from hansa.cli.app import run; sys.exit(run({arguments!r}))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "HANSA-103: this command needs grpc" in ran.stderr
    assert f"pip install 'hansa[{extra}]'" in ran.stderr


@pytest.mark.parametrize("command", [["audit", "follow"], ["ledger", "serve"]])
def test_help_brings_no_grpc(command: list[str]) -> None:
    program = (
        "import json, sys; from hansa.cli.app import run\n"
        f"try: run([*{command!r}, '--help'])\n"
        "except SystemExit: pass\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "--home" in ran.stdout
    assert not {"grpc", "google", "cryptography", "pydantic", "numpy"} & set(json.loads(ran.stderr))
