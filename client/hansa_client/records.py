"""What a member puts on record, and what it makes of the federation's log: the port, and the form without privacy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from hansa.errors import ModelMismatchError
from hansa.gate.errors import GateMismatchError
from hansa.protocol import News, Proposed, Word
from hansa.secagg import Manifest


class Records(Protocol):
    """The member's own log, its budget, and its copy of the federation's log."""

    def hear(self, news: News | None) -> str | None:
        """Take news of the federation's log.

        Returns:
            The member's cosignature of its checkpoint, as a line of a note; `None` where there is nothing to cosign.

        Raises:
            HansaError: the log contradicts what this member has seen, holds what may not stand in it, or shows that this
                member's own log is an old copy. Nothing has changed.
        """

    def word(self, run: str) -> Word:
        """What the federation's log is told: entries that it does not show yet, and how far it is mirrored."""

    def admit(self, run: str, manifest: Manifest) -> None:
        """Allow a contribution, before anything is trained: the whole run is reserved, durably.

        Raises:
            HansaError: the budget, the manifest's checkpoint or the state of the logs forbids it.
        """

    def published(self, manifest: Manifest) -> None:
        """Allow an evaluation in a run that has trained nothing here: of a file that the log shows as published.

        Raises:
            HansaError: it shows no such file, or as many evaluations of it as the agreement allows.
        """

    def released(self, run: str, manifest: Manifest, manifest_sha256: str, y_sha256: str) -> None:
        """Put a masked vector on record; durable before return."""

    def summed(self, run: str, number: int, vectors: Mapping[str, str]) -> None:
        """Allow that the vectors of a round are added up: each must be on record where everybody can see it.

        Args:
            run: its name.
            number: of the round.
            vectors: H(y) by member.

        Raises:
            HansaError: one is not. Nothing has changed.
        """

    def approve(self, run: str, proposed: Proposed) -> bytes:
        """Sign a gate or a publication that was recomputed here.

        Raises:
            GateMismatchError: it is not what follows from the log and the agreement; nothing is signed.
        """

    def failed(self, run: str) -> None:
        """A contribution that was admitted came to nothing, and that it did may follow from data."""

    def close(self, run: str) -> None:
        """Put on record that a run is over: what was reserved and not released is free again.

        A run in which a contribution failed is closed in full: nobody counts what its absence told. So is one of
        which this process has not seen the beginning, since it cannot know.
        """


class NoRecords:
    """Of a run that claims no privacy: nothing is charged, and nobody has anything to show."""

    def hear(self, news: News | None) -> str | None:
        """Nothing is said of logs in such a run."""

    def word(self, run: str) -> Word:  # noqa: ARG002  # the port's
        """Nothing."""
        return Word()

    def admit(self, run: str, manifest: Manifest) -> None:
        """Always."""

    def published(self, manifest: Manifest) -> None:  # noqa: ARG002  # the port's
        """Never."""
        raise ModelMismatchError("without a log nothing is known to be published")

    def released(self, run: str, manifest: Manifest, manifest_sha256: str, y_sha256: str) -> None:
        """Nowhere."""

    def summed(self, run: str, number: int, vectors: Mapping[str, str]) -> None:
        """Always."""

    def approve(self, run: str, proposed: Proposed) -> bytes:  # noqa: ARG002  # the port's
        """Never."""
        raise GateMismatchError("without a log there is nothing that a gate could rest on")

    def failed(self, run: str) -> None:
        """Nothing was reserved."""

    def close(self, run: str) -> None:
        """Nothing was reserved."""
