"""`hansa coordinator init|start|status`: the consortium's operator keeps a league's meeting place."""

from __future__ import annotations

import logging
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hansa.cli.lines import lines
from hansa.cli.log_option import LogFormatOption, log_to_stderr
from hansa.cli.options import FormatOption, HomeOption
from hansa.cli.output import Format, emit, reported
from hansa.errors import ExitStatus, NotInForceError, OutputExistsError, UsageError
from hansa.observing.logs import LogFormat

if TYPE_CHECKING:
    from hansa.cli.watching import Seen
    from hansa_server.home import CoordinatorHome


def init(
    frozen: Annotated[
        Path, typer.Argument(metavar="FROZEN", help="The agreement that all members have signed.")
    ],
    home: Annotated[
        Path,
        typer.Option("--home", metavar="DIR", help="The folder that `hansa node init coordinator` made."),
    ],
    keys: Annotated[
        Path, typer.Option("--keys", metavar="keys.json", help="The keys that `hansa agreement keys` wrote.")
    ],
    links: Annotated[
        Path, typer.Option("--links", metavar="FOLDER", help="The NAME.link files that the members sent.")
    ],
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Where members reach the SuperLink.")
    ] = "0.0.0.0:8000",  # members come from elsewhere
    ledger: Annotated[
        str,
        typer.Option("--ledger", metavar="HOST:PORT", help="Where logs are served; empty for nowhere."),
    ] = "0.0.0.0:8443",
    reader: Annotated[
        list[Path] | None,
        typer.Option(
            "--reader",
            metavar="NAME.pub",
            help="An auditor that may read the log, by its card; once for each.",
        ),
    ] = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Make the coordinator's home the meeting place of one league: agreement, keys, model 0, who may take a place.

    Everything is checked before anything is written. Configuration and certificates are written by this command and
    `hansa node certificate`; nobody edits a path.
    """
    with reported(output_format):
        from hansa.agreement import read_agreement
        from hansa.agreement.roster import roster_of
        from hansa.following.address import Address
        from hansa.identity.cards import SUFFIX as CARD
        from hansa.identity.cards import read_card
        from hansa.identity.files import write_new
        from hansa.identity.link_key import SUFFIX, read_link
        from hansa_client.node_file import read_home as read_node
        from hansa_server.home import FILE, READERS, CoordinatorFile, CoordinatorHome, coordinator_toml

        node = read_node(home)
        if node.settings.role != "coordinator":
            raise UsageError(f"{home} is not a coordinator's", remedy="Name the home of the coordinator.")
        if (home / FILE).exists():
            raise OutputExistsError(
                f"{home / FILE} is already there",
                remedy="A home is one league; make another home for another league.",
            )
        where, agreement = str(Address.parse(listen)), read_agreement(frozen)
        roster = roster_of(agreement)
        if roster.auditors:
            raise NotInForceError(
                "the agreement names auditors that recompute each sum, and no process does that in a league yet",
                remedy="Freeze it without --auditor; audits from copies of logs need none.",
            )
        served = str(Address.parse(ledger)) if ledger else ""
        if not links.is_dir():
            raise UsageError(
                f"there is no folder {links}", remedy="Name the folder with the NAME.link files."
            )
        found = {read_link(path, roster)[0]: path for path in sorted(links.glob(f"*{SUFFIX}"))}
        readers = {read_card(path).name: path for path in reader or ()}
        missing = [name for name in roster.members if name not in found]
        made = CoordinatorHome(home, CoordinatorFile(listen=where, ledger=served))
        made.league.mkdir(exist_ok=True)
        shutil.copy(frozen, made.agreement_file)
        shutil.copy(keys, made.keys_file)
        for name, path in found.items():
            shutil.copy(path, made.league / f"{name}{SUFFIX}")
        (made.league / READERS).mkdir(exist_ok=True)
        for name, path in readers.items():
            shutil.copy(path, made.league / READERS / f"{name}{CARD}")
        made.check()
        _model_zero(made)
        from hansa_server.supervising import prepare

        prepare(made)
        write_new(home / FILE, coordinator_toml(where, served).encode())
        data = {
            "home": str(home),
            "agreement_id": agreement.agreement_id,
            "listen": where,
            "ledger": served or None,
            "members": list(roster.members),
            "without_link": missing,
            "readers": list(readers),
        }
        text = f"Made the league of {home}.\n{lines(data)}\nNext: hansa coordinator start --home {home}"
        if missing:
            text += f"\nPut the .link files of {', '.join(missing)} into {made.league} before they come."
        emit(data, text=text, output_format=output_format)


def start(
    home: HomeOption,
    log_format: LogFormatOption = LogFormat.TEXT,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Run the SuperLink and the ledger service until SIGTERM or Ctrl-C, and admit the league's nodes.

    Runs are started by `hansa run start`. A run that was interrupted goes on after `hansa run resume`.
    """
    with reported(output_format):
        from hansa_server.home import read_home
        from hansa_server.supervising import Supervisor

        log_to_stderr(log_format)
        league = read_home(home)
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        supervisor = Supervisor(league, _tell)

        def ready(port: int) -> None:
            data = {
                "listen": str(league.listen),
                "ledger_port": port or None,
                "agreement_id": league.agreement.agreement_id,
            }
            text = f"The league meets at {league.listen}.\n{lines({**data, 'listen': None})}"
            emit(data, text=text, output_format=output_format)
            sys.stdout.flush()

        supervisor.serve(stop, ready)


def status(
    home: HomeOption,
    watch: Annotated[bool, typer.Option("--watch", help="Show it as a live table, until Ctrl-C.")] = False,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Show who is there and what runs are doing. Status 5 where the SuperLink does not answer."""
    exit_status = ExitStatus.DONE
    with reported(output_format):
        from hansa.cli.run import run_lines
        from hansa_server.home import read_home
        from hansa_server.runs import Runs

        league = read_home(home)
        if watch:
            from hansa.cli.watching import watch as show

            if output_format is Format.JSON:
                raise UsageError("--watch draws a table", remedy="Leave out --format json, or --watch.")
            show(lambda: _seen(league))
            raise typer.Exit
        seen = _seen(league)
        exit_status = ExitStatus.DONE if seen.up else ExitStatus.CONNECTION
        rows = Runs(league.runs).all()
        data = {
            "listen": seen.listen,
            "superlink": "answers" if seen.up else "does not answer",
            "members": dict(seen.members),
            "runs": [row.as_dict() for row in rows],
        }
        shown = lines({"superlink": data["superlink"], **seen.members})
        text = "\n".join([f"The league at {league.listen}:", shown, *map(run_lines, rows[:5])])
        emit(data, text=text, output_format=output_format, status=exit_status)
    raise typer.Exit(exit_status)


def _seen(league: CoordinatorHome) -> Seen:
    """A league as it is now."""
    from hansa.cli.watching import Seen
    from hansa.errors import HansaError
    from hansa_server.coordinating import links_of
    from hansa_server.flower_app.control import public_pem
    from hansa_server.runs import Runs
    from hansa_server.supervising import control_of

    links, runs = links_of(league), Runs(league.runs)
    try:
        with control_of(league) as control:
            online = set(control.online())
        members = {name: "here" if public_pem(key) in online else "away" for name, key in links.items()}
        up = True
    except HansaError:
        members, up = dict.fromkeys(links, "unknown"), False
    newest = next(iter(runs.all()), None)
    return Seen(str(league.listen), up, members, newest, None if newest is None else runs.watched(newest.run))


def _tell(state: str) -> None:
    logging.getLogger("hansa.coordinator").info("%(state)s", {"state": state})


def _model_zero(home: CoordinatorHome) -> None:
    """Build model 0 and keep it: processes of runs start without torch."""
    import numpy as np

    from hansa.cli.model_zero import model_zero  # torch
    from hansa_server.federation import check_model_zero

    model = model_zero(home.agreement)
    check_model_zero(home.agreement, model)
    np.save(home.model_zero, model, allow_pickle=False)
