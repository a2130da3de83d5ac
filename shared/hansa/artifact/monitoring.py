"""After publication: a later private evaluation of the same file, beside the one that it was published by."""

from __future__ import annotations

from pathlib import Path

from hansa.artifact.verifying import VerifiedPackage
from hansa.errors import TooFewMembersError, UsageError
from hansa.fairness.agreed import rules_of
from hansa.fairness.evaluated import Evaluated
from hansa.fairness.monitoring import Drift, drift
from hansa.gate.record import read_run
from hansa.ledger import Evaluation, TileSource, read_entry, verify_log
from hansa.ledger.places import require_tiles


def later_evaluation(package: VerifiedPackage, copy: Path) -> Evaluated:
    """The newest other evaluation of a package's file, from a copy of the federation's log.

    Args:
        package: verified.
        copy: folder of tiles; cosigned, and every entry in it signed, as the package's keys demand.

    Raises:
        UsageError: there is no such folder, or no other evaluation of this file in it.
        TooFewMembersError: the newest is over fewer members than the agreement asks for.
        HansaError: the copy is not the log of its checkpoint.
    """
    require_tiles(copy)
    source = TileSource(copy)
    checkpoint = package.keys.federation.verify(source.note).checkpoint
    verify_log(source, checkpoint, package.keys.keyring)
    entries = [read_entry(data).entry for data in source.read(0, checkpoint.size)]
    artifact, known = package.entry.artifact_sha256, (package.evaluated.run, package.evaluated.number)
    found = [
        entry
        for entry in entries
        if isinstance(entry, Evaluation)
        and entry.artifact_sha256 == artifact
        and (entry.run, entry.number) != known
    ]
    if not found:
        raise UsageError(
            f"{copy} holds no evaluation of this file but the one that it was published by",
            remedy="Have the members evaluate it again, on new records; its number is agreed beforehand.",
        )
    agreement, newest = package.agreement, found[-1]
    record = read_run(entries, agreement.terms, agreement.agreement_id, newest.run)
    aggregate = record.tables.get(newest.round)
    if aggregate is None:
        raise UsageError(f"{copy} lacks the sum of evaluation {newest.number} of run {newest.run}")
    later, least = Evaluated.logged(agreement, newest, aggregate), agreement.terms.secure_sum.min_members
    if len(later.contributors) < least:
        raise TooFewMembersError(
            f"the evaluation is over {len(later.contributors)} members, and {least} are needed"
        )
    return later


def monitor(package: VerifiedPackage, later: Evaluated) -> tuple[Drift, ...]:
    """What has changed since publication, by group, with the gate's error and liars."""
    terms = package.agreement.terms
    return drift(package.evaluated.tables, later.tables, terms.fairness.metric, rules_of(terms))
