"""Engines: how the messages of a simulated federation travel, and where its members' work is done.

Every engine runs the same ServerApp and ClientApp; they differ in the Grid between them. `local` passes messages by
reference in one process, with worker processes for the members when asked; `ray` is Flower's own simulation runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from hansa.agreement import Agreement
from hansa.errors import UsageError
from hansa_server.members import Members
from hansa_simulations.league import League

Coordinate = Callable[[Members], None]


class Engine(Protocol):
    """Runs a coordinator against a league."""

    name: str

    def run(self, agreement: Agreement, league: League, run: str, coordinate: Coordinate) -> None:
        """Call `coordinate` with the league's members, reached through Flower.

        Raises:
            EngineError: the engine failed; what the coordinator raised passes through.
        """


def engine_named(name: str, processes: int = 1) -> Engine:
    """The engine of a name: ``local`` or ``ray``."""
    if name == "local":
        from hansa_simulations.engines.local import LocalEngine

        return LocalEngine(processes)
    if name == "ray":
        from hansa_simulations.engines.ray import RayEngine

        return RayEngine(processes)
    raise UsageError(f"there is no engine {name!r}", remedy="Use local or ray.")


__all__ = ["Coordinate", "Engine", "engine_named"]
