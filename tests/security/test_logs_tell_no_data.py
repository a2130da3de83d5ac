"""A record value that is planted in data, in exceptions and in what other packages say never stands in a JSON log line."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from hansa.errors import AgreementError, Problem
from hansa.observing import LogFormat, about, log_to
from hansa.observing.logs import CONTEXT, FIELDS
from hansa.wire import Message
from hansa_client.desk import Desk
from hansa_client.policy import Policy

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("shared/hansa", "shared/hansa_flower", "client/hansa_client", "server/hansa_server")
SECRET = "Ottilie-1931-HIV+"
LOG = logging.getLogger("hansa.node")


@pytest.fixture
def written() -> Iterator[Callable[[LogFormat], io.StringIO]]:
    """Has this process log to a stream in a format, and takes everything back afterwards."""
    root, made = logging.getLogger(), list[logging.Handler]()
    before = root.level, threading.excepthook

    def begin(log_format: LogFormat) -> io.StringIO:
        stream = io.StringIO()
        made.append(logging.StreamHandler(stream))
        log_to(made[0], log_format)
        return stream

    yield begin
    for handler in made:
        root.removeHandler(handler)
    root.setLevel(before[0])
    threading.excepthook = before[1]
    logging.captureWarnings(capture=False)


class Fails:
    """A node that fails as one does whose data are not what they should be."""

    def handle(self, request: Message) -> Message:
        try:
            float(SECRET)
        except ValueError:
            LOG.exception(
                "%(member)s: a request of kind %(kind)s was not answered", {"member": "north", "kind": "sum"}
            )
        return Message("refusal", {**request.body, "code": "absent"})


def planted() -> None:
    """Everything that a member's process could say, each with a record in it."""
    try:
        float(SECRET)
    except ValueError as error:
        LOG.exception("by position: %s %r", SECRET, error)  # noqa: TRY401  # as careless code would
        LOG.warning("named, and of no list: %(value)s", {"value": SECRET})
        LOG.warning("an exception as a value: %(error)s", {"error": error})
        try:
            raise AgreementError(f"cannot read {SECRET}", [Problem(SECRET, SECRET)]) from error  # noqa: TRY301
        except AgreementError as ours:
            LOG.exception("ours: %(error)s %(why)s", {"error": ours, "why": ours.diagnostics()})  # noqa: TRY401
    LOG.info("an array: %(members)s %(state)s", {"members": np.array([SECRET]), "state": [SECRET]})
    logging.getLogger("pandas").error("bad line: %s", SECRET)
    logging.getLogger("pandas").error(f"bad line: {SECRET}")  # noqa: G004  # as careless code would
    warnings.warn(SECRET, stacklevel=1)
    thread = threading.Thread(target=lambda: float(SECRET))
    thread.start()
    thread.join()


@pytest.mark.filterwarnings("default")
def test_a_planted_record_stands_in_no_json_line(written) -> None:
    stream = written(LogFormat.JSON)
    planted()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) == 9, lines
    assert SECRET not in stream.getvalue()
    assert [line["raised"] for line in lines if "raised" in line] == [
        ["ValueError"],
        ["AgreementError HANSA-101", "ValueError"],
        ["ValueError"],
    ]
    assert all("test_logs_tell_no_data:" in line["places"][-1] for line in lines if "raised" in line)
    assert {line["error"] for line in lines if "error" in line} == {"ValueError", "HANSA-101"}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("log_format", list(LogFormat))
def test_the_text_of_a_foreign_exception_is_written_in_no_format(written, log_format: LogFormat) -> None:
    stream = written(log_format)
    for name in ("hansa.node", "pandas"):
        try:
            float(SECRET)
        except ValueError:
            logging.getLogger(name).exception("it failed")
    assert stream.getvalue().count("it failed") == (2 if log_format is LogFormat.TEXT else 1)
    assert "ValueError" in stream.getvalue()
    assert SECRET not in stream.getvalue()


def test_what_another_formatter_has_kept_is_not_repeated(written) -> None:
    stream = written(LogFormat.TEXT)
    try:
        float(SECRET)
    except ValueError:
        record = LOG.makeRecord("hansa.node", logging.ERROR, __file__, 1, "it failed", (), sys.exc_info())
    logging.Formatter().format(record)
    assert SECRET in str(record.exc_text)
    LOG.handle(record)
    assert "it failed" in stream.getvalue()
    assert SECRET not in stream.getvalue()


def test_events_of_a_request_belong_to_agreement_run_round_and_phase(written) -> None:
    stream = written(LogFormat.JSON)
    desk = Desk({"a" * 64: Fails()}, Policy(), lambda: datetime(2026, 11, 29, tzinfo=UTC))
    desk.handle(Message("sum", {"agreement_id": "a" * 64, "run": "r-1", "round": 7, "record": SECRET}))
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["agreement"], line["run"], line["phase"]) for line in lines] == [
        ("a" * 16, "r-1", "sum")
    ] * 2
    assert (lines[1]["exchange"], lines[1]["outcome"]) == (7, "absent")
    assert SECRET not in stream.getvalue()


def test_what_is_said_inside_is_said_no_more_outside(written) -> None:
    stream = written(LogFormat.JSON)
    with about(run="r", round=2):
        with about(phase="masked", round=None):
            LOG.info("inside")
        LOG.info("between")
    LOG.info("outside")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [{name: line[name] for name in CONTEXT if name in line} for line in lines] == [
        {"run": "r", "round": 2, "phase": "masked"},
        {"run": "r", "round": 2},
        {},
    ]


def calls() -> list[tuple[Path, ast.Call]]:
    """The calls of the source that write an event."""
    levels = {"debug", "info", "warning", "error", "exception", "critical", "log"}
    paths = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    assert len(paths) > 100
    return [
        (path, node)
        for path, text in ((path, path.read_text(encoding="utf-8")) for path in paths)
        if "getLogger" in text
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in levels
        if re.fullmatch(r"_LOG|_log|logging\.getLogger\(.*\)", ast.unparse(node.func.value))
    ]


def test_every_event_of_the_source_is_a_constant_text() -> None:
    """A text that is put together would bring its values past the list of names."""
    assert len(calls()) > 25
    for path, call in calls():
        text = call.args[0]
        assert isinstance(text, ast.Constant), f"{path.name}:{call.lineno}"
        assert isinstance(text.value, str)


def test_a_members_counts_are_given_under_no_name_that_travels_in_json() -> None:
    """What training observes (non-finite units, empty batches, records) is for the member's terminal alone."""
    assert not {
        name for name in FIELDS if any(word in name for word in ("unit", "record", "batch", "loss", "label"))
    }
