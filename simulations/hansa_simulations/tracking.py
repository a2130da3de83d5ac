"""What a report shows, for those who watch their experiments in TensorBoard or MLflow.

Public figures alone: rounds, quality that the simulator has measured, ε released, bytes, seconds. All of it stands in
`report.json` too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx

from hansa.errors import LinkError, UsageError
from hansa.report import Report

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


class Tracker(Protocol):
    """Where the figures of a run go."""

    def write(self, report: Report) -> None:
        """Write the figures and the terms of a run.

        Raises:
            LinkError: they cannot be brought there.
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


def figures(report: Report) -> Iterator[Figure]:
    """What is tracked of a run, round by round."""
    for point in report.history:
        if point.epsilon is not None:
            yield Figure("privacy/epsilon", point.round, point.epsilon)
        if point.epsilon_colluding is not None:
            yield Figure("privacy/epsilon_colluding", point.round, point.epsilon_colluding)
        yield Figure("quality/pooled", point.round, point.pooled)
        yield Figure("quality/mean_over_members", point.round, point.mean_over_members)
    for one in report.round_log:
        yield Figure("members/present", one.round, len(one.present))
        yield Figure("members/absent", one.round, len(one.absent))
        yield Figure("cost/seconds", one.round, one.seconds)
        yield Figure("cost/upload_bytes", one.round, one.upload_bytes)
        yield Figure("cost/download_bytes", one.round, one.download_bytes)


def terms(report: Report) -> dict[str, str]:
    """What stays the same over a run."""
    found = {
        "agreement_id": report.agreement_id, "mechanism": report.mechanism, "engine": report.engine,
        "seed": report.seed, "rounds_planned": report.rounds_planned, "sampling_rate": report.sampling_rate,
        "noise_multiplier": report.noise_multiplier, "clipping_norm": report.clipping_norm,
        "parameters": report.parameters, "members": len(report.members), "quality_metric": report.quality.metric,
    }  # fmt: skip
    return {name: str(value) for name, value in found.items() if value is not None}


class TensorBoard:
    """Event files in a folder, a run each; needs the extra ``tracking``.

    Args:
        folder: that TensorBoard is started with.
    """

    def __init__(self, folder: Path) -> None:
        import tensorboard  # noqa: F401  # before the run, not after it

        self._folder = folder

    def write(self, report: Report) -> None:
        """See `Tracker.write`."""
        from torch.utils.tensorboard import SummaryWriter

        run = self._folder / f"{report.agreement_id[:12]}-{report.seed}-{time.strftime('%Y%m%dT%H%M%S')}"
        with SummaryWriter(log_dir=str(run)) as writer:
            for one in figures(report):
                writer.add_scalar(one.name, one.value, one.step)
            writer.add_text("terms", "\n".join(f"- {name}: {value}" for name, value in terms(report).items()))


class MLflow:
    """A run at an MLflow tracking server, over its REST interface (2.0), which needs no package of MLflow's.

    Args:
        url: of the server.
        experiment: by name; made where it is not there.
    """

    def __init__(self, url: str, experiment: str = "hansa") -> None:
        self._url, self._experiment = url.rstrip("/"), experiment

    def write(self, report: Report) -> None:
        """See `Tracker.write`."""
        with closing(httpx.Client(base_url=f"{self._url}/api/2.0/mlflow/", timeout=_PATIENCE_S)) as client:
            try:
                self._write(client, report)
            except (httpx.HTTPError, KeyError, ValueError) as error:
                raise LinkError(
                    f"the run cannot be written to {self._url}: {error}",
                    remedy="The report itself is complete. Is this an MLflow tracking server?",
                ) from None

    def _write(self, client: httpx.Client, report: Report) -> None:
        now = int(time.time() * 1000)
        found = client.get("experiments/get-by-name", params={"experiment_name": self._experiment})
        if found.status_code == httpx.codes.NOT_FOUND:
            experiment = _posted(client, "experiments/create", {"name": self._experiment})["experiment_id"]
        else:
            experiment = found.raise_for_status().json()["experiment"]["experiment_id"]
        asked = {"experiment_id": experiment, "run_name": report.title[:200], "start_time": now}
        run = _posted(client, "runs/create", asked)["run"]["info"]["run_id"]
        metrics = [
            {"key": one.name, "value": one.value, "step": one.step, "timestamp": now}
            for one in figures(report)
        ]
        params = [{"key": name, "value": value} for name, value in terms(report).items()]
        for start in range(0, max(len(metrics), 1), _BATCH):
            batch = {
                "run_id": run,
                "metrics": metrics[start : start + _BATCH],
                "params": params if not start else [],
            }
            _posted(client, "runs/log-batch", batch)
        status = "FINISHED" if report.status == "done" else "KILLED"
        _posted(client, "runs/update", {"run_id": run, "status": status, "end_time": now})


def _posted(client: httpx.Client, path: str, body: dict[str, object]) -> Any:
    return client.post(path, json=body).raise_for_status().json()


def trackers_of(targets: Sequence[str]) -> list[Tracker]:
    """See `tracker_of`."""
    return [tracker_of(target) for target in targets]
