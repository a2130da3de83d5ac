"""The signed records of rounds against the sums that the federation's log holds."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from pydantic import ValidationError

from hansa.audit.copies import RecordSource
from hansa.audit.findings import FEDERATION, RECORDS, Failure, Notebook, Place
from hansa.audit.integrity import Examined, differing
from hansa.canonical import sha256_hex
from hansa.errors import HansaError
from hansa.identity import Roster, Statement
from hansa.ledger.errors import LogVerificationError
from hansa.ledger.outcomes import Aggregate
from hansa.ledger.trust import TrustedKeys
from hansa.privacy.charges import EVALUATION
from hansa.quorum import threshold
from hansa.secagg.messages import Manifest
from hansa.secagg.record import RoundRecord
from hansa.secagg.verify import VerifiedRecord, verify_record

RECORD = "record"


@dataclass(frozen=True)
class StatedBy:
    """What an auditor knows of the terms of a sum without the agreement.

    Attributes:
        roster: in force for the round.
        sha256: as the record says it.
    """

    roster: Roster
    sha256: str

    @property
    def threshold(self) -> int:
        """Quorum t."""
        return threshold(len(self.roster.members))


@dataclass(frozen=True)
class OpenedNoise:
    """What a round's record proves about the surplus of noise in its sum.

    Attributes:
        opened: members whose seeds prove what was taken off.
        smallest_sum: that follows from how many parts each seed opens, of so many survivors; `None` where none was opened.
    """

    opened: int
    smallest_sum: int | None

    @classmethod
    def of(cls, record: VerifiedRecord) -> OpenedNoise:
        """As the signed statements of a record prove it."""
        opened = len(record.noise_seeds)
        return cls(opened, len(record.released) - record.removed if opened else None)


@dataclass(frozen=True)
class _Known:
    index: int
    entry: Aggregate
    record: VerifiedRecord
    terms: str
    roster: Roster


def check_records(
    federation: Examined, records: RecordSource | None, keys: TrustedKeys, notebook: Notebook
) -> dict[tuple[str, int], OpenedNoise]:
    """Check each round's record, that the log names it by its hash, and that rounds follow from each other.

    Returns:
        What was opened of the noise, by run and round, of the records that hold.
    """
    if records is None:
        notebook.not_checked(
            "manifests, masked statements, confirmations and receipts of the rounds",
            f"no {RECORDS} was given",
        )
        return {}
    wanted: dict[str, tuple[int, Aggregate]] = {}
    for index, entry in federation.facts.aggregates:
        first, _ = wanted.setdefault(entry.record_sha256, (index, entry))
        if first != index:  # one record is of one round: the other sum has none
            what = f"it names the record that entry {first} names"
            notebook.failed(Failure(FEDERATION, index, entry.type, what, federation.place))
            break
    known: dict[int, _Known] = {}
    try:
        for number, line in enumerate(records.lines()):
            found = wanted.pop(sha256_hex(line), None)
            if found is None:
                _unnamed(number, line, federation, notebook)
                continue
            known[found[0]] = _check(found[0], found[1], line, federation, keys)
            notebook.passed("records of rounds that their parties signed")
    except _RecordError as failed:
        notebook.failed(Failure(FEDERATION, failed.index, "aggregate", failed.cause, federation.place))
    else:
        for index, entry in sorted(wanted.values(), key=lambda pair: pair[0])[:1]:
            what = f"{RECORDS} has no record of round {entry.round} of run {entry.run!r} with the hash that it names"
            notebook.failed(Failure(FEDERATION, index, entry.type, what, federation.place))
    _check_chains(known, federation, notebook)
    _tell_limits(known, notebook)
    return {(one.entry.run, one.entry.round): OpenedNoise.of(one.record) for one in known.values()}


class _RecordError(LogVerificationError):
    def __init__(self, index: int, cause: str) -> None:
        super().__init__(cause)
        self.index = index


def _unnamed(number: int, line: bytes, federation: Examined, notebook: Notebook) -> None:
    """A record whose hash no aggregate names: edited, or of a round that the log does not show."""
    if not federation.whole:
        notebook.not_checked(
            f"records in {RECORDS} that no aggregate names", "the copy of the federation's log is broken"
        )
        return
    try:
        record = RoundRecord.model_validate_json(line)
    except ValidationError:
        notebook.failed(
            Failure(RECORDS, number, RECORD, "it is no record of a round, and no aggregate names it")
        )
        return
    cut = _cut_off(record, federation)
    if cut is not None:
        notebook.failed(cut)
    beside = next(
        (
            Place(FEDERATION, index)
            for index, entry in federation.facts.aggregates
            if (entry.run, entry.round) == (record.run, record.round)
        ),
        None,
    )
    what = f"the aggregate of round {record.round} of run {record.run!r} " + (
        "names another record: this one was changed" if beside else "is not in the federation's log"
    )
    notebook.failed(Failure(RECORDS, number, RECORD, what, beside=beside))


def _cut_off(record: RoundRecord, federation: Examined) -> Failure | None:
    """What the checkpoint of a round that the log does not show proves about the copy."""
    try:
        manifest = Manifest.model_validate_json(Statement.parse(record.manifest).data)
        seen = federation.policy.verify(manifest.checkpoint)  # proves itself, whoever signed the manifest
    except (HansaError, ValidationError):
        return None
    return differing(federation, seen.checkpoint)


def _check(index: int, entry: Aggregate, line: bytes, federation: Examined, keys: TrustedKeys) -> _Known:
    agreed = federation.facts.agreed
    roster = keys.roster if agreed is None else agreed.roster_at(index)
    try:
        record = RoundRecord.model_validate_json(line)
    except ValidationError:
        raise _RecordError(index, "the record that it names is no record of a round") from None
    try:
        signed = verify_record(StatedBy(roster, record.terms), record)
    except HansaError as error:
        raise _RecordError(index, error.cause) from None
    manifest = signed.manifest
    same: dict[str, tuple[object, object]] = {
        "run": (entry.run, record.run),
        "round": (entry.round, record.round),
        "step": (entry.step, manifest.step),
        "manifest": (entry.manifest_sha256, signed.manifest_sha256),
        "sum": (entry.aggregate_sha256, record.aggregate_sha256),
        "released vectors": (dict(entry.released), dict(signed.released)),
        "excluded members": (sorted(entry.excluded), sorted(signed.excluded)),
    }
    judged = next(
        (e for _, e in federation.facts.evaluations if (e.run, e.round) == (entry.run, entry.round)), None
    )
    if judged is not None and entry.purpose == EVALUATION:  # of another purpose: `check_evaluations` says so
        names = (judged.artifact_sha256, judged.reference_sha256)
        same["files"] = (tuple(filter(None, names)), manifest.artifacts)
    for what, (logged, recorded) in same.items():
        if logged != recorded:
            raise _RecordError(index, f"its record, with all signatures, has another {what} than it says")
    return _Known(index, entry, signed, record.terms, roster)


# --- from round to round ---------------------------------------------------------------------------------


def _check_chains(known: dict[int, _Known], federation: Examined, notebook: Notebook) -> None:
    """Each manifest names the sum and the model before it, and a checkpoint that a quorum has cosigned."""
    last: dict[str, _Known] = {}
    models: dict[str, str] = {}  # that follows from each run's training so far
    skipped: set[str] = set()
    for index, entry in federation.facts.aggregates:
        one = known.get(index)
        if one is None:
            skipped.add(entry.run)
            models.pop(entry.run, None)
            continue
        problem = (
            ""
            if entry.run in skipped
            else _chain_problem(
                last.get(entry.run), one, federation.facts.aborted.get(entry.run, frozenset())
            )
        )
        problem = (
            problem or _model_problem(models.get(entry.run), one) or _checkpoint_problem(one, federation)
        )
        if problem:
            notebook.failed(Failure(FEDERATION, index, entry.type, problem, federation.place))
            return
        skipped.discard(entry.run)
        last[entry.run] = one
        if entry.model_sha256 is not None:
            models[entry.run] = entry.model_sha256
        notebook.passed("rounds that follow from the one before, under a cosigned checkpoint")


def _chain_problem(before: _Known | None, one: _Known, aborted: AbstractSet[int]) -> str:
    """Why a manifest does not follow from the sum before it, or from a later round that ended without one.

    A coordinator that showed members another sum than the one in the log must name that sum here, or none.
    """
    manifest = one.record.manifest
    named = (manifest.previous_round, manifest.previous_manifest_sha256, manifest.previous_aggregate_sha256)
    entry = None if before is None else before.entry
    last = 0 if entry is None else entry.round
    expected = (None, None) if entry is None else (entry.manifest_sha256, entry.aggregate_sha256)
    if named[0] == last and named[1:] != expected:
        return "its manifest names another sum before it than the log holds, or none"
    if named[0] < last or named[0] >= one.entry.round:
        return f"its manifest does not follow from round {last}, the last that was summed"
    if named[0] > last and (named[2] is not None or named[0] not in aborted):
        return f"its manifest follows from round {named[0]}, and the log holds neither its sum nor its end"
    if before is not None and before.terms != one.terms and before.roster == one.roster:
        return "its record is of other terms than that of the round before, under the same keys"
    return ""


def _model_problem(model: str | None, one: _Known) -> str:
    if one.entry.purpose == "training" and model not in {None, one.record.manifest.model_sha256}:
        return "its manifest is for another model than the one that the aggregates before it lead to"
    return ""


def _checkpoint_problem(one: _Known, federation: Examined) -> str:
    policy = federation.policy
    try:
        seen = policy.verify(one.record.manifest.checkpoint)
    except HansaError as error:
        return f"its manifest carries no checkpoint that members cosigned: {error.cause}"
    checkpoint = seen.checkpoint
    if checkpoint.size > one.index:
        return "its manifest carries a checkpoint that covers the aggregate itself"
    problem = differing(federation, checkpoint)
    return "" if problem is None else f"its manifest carries a checkpoint of another history: {problem.what}"


def _tell_limits(known: dict[int, _Known], notebook: Notebook) -> None:
    if not known:
        return
    notebook.not_checked(
        f"whether the {len(known)} sums are the sums of what the members sent",
        "masked vectors are not in the logs; a named verifier recomputes each sum before they are let go",
    )
    silent = sum(not one.record.confirmed for one in known.values())
    if silent:
        notebook.not_checked(
            f"whether the members agreed on who was summed, in {silent} rounds",
            "these records hold no confirmations; none are made where the agreement trusts the coordinator",
        )
