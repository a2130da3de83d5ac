"""Events as log lines, in which no record, no count of a member's and no text of a foreign exception can stand.

An event is a constant text of the source with named values: ``_LOG.info("%(member)s is there", {"member": name})``. Of
the values a JSON line carries those of `FIELDS` and no others; what is given by position is for a person at the terminal.
An exception is told by its type and by where it arose, in both formats: its text may repeat what a file holds.
"""

from __future__ import annotations

import copy
import json
import logging
import re
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum
from types import TracebackType
from typing import TypeAlias

from hansa.errors import HansaError

VARIABLE = "HANSA_LOG_FORMAT"  # of the environment: which format processes that are started here write
FIELDS = frozenset({
    "address", "bytes_in", "bytes_out", "code", "connection", "error", "exchange", "flower_error", "flower_node",
    "flower_run", "kind", "members", "members_absent", "members_late", "members_present", "model", "outcome", "peer",
    "rounds", "seconds", "state", "step", "waiting_for",
})  # fmt: skip
CONTEXT = ("agreement", "run", "round", "phase", "member")
MAX_TEXT = 300  # of a value: names and codes of other parties are no place for a novel

_OWN = re.compile(r"hansa(_client|_server|_simulations)?(\.|$)")
_NAMED, _BY_POSITION = re.compile(r"%\((\w+)\)[-+ #0-9.]*[a-zA-Z]"), re.compile(r"%[-+ #0-9.]*[a-zA-Z]")
_about: ContextVar[Mapping[str, str | int]] = ContextVar("about", default={})  # noqa: B039  # never changed in place

Raised: TypeAlias = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None] | None
)


class LogFormat(StrEnum):
    """How events are written."""

    TEXT = "text"
    JSON = "json"


@contextmanager
def about(**context: str | int | None) -> Iterator[None]:
    """Have every event inside say what it belongs to.

    Args:
        context: of `CONTEXT`; `None` leaves what was said outside.
    """
    token = _about.set(
        {**_about.get(), **{name: value for name, value in context.items() if value is not None}}
    )
    try:
        yield
    finally:
        _about.reset(token)


def log_to(handler: logging.Handler, log_format: LogFormat, *, only: str = "") -> None:
    """Write events of this process, from INFO up.

    Args:
        handler: where to.
        log_format: of the lines.
        only: the name of the logger whose events these are; by default all of the process, those of other packages from
            WARNING up, with warnings of Python and threads that end by an exception among them.
    """
    handler.setFormatter(JsonLines() if log_format is LogFormat.JSON else TextLines())
    logger = logging.getLogger(only)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    if only:
        return
    for name in ("flwr", "httpx", "httpcore", "uvicorn", "grpc"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    threading.excepthook = _thread_ended


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, event, what it belongs to, the values of `FIELDS`.

    Guarantees: every text is a constant of Hansa's source, or a value under a name of `FIELDS` or `CONTEXT`; of events of
        other packages nothing is told but logger, level and place.
    """

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {"at": at, "level": record.levelname, "logger": record.name}
        if not _OWN.match(record.name):
            line |= {"event": "another package said something", "place": f"{record.module}:{record.lineno}"}
            return json.dumps(line)
        line |= {"event": _event(record), **_about.get()}
        if isinstance(record.args, Mapping):
            named = {
                name: _plain(value)
                for name, value in record.args.items()
                if name in FIELDS or name in CONTEXT
            }
            line |= {name: value for name, value in named.items() if value is not None}
        if record.exc_info and record.exc_info[1] is not None:
            line |= {"raised": _types(record.exc_info[1]), "places": _places(record.exc_info[1])}
        return json.dumps(
            {name: _short(value) for name, value in line.items()}, ensure_ascii=False, allow_nan=False
        )


class TextLines(logging.Formatter):
    """A line for people, with what is given by position; of an exception its types and places."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(name)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        own = copy.copy(record)
        own.exc_text = None  # another formatter may have kept its own there
        return super().format(own)

    def formatException(self, ei: Raised) -> str:  # noqa: N802  # logging calls it so
        if ei is None or ei[1] is None:
            return ""
        places = [f"  at {place}" for place in _places(ei[1])]
        return "\n".join([*places, "  " + " from ".join(_types(ei[1]))])


def _event(record: logging.LogRecord) -> str:
    text = _NAMED.sub(lambda found: "{" + found[1] + "}", str(record.msg))
    return _BY_POSITION.sub("…", text)


def _plain(value: object) -> object:
    if isinstance(value, HansaError):
        return value.code
    if isinstance(value, BaseException):
        return type(value).__name__
    if isinstance(value, float):
        return round(value, 6) if abs(value) < float("inf") else None
    return value if isinstance(value, bool | int | str) else None


def _short(value: object) -> object:
    return value[:MAX_TEXT] if isinstance(value, str) else value


def _types(error: BaseException) -> list[str]:
    """The types of an exception and of what it came from; of Hansa's own with the code."""
    found: list[str] = []
    seen: BaseException | None = error
    while seen is not None and len(found) < 8:
        code = f" {seen.code}" if isinstance(seen, HansaError) else ""
        found.append(f"{type(seen).__name__}{code}")
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return found


def _places(error: BaseException) -> list[str]:
    """Where it arose, as modules and lines, the innermost last."""
    frames = [
        f"{frame.f_globals.get('__name__', '?')}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    return frames[-12:]


def _thread_ended(hooked: threading.ExceptHookArgs) -> None:
    if hooked.exc_value is not None and hooked.exc_type is not SystemExit:
        raised = (hooked.exc_type, hooked.exc_value, hooked.exc_traceback)
        logging.getLogger("hansa.observing").error("a thread ended by an exception", exc_info=raised)
