"""`hansa node accept|start|pause|resume`: a member or an auditor takes part in a league."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hansa.cli.lines import lines
from hansa.cli.log_option import LogFormatOption, log_to_stderr
from hansa.cli.options import FormatOption, HomeOption
from hansa.cli.output import Format, emit, reported
from hansa.errors import ExitStatus, UsageError
from hansa.observing.logs import LogFormat

if TYPE_CHECKING:
    from hansa_client.desk import Answer
    from hansa_client.flower_node import AnswersRequests, Link
    from hansa_client.node_file import NodeHome

GRACE_S = 30.0  # for a request in hand, once the node was asked to stop


def accept(
    frozen: Annotated[
        Path, typer.Argument(metavar="FROZEN", help="The agreement that this node has signed.")
    ],
    home: HomeOption,
    keys: Annotated[
        Path, typer.Option("--keys", metavar="keys.json", help="The keys that `hansa agreement keys` wrote.")
    ],
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Have this node serve an agreement: it is checked against keys, signature and the member's own rules.

    Model 0 is built here, from the agreement, and must be the one that it was frozen with. Nothing is sent or spent.
    """
    with reported(output_format):
        from hansa.agreement import read_agreement
        from hansa.errors import AgreementError
        from hansa.ledger import TrustedKeys
        from hansa.ledger.errors import NoBudgetError
        from hansa_client.accepted import accept as put
        from hansa_client.accepted import check_keys
        from hansa_client.node_file import read_home
        from hansa_client.node_ledger import ledger_to_read

        node, agreement, trusted = read_home(home), read_agreement(frozen), TrustedKeys.read(keys)
        agreement.require_frozen()
        check_keys(node, agreement, trusted)
        if node.settings.role == "member":
            problems = node.settings.policy.problems(agreement)
            if problems:
                raise AgreementError(
                    f"this member takes no part in {frozen}", problems, remedy="See [policy] in node.toml."
                )
            with ledger_to_read(node) as ledger:
                if ledger.own.signed_at(agreement.agreement_id) is None:
                    raise NoBudgetError(
                        f"this member has not signed {frozen}",
                        remedy=f"First: hansa agreement sign {frozen} --home {home}",
                    )
        from hansa.cli.model_zero import model_zero  # torch

        accepted = put(node, frozen, trusted, model_zero(agreement))
        data = {
            "folder": str(accepted.folder),
            "agreement_id": agreement.agreement_id,
            "keys": trusted.fingerprint,
            "superlink": node.settings.superlink,
        }
        text = f"{node.settings.name} serves {frozen}.\n{lines(data)}\nNext: hansa node start --home {home}"
        if node.settings.superlink is None:
            text += f"\nFirst say in {home / 'node.toml'} where the SuperLink is."
        emit(data, text=text, output_format=output_format)


def start(
    home: HomeOption,
    log_format: LogFormatOption = LogFormat.TEXT,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Serve the accepted agreements until SIGTERM or Ctrl-C: this process is the member's Flower node.

    It dials out to the SuperLink and needs no port of its own. It runs no code that is sent to it, asks the member's own
    rules first, and after a restart of either side it is back at its place by itself.
    """
    with reported(output_format):
        log_to_stderr(log_format)
        from hansa_client.linking import link_of
        from hansa_client.node_file import read_home

        node, stop = read_home(home), threading.Event()

        def serve() -> None:
            with _counted(node) as watch, _served(node, watch.noted) as (desk, count):
                link = watch.link = link_of(node, desk)
                said = {"name": node.settings.name, "superlink": node.superlink, "agreements": count}
                text = f"{node.settings.name} serves {count} agreement{'s' if count != 1 else ''} through {node.superlink}."
                emit(said, text=text, output_format=output_format)
                sys.stdout.flush()
                link.serve(stop)

        with _stopped_by_signals(stop):
            _until_stopped(serve, stop)


def pause(home: HomeOption, output_format: FormatOption = Format.TEXT) -> None:
    """Take no part in anything until `hansa node resume`; also beside a node that runs."""
    with reported(output_format):
        from hansa_client.assembly import pause_file
        from hansa_client.node_file import read_home

        node = read_home(home)
        pause_file(node).touch()
        text = f"{node.settings.name} pauses. Runs go on without it while enough others are there."
        emit({"name": node.settings.name, "paused": True}, text=text, output_format=output_format)


def resume(home: HomeOption, output_format: FormatOption = Format.TEXT) -> None:
    """Take part again after `hansa node pause`."""
    with reported(output_format):
        from hansa_client.assembly import pause_file
        from hansa_client.node_file import read_home

        node = read_home(home)
        pause_file(node).unlink(missing_ok=True)
        text = f"{node.settings.name} takes part again."
        emit({"name": node.settings.name, "paused": False}, text=text, output_format=output_format)


class _Watch:
    """Counts a node's answers, where somebody wants to know."""

    def __init__(self) -> None:
        self.link: Link | None = None
        self.noted: Callable[[Answer], None] = lambda _: None

    def connected(self) -> bool:
        """Whether the node has its place."""
        return self.link is not None and self.link.connected


@contextmanager
def _counted(node: NodeHome) -> Iterator[_Watch]:
    watch, listen = _Watch(), node.settings.metrics.listen
    if not listen:
        yield watch
        return
    from hansa.observing.scraped import served
    from hansa_client.metrics import NodeMetrics

    metrics = NodeMetrics(node, watch.connected)
    watch.noted = metrics.noted
    with served(metrics.registry, listen) as port:
        logging.getLogger("hansa.node").info("metrics at port %d", port)
        yield watch


@contextmanager
def _served(node: NodeHome, noted: Callable[[Answer], None]) -> Iterator[tuple[AnswersRequests, int]]:
    from hansa_client.accepted import accepted_in

    count = len(accepted_in(node))
    if not count:
        raise UsageError(
            f"{node.folder} has accepted no agreement",
            remedy=f"First: hansa node accept FROZEN --keys keys.json --home {node.folder}",
        )
    from hansa_client.assembly import desk_of

    with desk_of(node, noted) as desk:
        yield desk, count


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    before = {
        number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _until_stopped(serve: Callable[[], None], stop: threading.Event) -> None:
    """Open and serve in one thread, as SQLite wants it, so that signals are heard at once in another.

    A request in hand has some time to end.
    """
    failed: list[BaseException] = []

    def run() -> None:
        try:
            serve()
        except BaseException as error:  # noqa: BLE001  # handed to the main thread
            failed.append(error)
        finally:
            stop.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while not stop.wait(0.5):
        pass
    thread.join(GRACE_S)
    if failed:
        raise failed[0]
    if thread.is_alive():
        typer.echo("A request was still being worked on; what it had reserved stays spent.", err=True)
        sys.stdout.flush()
        os._exit(ExitStatus.FAILED)
