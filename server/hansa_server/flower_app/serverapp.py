"""The ServerApp that the bundle names: one run of the league whose home the environment says."""

from __future__ import annotations

import logging
import os
from contextlib import closing
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from hansa.errors import CoordinatorError, HansaError, Problem
from hansa.observing.logs import VARIABLE, LogFormat, log_to
from hansa_server.coordinating import coordinate, links_of
from hansa_server.flower_app.league import LeagueMembers, Patience
from hansa_server.flower_app.league_grid import LeagueGrid
from hansa_server.home import HOME, CoordinatorHome, read_home
from hansa_server.members import Members
from hansa_server.observed import ObservedMembers
from hansa_server.parent import follow, started_by
from hansa_server.runs import Runs

_LOG = logging.getLogger("hansa.coordinator")

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Carry one run as far as it goes, or until whoever started this process is gone."""
    follow(started_by())
    folder = os.environ.get(HOME)
    if folder is None:
        raise CoordinatorError(
            "the process of a run does not know whose it is",
            [Problem(HOME, "is not set", "`hansa coordinator start` sets it")],
        )
    home, run = read_home(Path(folder)), str(context.run_config["run"])
    runs = Runs(home.runs)
    _log_to(runs.folder(run) / "run.log")
    try:
        with closing(LeagueGrid(grid, runs.folder(run), home.reply_bytes)) as own:
            coordinate(home, runs, run, lambda floor: members_of(own, home, runs, run, floor))
    except HansaError as error:
        _LOG.error("the run cannot go on: %(why)s", {"why": error.diagnostics(), "error": error})
        raise
    except Exception:
        _LOG.exception("the run cannot go on")
        raise


def _log_to(path: Path) -> None:
    """Flower lets nobody see what a ServerApp writes, so that it goes to a file of the run."""
    log_to(logging.FileHandler(path), LogFormat(os.environ.get(VARIABLE, LogFormat.TEXT)), only="hansa")


def members_of(grid: Grid, home: CoordinatorHome, runs: Runs, run: str, floor: int) -> Members:
    """The league of a home behind a Grid."""
    names = {
        key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo): name
        for name, key in links_of(home).items()
    }

    def told(waiting_for: str, members: dict[str, str]) -> None:
        runs.tell(run, "waiting" if waiting_for else "running", note=waiting_for, members=members)

    patience = Patience(floor, home.settings.wait_for_all_s, home.settings.absent_after_s)
    league = LeagueMembers(grid, names, patience, told, lambda: runs.asked_to_stop(run))
    return ObservedMembers(league, runs, run, home.agreement.agreement_id, lambda: set(league.here))
