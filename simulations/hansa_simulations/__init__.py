"""Federations on one machine: engines, splits, generated data, benches.

`simulate(agreement, members=…, model=…) -> Report` is the interface; `hansa simulate` is its shell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hansa_simulations.derived import Derivation
    from hansa_simulations.settings import Progress
    from hansa_simulations.simulation import MemberData, simulate

__all__ = ["Derivation", "MemberData", "Progress", "simulate"]


def __getattr__(name: str) -> Any:
    """Import torch and flwr only for those who simulate: generated vocabularies live in this package too."""
    if name == "Derivation":
        from hansa_simulations.derived import Derivation

        return Derivation
    if name == "Progress":
        from hansa_simulations.settings import Progress

        return Progress
    if name in __all__:
        from hansa_simulations import simulation

        return getattr(simulation, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
