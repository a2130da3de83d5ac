"""Whether a SuperLink that lives also answers: it is asked now and then, beside whatever its coordinator does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from hansa.errors import EngineError, LinkError

PATIENCE_S = 60.0  # for one answer, which a SuperLink under load gives far sooner
EVERY_S = 15.0
# both have to be reached. A machine that stood still, or was busy for a while, costs a miss or two
MISSES_IN_A_ROW, SILENT_S = 5, 300.0


class Asked(Protocol):
    """A connection to a SuperLink, see `hansa_server.flower_app.control.Control`."""

    def wait(self, until: float) -> None:
        """Ask, and again until a moment of `time.monotonic`."""

    def close(self) -> None:
        """Give the connection back."""


class Pulse:
    """Asks from when it is entered until it is left, in a thread of its own: one question may take as long as its connection waits.

    The question is one that goes the way of all work, through Flower's database and its one thread; a SuperLink whose loop lives and whose work
    stands still is as good as none. A refusal is an answer, whatever it says.

    Args:
        asked: a connection for these questions alone, closed behind the last of them.
        clock: seconds, as `time.monotonic`.
    """

    def __init__(self, asked: Asked, clock: Callable[[], float] = time.monotonic) -> None:
        self._asked, self._clock = asked, clock
        self._ended = threading.Event()
        self._missed, self._heard = 0, clock()

    @property
    def silent_s(self) -> float:
        """How long ago the last answer came, or the first question was put."""
        return self._clock() - self._heard

    @property
    def lost(self) -> bool:
        """Whether it has been silent for so long, and so often, that no load explains it."""
        return self._missed >= MISSES_IN_A_ROW and self.silent_s >= SILENT_S

    def ask(self) -> None:
        """One question, and its answer or none."""
        try:
            self._asked.wait(0.0)  # once
        except LinkError:
            self._missed += 1
            return
        except EngineError:  # it refuses: it lives
            pass
        self._missed, self._heard = 0, self._clock()

    def __enter__(self) -> Self:
        threading.Thread(target=self._go_on, name="hansa-pulse", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()  # a question that nobody answers is not waited for

    def _go_on(self) -> None:
        try:
            while not self._ended.wait(EVERY_S):
                self.ask()
        finally:
            self._asked.close()
