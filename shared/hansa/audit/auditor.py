"""The audit as a whole: in what order things are checked, and what is said about the limits of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from hansa.agreement import Agreement
from hansa.audit.adaptations import check_adaptations, check_adapted
from hansa.audit.attacks import check_attacks
from hansa.audit.budgets import check_budgets
from hansa.audit.claims import Evidence, check_claims
from hansa.audit.copies import Kept, Sources
from hansa.audit.crossing import check_aggregates, compare_logs
from hansa.audit.evaluations import check_evaluations, check_fairness
from hansa.audit.findings import CHECKPOINT, FEDERATION, RECORDS, Failure, Findings, Notebook, log_name
from hansa.audit.gates import check_gates
from hansa.audit.integrity import Examined, check_notes, compare_copies, examine, name_log, origins
from hansa.audit.rounds import OpenedNoise, check_records
from hansa.audit.shares import check_shares
from hansa.errors import HansaError
from hansa.ledger.checkpoint import Checkpoint, LogPolicy
from hansa.ledger.signed import Agreed
from hansa.ledger.trust import TrustedKeys
from hansa.quorum import threshold
from hansa.report.schema import Report


def audit(
    sources: Sources,
    keys: TrustedKeys,
    report: Report | None = None,
    *,
    agreement: Agreement | None = None,
    processes: int = 1,
) -> Findings:
    """Check everything that copies of logs and public keys let one check.

    Args:
        sources: copies of the federation's log and of members' own, records of rounds, checkpoints that others kept.
        keys: compared with their owners beforehand; all else rests on them.
        report: what was published about the run.
        agreement: the frozen one, of which the keys are; gates are decided anew by its conditions.
        processes: for signatures of long logs.

    Returns:
        What holds, what is wrong and where, and what could not be checked. Of each log the first broken entry is
        told; what lies behind it is not looked at.

    Raises:
        CopyUnreadableError: the machine cannot read a file that is there, which is no finding about a log.
    """
    notebook = Notebook()
    federation, own, kept = _examined(sources, keys, notebook, processes)
    for log in (federation, *own.values()):
        if log is not None:
            check_notes(log, kept[log.log], notebook)
    compare_logs(federation, own, keys, notebook)
    opened: Mapping[tuple[str, int], OpenedNoise] = {}
    if federation is not None:
        check_aggregates(federation, notebook)
        check_evaluations(federation, notebook)
        check_adaptations(federation, notebook)
        opened = check_records(federation, sources.records, keys, notebook)
        check_gates(federation, sources.records, agreement, notebook)
    elif sources.records is not None:
        notebook.not_checked(
            f"the records of rounds in {RECORDS}",
            "no copy of the federation's log could be read, and it alone says which records are of its rounds",
        )
    check_budgets(own, notebook)
    check_shares(federation, own, keys, notebook)
    check_attacks(own, notebook)
    evidence = Evidence(keys, federation, own, opened)
    check_claims(report, evidence, notebook)
    check_fairness(report, evidence, notebook)
    check_adapted(report, evidence, notebook)
    _tell_limits(keys, federation, notebook)
    return notebook.findings(keys.fingerprint)


def _examined(
    sources: Sources, keys: TrustedKeys, notebook: Notebook, processes: int
) -> tuple[Examined | None, Mapping[str, Examined], Mapping[str, Sequence[Kept]]]:
    """The best copy of each log, and every other checkpoint of it that somebody has."""
    named = [name_log(copy, keys, notebook) for copy in sources.copies]
    groups: dict[str | None, list[Examined]] = defaultdict(list)
    agreed = Agreed.of(keys.roster, keys.quorum)
    # The federation's first: it shows the amendments by which the others are read.
    for log in sorted(filter(None, named), key=lambda log: log.member is not None):
        seen = examine(log, keys, agreed, notebook, processes)
        groups[seen.member].append(seen)
        if log.member is None and seen.facts.agreed is not None:
            agreed = max(agreed, seen.facts.agreed, key=lambda rosters: len(rosters.rosters))
    best = {member: compare_copies(copies, notebook) for member, copies in groups.items()}
    kept: dict[str, list[Kept]] = defaultdict(list)
    for member, copies in groups.items():
        for other in copies:
            if other is not best[member]:
                kept[other.log] += [Kept(other.place, note.note) for note in other.notes]
    known = origins(keys)
    for one in sources.kept:
        try:
            member, policy = known[Checkpoint.parse(one.note.text).origin]
            LogPolicy(policy.log).verify(one.note)
        except KeyError:
            notebook.failed(
                Failure(
                    one.place, None, CHECKPOINT, "it is of a log that the trusted keys do not name", one.place
                )
            )
        except HansaError as error:
            notebook.failed(Failure(one.place, None, CHECKPOINT, error.cause, one.place))
        else:
            kept[log_name(member)].append(one)
    own = {name: best[name] for name in keys.members if name in best}
    return best.get(None), own, kept


def _tell_limits(keys: TrustedKeys, federation: Examined | None, notebook: Notebook) -> None:
    notebook.not_checked(
        "whether the members' machines did what the entries say",
        "a log shows what a member signed: the data, the noise and the clipping stay inside its walls",
    )
    notebook.not_checked(
        "whether events and sums are those that the agreement fixes",
        "the agreement's text is not in the logs; compare its noise, rate and steps with the events",
    )
    if federation is not None:
        if "publication" in federation.facts.types:
            notebook.not_checked(
                "whether the published files are those whose hashes the log holds",
                "files are not in the logs: hansa model verify checks a package against its entry",
            )
        if federation.facts.evaluations:
            notebook.not_checked(
                "whether the files that were evaluated are those whose hashes the log holds",
                "files are not in the logs: compare the hash of the one that was published",
            )
        notebook.not_checked(
            "what happened after the newest checkpoint that was given",
            "compare it with one that a member kept, or ask again later",
        )
    if keys.quorum < threshold(len(keys.members)):
        notebook.remark(
            FEDERATION,
            None,
            f"the trusted keys demand {keys.quorum} cosignatures; below {threshold(len(keys.members))} of "
            f"{len(keys.members)} members two quorums need not share an honest one",
        )
