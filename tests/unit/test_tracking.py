"""Figures of a report in TensorBoard's files and at an MLflow server's interface."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from hansa.errors import LinkError, UsageError
from hansa.report.schema import HistoryPoint
from hansa.tracking import tracker_of
from hansa_simulations.tracking import figures, terms, tracked
from support.audits import story
from support.published import report_of

HISTORY = [
    HistoryPoint(
        round=number, epsilon=number / 2, pooled=0.5 + number / 10, mean_over_members=0.5, by_member={}
    )
    for number in range(3)
]
REPORT = report_of(story()).model_copy(update={"history": HISTORY})


class Server(BaseHTTPRequestHandler):
    """As MLflow's REST documentation describes it: what was asked, in order."""

    asked: ClassVar[list[tuple[str, dict]]] = []
    status = 200

    def do_GET(self) -> None:
        self._answer(404, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = self.path.removeprefix("/api/2.0/mlflow/")
        type(self).asked.append((name, body))
        answers = {
            "experiments/create": {"experiment_id": "7"},
            "runs/create": {"run": {"info": {"run_id": "r"}}},
        }
        self._answer(self.status, answers.get(name, {}))

    def _answer(self, status: int, body: dict) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    Server.asked, Server.status = [], 200
    made = HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    thread.join()
    made.server_close()


def test_the_figures_are_those_of_the_report() -> None:
    found = {(one.name, one.step): one.value for one in figures(REPORT)}
    assert found["quality/pooled", 2] == 0.7
    assert found["privacy/epsilon", 1] == 0.5
    last = REPORT.round_log[-1]
    assert found["members/present", last.round] == len(last.present)
    assert not any(member.name in name for member in REPORT.members for name, _ in found)  # of nobody alone
    assert terms(REPORT)["agreement_id"] == REPORT.agreement_id


def test_a_run_at_an_mlflow_server_has_every_figure_and_an_end(server: str) -> None:
    tracker_of(f"mlflow:{server}").write(tracked(REPORT))
    assert [name for name, _ in Server.asked] == [
        "experiments/create", "runs/create", "runs/log-batch", "runs/update",
    ]  # fmt: skip
    batch = Server.asked[2][1]
    assert [(one["key"], one["step"], one["value"]) for one in batch["metrics"]] == [
        (one.name, one.step, one.value) for one in figures(REPORT)
    ]
    assert {one["key"]: one["value"] for one in batch["params"]} == terms(REPORT)
    assert Server.asked[3][1]["status"] == "FINISHED"


def test_a_server_that_refuses_or_is_not_there_is_told_and_the_report_stays(server: str) -> None:
    Server.status = 500
    with pytest.raises(LinkError, match="cannot be written"):
        tracker_of(f"mlflow:{server}").write(tracked(REPORT))
    with pytest.raises(LinkError):
        tracker_of("mlflow:http://127.0.0.1:1").write(tracked(REPORT))


@pytest.mark.parametrize(
    "target", ["", "tensorboard", "tensorboard:", "mlflow:file:/x", "mlflow:127.0.0.1:5000", "wandb:x"]
)
def test_what_names_no_tracker_is_refused_before_anything_runs(target: str) -> None:
    with pytest.raises(UsageError, match="names no tracker"):
        tracker_of(target)


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tracking` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker_of(f"tensorboard:{tmp_path}").write(tracked(REPORT))
    (run,) = tmp_path.iterdir()
    read = EventAccumulator(str(run))
    read.Reload()
    assert [(one.step, round(one.value, 6)) for one in read.Scalars("quality/pooled")] == [
        (0, 0.5),
        (1, 0.6),
        (2, 0.7),
    ]
