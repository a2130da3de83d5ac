"""The published quality and the gate's evidence: written from a decision, and recomputed by whoever reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from hansa.agreement import Agreement
from hansa.agreement.terms import Terms
from hansa.artifact.contents import FairnessTable, GateEvidence, GroupRow, Measured, PrivacyStatement, Verdict
from hansa.canonical import differing_place
from hansa.fairness.agreed import conditions_of, rules_of
from hansa.fairness.evaluated import Evaluated
from hansa.fairness.intervals import Estimate
from hansa.fairness.layout import groups_of
from hansa.fairness.metrics import Metric, Reading, flips, measure, positives, quality
from hansa.fairness.release import NoisyTables
from hansa.fairness.views import view
from hansa.gate.approving import evaluation_of
from hansa.gate.deciding import GateDecision, Grounds, decide, first_difference
from hansa.gate.errors import GateMismatchError
from hansa.gate.record import decisive, read_run
from hansa.ledger import Aggregate, Evaluation, Gate, Keyring, Override, Release, SignedEntry
from hansa.ledger.attacks import AttackMade
from hansa.privacy.charges import EVALUATION

_BY_SCORE: frozenset[Metric] = frozenset({"auc", "calibration-error"})


def fairness_table(
    terms: Terms, tables: NoisyTables, decision: GateDecision, artifact_sha256: str
) -> FairnessTable:
    """Quality by group of the file that ships, beside the model before compression, with the gate's own intervals.

    Args:
        terms: name metric and groups.
        tables: noisy sums of the evaluation of this file.
        decision: of the gate, for the verdicts.
        artifact_sha256: the file.
    """
    rules, layout = rules_of(terms), tables.layout
    reading = rules.reading(conditions_of(terms).tests(layout))
    groups: list[tuple[str, str]] = [("", "")]
    for attribute in layout.attributes:
        groups += [(attribute, name.removeprefix(f"{attribute}=")) for name in groups_of(layout, attribute)]
    return FairnessTable(
        artifact_sha256=artifact_sha256,
        metric=terms.fairness.metric,
        rows=[_row(tables, terms.fairness.metric, reading, *group, rules.smallest_group) for group in groups],
        verdicts=list(verdicts_of(decision)),
        private=True,
    )


def _row(
    tables: NoisyTables, metric: Metric, reading: Reading, attribute: str, group: str, smallest: float
) -> GroupRow:
    which = {attribute: group} if attribute else None
    seen = view(tables, which)
    records = max(0, round(float(seen.counts.sum())))
    if attribute and positives(seen) < smallest:
        return GroupRow(attribute=attribute, group=group, records=records)
    compared = tables.layout.compared
    before = None
    if compared == "scores" or (compared == "decisions" and metric not in _BY_SCORE):
        before = measure(seen, metric, reading, model="reference")
    flipped = None if compared == "none" else flips(seen, reading)
    return GroupRow(
        attribute=attribute,
        group=group,
        records=records,
        published=_measured(quality(tables, metric, reading, which)),
        uncompressed=_measured(before),
        flipped=None if flipped is None else min(max(flipped.value, 0.0), 1.0),
    )


def _measured(found: Estimate | None) -> Measured | None:
    return None if found is None else Measured(value=found.value, low=found.low, high=found.high)


def verdicts_of(decision: GateDecision) -> Iterator[Verdict]:
    """Every condition of a gate, as documents tell it."""
    for condition, told in zip(decision.conditions, decision.needed, strict=True):
        excused = ""
        if condition.override_sha256 is not None:
            by = decision.overrides[condition.override_sha256]
            excused = f"overridden by {by.name}, {by.role} at {by.party}: {by.reason}"
        elif condition.exempt:
            excused = "exempt by the agreement"
        yield Verdict(
            name=condition.name,
            verdict=condition.verdict,
            low=None if told.estimate is None else told.estimate.low,
            high=None if told.estimate is None else told.estimate.high,
            excused=excused,
            sentence=told.sentence,
        )


def same_table(one: FairnessTable, other: FairnessTable) -> bool:
    """Whether two tables say the same, numbers to a millionth and sentences aside."""
    return differing_place(_tree(one), _tree(other)) is None


def _tree(table: FairnessTable) -> object:
    tree = table.model_dump()
    for verdict in tree["verdicts"]:
        del verdict["sentence"]  # it holds rounded numbers, which may fall on either side
    return tree


# --- evidence --------------------------------------------------------------------------------------------


def evidence_in(logged: Iterable[SignedEntry]) -> list[SignedEntry]:
    """Of a run's entries those that a reader needs to decide anew, in their order.

    Of what members write by themselves only what counts: releases that are in a sum, and of each member the attack that decides.
    """
    entries = list(logged)
    summed = {
        (one.entry.round, *said)
        for one in entries
        if isinstance(one.entry, Aggregate) and one.entry.purpose == EVALUATION
        for said in one.entry.released.items()
    }
    attacks = decisive(one.entry for one in entries if isinstance(one.entry, AttackMade))
    counted = {entry.sha256 for entry, _ in attacks.values()}
    found, seen = list[SignedEntry](), set[str]()
    for signed in entries:
        match signed.entry:
            case Evaluation() | Override() | Gate():
                found.append(signed)
            case Aggregate() if signed.entry.purpose == EVALUATION:
                found.append(signed)
            case Release() as said if said.purpose == EVALUATION:
                if (said.round, said.member, said.y_sha256) in summed:
                    found.append(signed)
            case AttackMade() as made if made.sha256 in counted - seen:
                seen.add(made.sha256)  # it may be signed more than once
                found.append(signed)
            case _:
                pass
    return found


def evidence_of(entries: Sequence[SignedEntry], manifest: bytes, smallest_sum: int) -> GateEvidence:
    """`gate.json`.

    Args:
        entries: as they were logged, in the log's order.
        manifest: of the evaluation's round.
        smallest_sum: members in the smallest sum of training.
    """
    return GateEvidence(
        entries=[signed.encoded.decode() for signed in entries],
        manifest=manifest.decode(),
        smallest_sum=smallest_sum,
    )


def recompute(
    evidence: GateEvidence,
    privacy: PrivacyStatement,
    agreement: Agreement,
    keyring: Keyring,
    gate_sha256: str,
) -> tuple[Gate, FairnessTable, Evaluated]:
    """Verify the entries of a gate and decide anew.

    Args:
        evidence: from a package; nothing of it is believed.
        privacy: whose events give ε.
        agreement: frozen.
        keyring: whose signatures count.
        gate_sha256: of the gate that the publication names.

    Returns:
        The gate, open, the quality by group that follows from the sums, and the evaluation that holds them.

    Raises:
        GateMismatchError: the entries, the sums and the gate do not fit together, or the gate is closed.
        HansaError: an entry is malformed, or signed by somebody else or by too few.
    """
    terms, entries = agreement.terms, []
    for text in evidence.entries:
        signed = SignedEntry.parse(text.encode())
        keyring.verify(signed)
        entries.append(signed.entry)
    gate = next((entry for entry in entries if isinstance(entry, Gate) and entry.sha256 == gate_sha256), None)
    if gate is None:
        raise GateMismatchError("the gate that the publication names is not there")
    if gate.agreement_id != agreement.agreement_id:
        raise GateMismatchError("the gate is of another agreement")
    record = read_run(entries, terms, gate.agreement_id, gate.run)
    evaluated = evaluation_of(gate, record, agreement, evidence.manifest.encode())
    delta = privacy.delta
    epsilons = {} if delta is None else {loss.member: loss.spent.epsilon(delta) for loss in privacy.losses}
    if set(epsilons) != {member.name for member in terms.members}:
        raise GateMismatchError("the privacy statement does not name the loss of every member")
    overrides = record.overrides_of(gate.artifact_sha256)
    grounds = Grounds(evaluated.tables, epsilons, evidence.smallest_sum, record.attack_bounds(), overrides)
    decision = decide(terms, grounds)
    if not decision.open or gate.decision != "open":
        raise GateMismatchError("the gate is closed: nothing may be published")
    where = first_difference(gate.conditions, decision.conditions)
    if where:
        raise GateMismatchError(f"the gate's conditions are not those that follow from the sums: {where}")
    table = fairness_table(terms, evaluated.tables, decision, gate.artifact_sha256)
    return gate, table, evaluated
