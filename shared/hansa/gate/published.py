"""Which file a log shows as published, and how often it was evaluated: what a later evaluation rests on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hansa.ledger import Aggregate, Evaluation, Publication
from hansa.ledger.entry import OfRun
from hansa.ledger.kinds import Kind
from hansa.privacy.charges import TRAINING


@dataclass(frozen=True)
class PublishedFile:
    """A model's file that a quorum of members has approved.

    Attributes:
        run: that trained and published it.
        artifact_sha256: of the file.
        reference_sha256: of the file that it was compared with, where there was one.
        model_sha256: of the model that it was made of.
        evaluations: how often the log shows it evaluated, before and after publication.
    """

    run: str
    artifact_sha256: str
    reference_sha256: str | None
    model_sha256: str
    evaluations: int

    @property
    def artifacts(self) -> tuple[str, ...]:
        """The hashes that the manifest of a later evaluation names, in their order."""
        return tuple(one for one in (self.artifact_sha256, self.reference_sha256) if one is not None)


def published_file(entries: Iterable[Kind], agreement_id: str, artifact_sha256: str) -> PublishedFile | None:
    """What a log shows of a file; `None` where it was not published under this agreement.

    Args:
        entries: of the federation's log, verified elsewhere: a publication counts by its members' signatures.
        agreement_id: under which.
        artifact_sha256: of the file.
    """
    run: str | None = None
    models: dict[str, str] = {}  # the last one by run
    evaluated: list[Evaluation] = []
    for entry in entries:
        if not isinstance(entry, OfRun) or entry.agreement_id != agreement_id:
            continue
        match entry:
            case Aggregate() if entry.purpose == TRAINING and entry.model_sha256 is not None:
                models[entry.run] = entry.model_sha256
            case Evaluation() if entry.artifact_sha256 == artifact_sha256:
                evaluated.append(entry)
            case Publication() if entry.artifact_sha256 == artifact_sha256:
                run = entry.run
            case _:
                continue
    if run is None or run not in models or not evaluated:
        return None
    return PublishedFile(run, artifact_sha256, evaluated[0].reference_sha256, models[run], len(evaluated))
