"""The coordinator's one process: it keeps the SuperLink and the ledger service running, and admits the league's nodes."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hansa.errors import EngineError, LinkError, PortError, RunStateError
from hansa.following.address import Address
from hansa.identity.certificates import check_own_certificate
from hansa.identity.keys import write_private
from hansa.identity.pem import pem, read_certificate, read_revocations
from hansa.ledger import Log
from hansa_server.attempts import Attempts
from hansa_server.coordinating import links_of, log_store
from hansa_server.flower_app.control import Control
from hansa_server.flower_app.superlink import REPLY_BYTES, SECRET_FILE
from hansa_server.home import HOME, CoordinatorHome
from hansa_server.parent import PARENT
from hansa_server.pulse import PATIENCE_S, Pulse
from hansa_server.runs import Runs
from hansa_server.sqlite_journal import journal_size

STARTS_WITHIN_S = 180.0  # a second where nothing else runs
_PORT_IS_FREED_S = 8.0  # what a coordinator that was killed leaves behind goes by itself
_LOOK_S, _AGAIN_S, _STOP_S = 0.5, 2.0, 10.0
_STARTS_AGAIN = (
    5  # in a row, of a SuperLink that had been there: it was killed while it started, or did not come in time
)
_ANSWERS_S = 30.0  # what Flower's own commands wait for
_LOG = logging.getLogger("hansa.coordinator")


class Serving(Protocol):
    """A service that is up."""

    def stop(self, grace: float) -> Any:
        """Take no more questions; what comes back can be waited for."""


def secret_of(home: CoordinatorHome) -> Path:
    """The file of what control asks for."""
    return home.state / "control.secret"


def control_of(home: CoordinatorHome, patience_s: float = _ANSWERS_S) -> Control:
    """The control of the SuperLink that runs for a home, each of whose answers is waited for so long."""
    authority = home.path(home.settings.authority).read_bytes()
    return Control(home.listen.port, authority, secret_of(home), patience_s)


def carry(control: Control, runs: Runs, run: str) -> None:
    """Have a Flower run carry a run, in the place of those that carried it: one that waits for its process would come beside it.

    Raises:
        LinkError, EngineError: the SuperLink takes none.
    """
    for earlier in control.carrying(run):
        with suppress(EngineError):  # it has ended meanwhile
            control.stop(earlier)
    runs.carried(run, control.start(run))


def prepare(home: CoordinatorHome) -> None:
    """Make what a coordinator writes to: its folders, the secret of control, and the federation's log, signed empty."""
    for folder in (home.state, home.runs, home.flower):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not secret_of(home).exists():
        write_private(secret_of(home), secrets.token_hex(32).encode())
    if not home.log.exists():
        with closing(log_store(home)) as store:
            Log(store, home.log_signer()).checkpoint()


class Supervisor:
    """See above.

    Args:
        home: of the league.
        told: called with a line whenever something changes.

    Raises:
        HansaError: the home is not that of a league, or its certificate is not acceptable.
    """

    _unwell = ""  # what was told last of a register that cannot be read

    def __init__(self, home: CoordinatorHome, told: Callable[[str], None]) -> None:
        home.check()
        self._home, self._told = home, told
        settings = home.settings
        self._certificate = read_certificate(home.path(settings.certificate))
        check_own_certificate(
            self._certificate,
            home.signer(),
            authority=read_certificate(home.path(settings.authority)),
            revocations=read_revocations(home.path(settings.revocations)),
            at=datetime.now(UTC),
        )
        links_of(home)
        prepare(home)
        self._runs = Runs(home.runs)
        self._seen = set[str]()  # runs
        self._tried = dict[str, int]()  # how far each was when it was resumed
        self._attempts = Attempts(told)

    def serve(self, stop: threading.Event, ready: Callable[[int], None]) -> None:
        """Run until `stop` is set.

        Args:
            stop: from outside.
            ready: called once, with the ledger service's port (0 for none), when nodes may come.

        Raises:
            RunStateError: another coordinator has this home.
            PortError: a port is in use.
            EngineError, LinkError: the SuperLink does not start.
        """
        with ExitStack() as stack:
            stack.enter_context(_only_one(self._home.state))
            _require_free(self._home.listen)
            first, failed = True, 0
            while not stop.is_set():
                with self._superlink() as process, control_of(self._home) as control:
                    port = self._services(stack) if first else 0  # while the SuperLink loads what it needs
                    try:
                        self._wait_for(process, control)
                    except (LinkError, EngineError) as error:
                        failed += 1
                        if first or failed > _STARTS_AGAIN:
                            raise
                        self._told(f"{error.cause}; starting it again")
                        stop.wait(_AGAIN_S)
                        continue
                    failed = 0
                    if first:
                        control.admit(links_of(self._home))
                        ready(port)
                    else:
                        self._told(
                            "the SuperLink is there again; see `hansa run list` for what it interrupted"
                        )
                    self._look_after(process, control, stop, admitted=first)
                    first = False
                    if stop.is_set():
                        return
                    self._told(f"the SuperLink ended with status {process.returncode}; starting it again")
                stop.wait(_AGAIN_S)

    def _look_after(
        self, process: subprocess.Popen[bytes], control: Control, stop: threading.Event, *, admitted: bool
    ) -> None:
        """Until a SuperLink that is there ends, or `stop` is set; one that answers nothing any more is killed."""
        with Pulse(control_of(self._home, PATIENCE_S)) as pulse:
            while process.poll() is None and not stop.wait(_LOOK_S):
                if pulse.lost:
                    self._told(
                        f"the SuperLink has answered nothing for {pulse.silent_s:.0f} seconds; killing it"
                    )
                    process.kill()  # one that stands still hears nothing else
                    process.wait()
                    return
                if not admitted:
                    admitted = self._attempts.made(
                        "the league's nodes cannot be admitted",
                        lambda: control.admit(links_of(self._home)),
                    )
                self._resume(control)

    def _services(self, stack: ExitStack) -> int:
        """Start the ledger service and the metrics; the former's port, 0 for none."""
        port = 0
        if self._home.settings.ledger:
            server, port = self._ledger_service()
            stack.callback(lambda: server.stop(1.0).wait())
        self._metrics(stack)
        return port

    def _metrics(self, stack: ExitStack) -> None:
        listen = self._home.settings.metrics.listen
        if listen:
            from hansa.observing.scraped import served
            from hansa_server.metrics import registry_of

            port = stack.enter_context(served(registry_of(self._runs), listen))
            self._told(f"metrics at port {port}")

    def _resume(self, control: Control) -> None:
        """Have runs go on whose process ended while this coordinator lived, unless it ended before at the same place.

        One that cannot be carried now, say for a SuperLink that is busy, is tried again after a pause.
        """
        try:
            rows = self._runs.all()
        except EngineError as error:  # say a full disk, on which somebody makes room
            if self._unwell != error.cause:
                self._told(error.diagnostics())
            self._unwell = error.cause
            return
        self._unwell = ""
        for row in rows:
            thing = f"run {row.run} cannot go on"
            if row.state in {"starting", "running", "waiting", "stopping"}:
                self._seen.add(row.run)
                self._attempts.forget(thing)
            elif row.state == "interrupted" and row.run in self._seen:
                self._attempts.made(thing, partial(self._carry_on, control, row.run))

    def _carry_on(self, control: Control, run: str) -> None:
        """Have a run go on that was interrupted, unless it was carried on from this place before."""
        size = journal_size(self._runs.folder(run))
        if self._tried.get(run) == size:
            return
        carry(control, self._runs, run)
        self._tried[run] = size  # that a SuperLink did not answer is no end of the run at this place
        self._told(f"run {run} was interrupted, and goes on")

    def _wait_for(self, process: subprocess.Popen[bytes], control: Control) -> None:
        until = time.monotonic() + STARTS_WITHIN_S
        while True:
            try:
                control.wait(min(until, time.monotonic() + 1.0))
            except (LinkError, EngineError):
                if process.poll() is not None:
                    raise EngineError(
                        f"the SuperLink ended with status {process.returncode} before it was ready",
                        remedy=f"Read {self._home.flower / 'superlink.log'}.",
                    ) from None
                if time.monotonic() >= until:
                    raise
            else:
                return

    @contextmanager
    def _superlink(self) -> Iterator[subprocess.Popen[bytes]]:
        home = self._home
        with (home.flower / "superlink.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603  # this interpreter, and paths of the home
                superlink_command(home),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(home),
                start_new_session=True,
            )
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.terminate()
                    try:
                        process.wait(_STOP_S)
                    except subprocess.TimeoutExpired:
                        process.kill()
                        process.wait()

    def _ledger_service(self) -> tuple[Serving, int]:
        from hansa_server.admission import Admission, RosterInForce, WithReaders
        from hansa_server.ledger_service import ServiceIdentity, ledger_server
        from hansa_server.served_logs import require_named, served_logs

        home, settings = self._home, self._home.settings
        served = served_logs([home.log])
        require_named(served, home.keys)
        roster = WithReaders(RosterInForce(home.keys, served), home.readers)
        roster()  # a reader with a party's name is told before anybody listens
        admission = Admission(
            roster,
            home.path(settings.authority),
            home.path(settings.revocations),
            lambda: datetime.now(UTC),
        )
        key = home.signer().private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        identity = ServiceIdentity(key, pem(self._certificate))
        server, port = ledger_server(served, admission, identity, settings.ledger)
        server.start()
        return server, port


def superlink_command(home: CoordinatorHome) -> list[str]:
    """What starts the SuperLink of a home, with `environment`."""
    settings, listen = home.settings, home.listen
    return [
        sys.executable, "-m", "hansa_server.flower_app.superlink",
        "--ssl-certfile", str(home.path(settings.certificate)),
        "--ssl-keyfile", str(home.path(settings.identity_key)),
        "--ssl-ca-certfile", str(home.path(settings.authority)),
        "--enable-supernode-auth", "--disable-runtime-dependency-installation",
        "--host", listen.host, "--port", str(listen.port),
        "--database", str(home.flower / "superlink.sqlite"),
    ]  # fmt: skip


def environment(home: CoordinatorHome) -> dict[str, str]:
    """For processes that the coordinator starts."""
    binaries = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": os.pathsep.join([binaries, os.environ.get("PATH", os.defpath)]),
        "FLWR_HOME": str(home.flower.resolve()),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
        "OMP_WAIT_POLICY": "PASSIVE",
        # glibc would keep what was freed in as many places as there were threads, and ask the system anew for each buffer of a chunk
        "MALLOC_ARENA_MAX": "2",
        "MALLOC_MMAP_THRESHOLD_": str(16 * 2**20),
        "MALLOC_TRIM_THRESHOLD_": str(32 * 2**20),
        HOME: str(home.folder.resolve()),
        PARENT: str(os.getpid()),
        SECRET_FILE: str(secret_of(home).resolve()),
        REPLY_BYTES: str(home.reply_bytes),
    }


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunStateError(
                f"a coordinator is running in {folder} already",
                remedy="Stop it first; a home has one coordinator.",
            ) from None
        yield
    finally:
        os.close(handle)


def _require_free(address: Address) -> None:
    """See that somebody can listen there.

    Raises:
        PortError: nobody can.
    """
    until = time.monotonic() + _PORT_IS_FREED_S
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    while True:
        with closing(socket.socket(family, socket.SOCK_STREAM)) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind((address.host, address.port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE and time.monotonic() < until:
                    time.sleep(0.2)
                    continue
                raise PortError(f"cannot listen at {address}: {error.strerror}") from None
        return
