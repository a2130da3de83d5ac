"""What a node remembers between requests: the last round of each run, and its budget book."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from hansa.canonical import Json, canonical_json
from hansa.errors import DataSourceError
from hansa.privacy.budget import InMemoryBudgetBook, PrivacyLoss, Snapshot

_VERSION = 1  # of the file


@dataclass(frozen=True)
class NodeState:
    """A node's durable state.

    Attributes:
        rounds: the last round that was taken up, by run.
        book: of the budget.
        limit: ε and δ that the member set when it first reserved; no later agreement raises it.
    """

    rounds: Mapping[str, int] = field(default_factory=dict)
    book: Snapshot = field(default_factory=dict)
    limit: PrivacyLoss | None = None

    def last_round(self, run: str) -> int:
        """The last round of a run that was taken up, 0 for none."""
        return self.rounds.get(run, 0)

    def at_round(self, run: str, number: int) -> NodeState:
        """The state once a round has been taken up."""
        return replace(self, rounds={**self.rounds, run: number})

    def with_book(self, book: InMemoryBudgetBook) -> NodeState:
        """The state with a book, and its limit."""
        return replace(self, book=book.snapshot(), limit=book.limit())


class StateStore(Protocol):
    """Keeps one node's state; `save` returns once the state would survive a crash of what the store promises."""

    def load(self) -> NodeState:
        """The last saved state, or an empty one."""

    def save(self, state: NodeState) -> None:
        """Replace the state."""


class MemoryStore:
    """A state that lives as long as the process."""

    def __init__(self) -> None:
        self._state = NodeState()

    def load(self) -> NodeState:
        return self._state

    def save(self, state: NodeState) -> None:
        self._state = state


class FileStore:
    """A state in one file, replaced atomically and synced to disk.

    Args:
        path: of the file; its folder must exist.

    Raises:
        DataSourceError: the file is there and cannot be read: a budget is never started anew by mistake.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> NodeState:
        try:
            value = json.loads(self._path.read_bytes())
            return _read(value)
        except FileNotFoundError:
            return NodeState()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataSourceError(
                f"the member's state {self._path} cannot be read ({type(error).__name__})",
                remedy="Restore it from a copy; deleting it would forget what was spent.",
            ) from None

    def save(self, state: NodeState) -> None:
        limit = None if state.limit is None else {"epsilon": state.limit.epsilon, "delta": state.limit.delta}
        value: Json = {
            "version": _VERSION,
            "rounds": dict(state.rounds),
            "book": dict(state.book),
            "limit": limit,
        }
        new = self._path.with_suffix(".new")
        with new.open("wb") as file:
            file.write(canonical_json(value))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _read(value: Mapping[str, Any]) -> NodeState:
    if value["version"] != _VERSION:
        raise ValueError(f"version {value['version']!r}")
    limit = value["limit"]
    return NodeState(
        rounds={run: int(number) for run, number in value["rounds"].items()},
        book=dict(value["book"]),
        limit=None if limit is None else PrivacyLoss(float(limit["epsilon"]), float(limit["delta"])),
    )
