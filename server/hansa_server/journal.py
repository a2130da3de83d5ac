"""Every effect of a run happens once: what it gave is kept under a key, and asking again gives that.

With a journal that survives a crash, resuming a run is calling it again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Journal(Protocol):
    """Keeps the results of effects by key."""

    def once(self, key: str, effect: Callable[[], T]) -> T:
        """The result kept under `key`, or that of `effect`, which is kept from then on.

        An effect that raises keeps nothing.
        """


class InMemoryJournal:
    """A journal that lives as long as the process.

    Args:
        keep: how many of the newest results are remembered; `None` for all. A run can be called again only while
            all of its results are kept; one that will not be called again need not hold them.
    """

    def __init__(self, keep: int | None = None) -> None:
        self._keep = keep
        self._results: dict[str, Any] = {}

    def once(self, key: str, effect: Callable[[], T]) -> T:
        if key not in self._results:
            self._results[key] = effect()
        kept: T = self._results[key]
        while self._keep is not None and len(self._results) > self._keep:
            self._results.pop(next(iter(self._results)))
        return kept
