"""The figures of a run, for those who watch their experiments in TensorBoard or MLflow.

Public figures alone: rounds, quality that a simulator has measured, ε released, bytes, seconds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from hansa.errors import LinkError, UsageError

if TYPE_CHECKING:
    import httpx

_BATCH = 1000  # metrics that MLflow takes at once
_PATIENCE_S = 30.0


@dataclass(frozen=True)
class Figure:
    """One number of a run.

    Attributes:
        name: words with slashes.
        step: the round.
        value: finite.
    """

    name: str
    step: int
    value: float


@dataclass(frozen=True)
class Tracked:
    """A run, as it is tracked.

    Attributes:
        title: in words.
        name: of a folder; no other run has it.
        figures: round by round.
        terms: what stays the same over the run.
        done: whether it ended as agreed.
    """

    title: str
    name: str
    figures: Sequence[Figure]
    terms: Mapping[str, str]
    done: bool


class Tracker(Protocol):
    """Where the figures of a run go."""

    def write(self, run: Tracked) -> None:
        """Write a run.

        Raises:
            LinkError: it cannot be brought there.
        """


def tracker_of(target: str) -> Tracker:
    """A tracker by its name, before anything is run.

    Args:
        target: ``tensorboard:DIR``, or ``mlflow:URL`` of a tracking server.

    Raises:
        UsageError: it is neither.
        ModuleNotFoundError: the package that it needs is not installed.
    """
    kind, _, where = target.partition(":")
    if kind == "tensorboard" and where:
        return TensorBoard(Path(where))
    if kind == "mlflow" and urlsplit(where).scheme in {"http", "https"} and urlsplit(where).hostname:
        return MLflow(where)
    raise UsageError(
        f"--track {target!r} names no tracker",
        remedy="As in tensorboard:runs/board, or mlflow:http://127.0.0.1:5000.",
    )


class TensorBoard:
    """Event files in a folder, a run each; needs the extra ``tracking``.

    Args:
        folder: that TensorBoard is started with.
    """

    def __init__(self, folder: Path) -> None:
        import tensorboard  # noqa: F401  # before the run, not after it

        self._folder = folder

    def write(self, run: Tracked) -> None:
        """See `Tracker.write`."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.text.metadata import create_summary_metadata
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
        from tensorboard.util.tensor_util import make_tensor_proto

        now = time.time()
        text = "\n".join(f"- {name}: {value}" for name, value in run.terms.items())
        values = [
            (
                0,
                Summary.Value(
                    tag="terms",
                    metadata=create_summary_metadata("terms", ""),
                    tensor=make_tensor_proto([text.encode()]),
                ),
            ),
            *((one.step, Summary.Value(tag=one.name, simple_value=one.value)) for one in run.figures),
        ]
        try:
            writer = EventFileWriter(str(self._folder / run.name))
            for step, value in values:
                writer.add_event(Event(wall_time=now, step=step, summary=Summary(value=[value])))
            writer.close()
        except OSError as error:
            raise LinkError(f"the run cannot be written to {self._folder}: {error.strerror}") from None


class MLflow:
    """A run at an MLflow tracking server, over its REST interface (2.0), which needs no package of MLflow's.

    Args:
        url: of the server.
        experiment: by name; made where it is not there.
    """

    def __init__(self, url: str, experiment: str = "hansa") -> None:
        self._url, self._experiment = url.rstrip("/"), experiment

    def write(self, run: Tracked) -> None:
        """See `Tracker.write`."""
        import httpx

        with closing(httpx.Client(base_url=f"{self._url}/api/2.0/mlflow/", timeout=_PATIENCE_S)) as client:
            try:
                self._write(client, run)
            except (httpx.HTTPError, KeyError, ValueError) as error:
                raise LinkError(
                    f"the run cannot be written to {self._url}: {error}",
                    remedy="The run itself is complete. Is this an MLflow tracking server?",
                ) from None

    def _write(self, client: httpx.Client, tracked: Tracked) -> None:
        import httpx

        now = int(time.time() * 1000)
        found = client.get("experiments/get-by-name", params={"experiment_name": self._experiment})
        if found.status_code == httpx.codes.NOT_FOUND:
            experiment = _posted(client, "experiments/create", {"name": self._experiment})["experiment_id"]
        else:
            experiment = found.raise_for_status().json()["experiment"]["experiment_id"]
        asked = {"experiment_id": experiment, "run_name": tracked.title[:200], "start_time": now}
        run = _posted(client, "runs/create", asked)["run"]["info"]["run_id"]
        metrics = [
            {"key": one.name, "value": one.value, "step": one.step, "timestamp": now}
            for one in tracked.figures
        ]
        params = [{"key": name, "value": value} for name, value in tracked.terms.items()]
        for start in range(0, max(len(metrics), 1), _BATCH):
            batch = {
                "run_id": run,
                "metrics": metrics[start : start + _BATCH],
                "params": params if not start else [],
            }
            _posted(client, "runs/log-batch", batch)
        status = "FINISHED" if tracked.done else "KILLED"
        _posted(client, "runs/update", {"run_id": run, "status": status, "end_time": now})


def _posted(client: httpx.Client, path: str, body: dict[str, object]) -> Any:
    return client.post(path, json=body).raise_for_status().json()


def trackers_of(targets: Sequence[str]) -> list[Tracker]:
    """See `tracker_of`."""
    return [tracker_of(target) for target in targets]
