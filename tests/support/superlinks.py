"""A real SuperLink in a process of its own, and the part of a ServerApp that talks to it."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from flwr.serverapp import Grid

from hansa.identity import COORDINATOR, Authority, Signer, request_certificate
from hansa.identity.keys import write_private
from hansa.identity.pem import pem
from hansa_server.flower_app.control import Control
from hansa_server.flower_app.league_grid import LeagueGrid
from hansa_server.flower_app.superlink import SECRET_FILE
from hansa_simulations.processes.ports import free_port
from hansa_simulations.processes.serving import taken


@dataclass
class SuperLink:
    """One in a folder, with a certificate of an authority of its own."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        now = datetime.now(UTC)
        authority, signer = Authority.create("League", now), Signer.generate(COORDINATOR)
        authority.save(self.folder / "ca", now)
        signer.save(self.folder / "server.key")
        certificate = authority.issue(request_certificate(signer), COORDINATOR, now, ["127.0.0.1"])
        (self.folder / "server.crt").write_bytes(pem(certificate))
        write_private(self.folder / "secret", secrets.token_hex(16).encode())

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def authority(self) -> bytes:
        return (self.folder / "ca" / "ca.crt").read_bytes()

    def start(self) -> None:
        command = [
            sys.executable, "-m", "hansa_server.flower_app.superlink", "--isolation", "process",
            "--ssl-certfile", str(self.folder / "server.crt"), "--ssl-keyfile", str(self.folder / "server.key"),
            "--ssl-ca-certfile", str(self.folder / "ca" / "ca.crt"), "--enable-supernode-auth",
            "--disable-runtime-dependency-installation", "--host", "127.0.0.1", "--port", str(self.port),
            "--database", str(self.folder / "superlink.sqlite"),
        ]  # fmt: skip
        environment = {
            **os.environ, "FLWR_HOME": str(self.folder / "flower"), "FLWR_TELEMETRY_ENABLED": "0",
            SECRET_FILE: str(self.folder / "secret"),
        }  # fmt: skip
        with (self.folder / "superlink.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        with self.control() as control:
            control.wait(time.monotonic() + 300)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def control(self) -> Control:
        return Control(self.port, self.authority, self.folder / "secret")

    @contextmanager
    def grid(self, run: str) -> Iterator[Grid]:
        """What a ServerApp would be given, in this process."""
        with self.control() as control:
            control.start(run)
        with taken(self.address, self.authority) as grid, closing(LeagueGrid(grid, self.folder)) as own:
            yield own


@contextmanager
def superlink(folder: Path) -> Iterator[SuperLink]:
    made = SuperLink(folder)
    try:
        made.start()
        yield made
    finally:
        made.kill()
