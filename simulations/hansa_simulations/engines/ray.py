"""The Ray engine: Flower's own simulation runtime, for federations larger than one process or machine."""

from __future__ import annotations

import functools
import logging
import os
import pickle
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context
from flwr.serverapp import Grid

from hansa.agreement import Agreement
from hansa.errors import EngineError
from hansa_client.flower_node import AnswersRequests, client_app
from hansa_server.flower_app import GridMembers, server_app
from hansa_simulations.league import League


class RayEngine:
    """Runs members in Ray actors; any actor may answer for any member.

    Args:
        processes: actors at the same time on this machine; each takes one processor.

    Members keep their state in files, because two rounds of a member may meet different actors. On several machines
    the temporary folder (`TMPDIR`) and `--members-home` must be on a file system that all of them see.
    """

    name = "ray"

    def __init__(self, processes: int = 1) -> None:
        self._processes = processes

    def run(
        self, agreement: Agreement, league: League, run: str, coordinate: Callable[[GridMembers], None]
    ) -> None:
        names = tuple(member.name for member in agreement.terms.members)
        stop = threading.Event()
        done = threading.Event()
        failed: list[BaseException] = []

        def main(grid: Grid) -> None:
            try:
                coordinate(GridMembers(grid, agreement, run, stop=stop))
            except BaseException as error:  # noqa: BLE001  # handed to the caller's thread
                failed.append(error)
            finally:
                done.set()

        folder = Path(tempfile.mkdtemp(prefix="hansa-league-"))
        try:
            (folder / "league.pickle").write_bytes(pickle.dumps(league))
            clients = client_app(functools.partial(_node_of, str(folder), names))
            with _quiet_flower(), _quiet_ray():
                from flwr.simulation import run_simulation

                backend: dict[str, Any] = {
                    "init_args": {
                        "num_cpus": self._processes,
                        "include_dashboard": False,
                        "log_to_driver": False,
                    },
                    "client_resources": {"num_cpus": 1, "num_gpus": self._gpu_share(agreement)},
                }
                try:
                    run_simulation(server_app(main), clients, len(names), backend_config=backend)
                except KeyboardInterrupt:
                    stop.set()
                    done.wait(timeout=30)
        except RuntimeError as error:
            raise EngineError("Flower's simulation runtime failed", remedy=f"It said: {error}") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if failed:
            raise failed[0]
        if not done.is_set():
            raise EngineError("Flower's simulation runtime ended before the run did")

    def _gpu_share(self, agreement: Agreement) -> float:
        """Ray hides GPUs from actors that ask for none."""
        device = agreement.performance.device
        wanted = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
        return 1.0 / self._processes if wanted else 0.0


def _node_of(folder: str, names: tuple[str, ...], context: Context) -> AnswersRequests:
    """In an actor: the node of a Flower context, from the league on disk, read once per process."""
    return _league(folder).node(names[int(context.node_config["partition-id"])])


@functools.lru_cache(maxsize=1)
def _league(folder: str) -> League:
    league: League = pickle.loads((Path(folder) / "league.pickle").read_bytes())  # noqa: S301  # written by this run
    return league


@contextmanager
def _quiet_flower() -> Iterator[None]:
    """Flower's own log lines are for its users; a failure still raises."""
    logger = logging.getLogger("flwr")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _quiet_ray() -> Iterator[None]:
    settings = {"RAY_DEDUP_LOGS": "0", "RAY_USAGE_STATS_ENABLED": "0", "FLWR_TELEMETRY_ENABLED": "0"}
    before = {key: os.environ.get(key) for key in settings}
    os.environ.update(settings)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of Flower and Ray about themselves
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
