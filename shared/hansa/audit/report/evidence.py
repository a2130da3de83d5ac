"""Groups 5 to 9 of an audit report: composition, trust, attacks, utility and fairness, integrity.

Each says in `untold` what the logs cannot tell; nothing is filled in.
"""

from __future__ import annotations

from typing import Literal

from hansa.audit.report.value import Count, Json, Spot, Value

# --- 5 composition ---------------------------------------------------------------------------------------


class Line(Value):
    """One line of a budget's history.

    Attributes:
        at: by its writer's clock.
        what: ``granted``, ``reserved``, ``released``, ``aborted`` or ``closed``.
        run, round: which; absent where it is none.
        steps: noisy steps that were set aside, released, or are left.
        spent: ε against everyone that counts after it by the limit's rule; absent where it does not change.
        released: ε of what the run has released by then, where it was computed.
        by: who signed it.
        asked_by: hash of the manifest that asked for a release.
        spot: the entry.
        peer: the same entry in the federation's log.
    """

    at: str
    what: Literal["granted", "reserved", "released", "aborted", "closed"]
    run: str | None
    round: int | None
    steps: Count
    spent: float | None
    released: float | None
    by: str
    asked_by: str | None
    spot: Spot
    peer: Spot | None


class History(Value):
    """How the budget of one dataset was spent.

    Attributes:
        member, dataset: whose.
        limit, delta: against everyone.
        lines: in the order of the log.
        left_out: releases between these that are not listed.
    """

    member: str
    dataset: str
    limit: float
    delta: float
    lines: tuple[Line, ...]
    left_out: Count


class Curve(Value):
    """ε of one run at one member, after its releases.

    Attributes:
        member, dataset, run: whose.
        delta: at which ε holds.
        points: round and ε of all that the run has released by then; null without a bound.
    """

    member: str
    dataset: str
    run: str
    delta: float
    points: tuple[tuple[int, float | None], ...]


class Composition(Value):
    """How losses add up.

    Attributes:
        histories: by dataset.
        curves: by run.
        per_person: what one person may lose over all of it, as a list.
        untold: what the logs cannot tell.
    """

    histories: tuple[History, ...]
    curves: tuple[Curve, ...]
    per_person: tuple[str, ...]
    untold: tuple[str, ...]


# --- 6 trust, 7 empirical, 8 utility ---------------------------------------------------------------------


class Change(Value):
    """A change of keys or of who takes part.

    Attributes:
        at: by its writer's clock.
        what: in words.
        by: who signed it.
        spot: the entry.
    """

    at: str
    what: str
    by: tuple[str, ...]
    spot: Spot


class Trust(Value):
    """Whom the numbers rest on.

    Attributes:
        members, quorum: n and t.
        tolerated: n - t, how many may work with a coordinator that lies.
        cosigned: members that cosigned the newest checkpoint of the federation's log.
        model: what is assumed and what is not, as a list.
        changes: of keys and of membership.
        limits: known limits, as a list.
        untold: what the logs cannot tell.
    """

    members: Count
    quorum: Count
    tolerated: int
    cosigned: tuple[str, ...]
    model: tuple[str, ...]
    changes: tuple[Change, ...]
    limits: tuple[str, ...]
    untold: tuple[str, ...]


class AttackTold(Value):
    """An attack of a member on its own trainer, with bounds that this report has computed from its counts.

    Attributes:
        member, kind: whose trainer, and what the canaries were.
        canaries, guesses, correct: how it went.
        confidence, delta: at which the bounds hold.
        lower_bound: of ε.
        claimed: ε of the run that was attacked; null without a bound.
        ceiling: the bound with all guesses right.
        contradicts: whether the claim is refuted.
        spot: the entry.
    """

    member: str
    kind: str
    canaries: Count
    guesses: Count
    correct: Count
    confidence: float
    delta: float
    lower_bound: float
    claimed: float | None
    ceiling: float
    contradicts: bool
    spot: Spot


class Empirical(Value):
    """What attacks have shown.

    Attributes:
        measured: whether an attack on the model stands in the logs.
        why: in words.
        attacks: that stand in members' own logs.
    """

    measured: bool
    why: str
    attacks: tuple[AttackTold, ...]


class Judged(Value):
    """One condition of a gate.

    Attributes:
        name, verdict: of the condition.
        low, high: the interval that was judged.
        excused: why an inconclusive one was let through; empty where it was not, or needed none.
    """

    name: str
    verdict: str
    low: float | None
    high: float | None
    excused: str


class GateTold(Value):
    """Whether a file could be published.

    Attributes:
        artifact_sha256: of the file.
        decision: ``open`` or ``closed``.
        conditions: all of the agreement's.
        spot: the entry.
    """

    artifact_sha256: str
    decision: str
    conditions: tuple[Judged, ...]
    spot: Spot


class OverrideTold(Value):
    """Who took responsibility for a condition that could not be judged.

    Attributes:
        party, name, role: for whom, who, and as what.
        condition, artifact_sha256: for what.
        reason: in that person's words.
        spot: the entry.
    """

    party: str
    name: str
    role: str
    condition: str
    artifact_sha256: str
    reason: str
    spot: Spot


class Claimed(Value):
    """Quality as a run's report claims it. Nothing in the logs says so.

    Attributes:
        metric, value, low, high: mean over members, with its 95 % interval.
        groups: attribute, value, quality, low, high, records.
    """

    metric: str
    value: float
    low: float
    high: float
    groups: tuple[tuple[str, str, float | None, float | None, float | None, int], ...]


class Utility(Value):
    """How good and how fair, as far as anybody signed it.

    Attributes:
        evaluations: private evaluations in the log.
        gates: decisions about publication.
        overrides: by named persons.
        publications: files that were published.
        claimed: quality as a run's report claims it.
        untold: what the logs cannot tell.
    """

    evaluations: Count
    gates: tuple[GateTold, ...]
    overrides: tuple[OverrideTold, ...]
    publications: Count
    claimed: Claimed | None
    untold: tuple[str, ...]


# --- 9 integrity -----------------------------------------------------------------------------------------


class LogTold(Value):
    """A log that was read.

    Attributes:
        log, origin: what findings call it, and what it calls itself.
        place: where the copy lies.
        entries: good ones, from the first on.
        root: over these.
        sealed: how many the newest checkpoint covers.
    """

    log: str
    origin: str
    place: str
    entries: Count
    root: str
    sealed: Count


class Integrity(Value):
    """What the audit found.

    Attributes:
        verified: whether nothing that was checked is wrong.
        findings: of `hansa audit verify`, all of them.
        logs: with the roots that others can compare.
        keys: fingerprint of the public keys that all of it rests on.
        keys_beside: whether these lay beside the logs and were compared with nobody.
        command: how to check it again.
        checked_by: software that made this report.
    """

    verified: bool
    findings: Json
    logs: tuple[LogTold, ...]
    keys: str
    keys_beside: bool
    command: str
    checked_by: str
