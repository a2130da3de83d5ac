"""Groups 1 to 4 of an audit report: identity, guarantee, mechanism, coverage.

Each says in `untold` what the logs cannot tell; nothing is filled in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from hansa.audit.report.value import Count, Json, Spot, Value

# --- 1 identity ------------------------------------------------------------------------------------------


class Party(Value):
    """Who signs in these logs.

    Attributes:
        name, role: of the agreement.
        fingerprint: of its pinned key, to be compared over another channel.
        own_log: whether a copy of its own log was given; only members have one.
    """

    name: str
    role: Literal["member", "coordinator", "auditor"]
    fingerprint: str
    own_log: bool


class Run(Value):
    """One run of the agreement.

    Attributes:
        run: its name.
        began, ended: the earliest and the latest time in its entries, by the clocks of those who wrote them.
        sums: rounds that were summed.
        failed: rounds that the coordinator says ended without a sum.
        members: who released anything.
        model_sha256: of the model that the last sum led to, where the log says.
    """

    run: str
    began: str
    ended: str
    sums: Count
    failed: Count
    members: tuple[str, ...]
    model_sha256: str | None


class Software(Value):
    """What releases were made with, as their members say.

    Attributes:
        versions: by package.
        lock_sha256: of the file that pins all packages.
        rng: where noise and sampling came from.
        releases: how many, by member.
    """

    versions: Mapping[str, str]
    lock_sha256: str
    rng: str
    releases: Mapping[str, Count]


class Identity(Value):
    """What this is about.

    Attributes:
        title: as the run's report calls it, where that was given.
        agreement_id: of the frozen agreement, which holds purpose, data and configuration.
        terms_id: of its terms, as the members signed them; absent where no copy says.
        parties: names and keys.
        runs: in the order in which they began.
        published: files of published models, with their hashes.
        software: what releases were made with.
        first, last: the earliest and the latest time in any entry.
        untold: what the logs cannot tell.
    """

    title: str | None
    agreement_id: str
    terms_id: str | None
    parties: tuple[Party, ...]
    runs: tuple[Run, ...]
    published: Mapping[str, str]
    software: tuple[Software, ...]
    first: str | None
    last: str | None
    untold: tuple[str, ...]


# --- 2 guarantee -----------------------------------------------------------------------------------------


class LimitTold(Value):
    """One limit of a budget.

    Attributes:
        against: whom it holds against, in words.
        epsilon, delta: the most that may ever be spent.
        spent: ε that counts as spent by the limit's rule, recomputed by this audit; null where it could not be.
        remaining: what is left; null with `spent`.
    """

    against: str
    epsilon: float
    delta: float
    spent: float | None
    remaining: float | None


class Budget(Value):
    """What a privacy officer granted for one dataset, and what is left.

    Attributes:
        member, dataset: whose data.
        unit, max_records_per_unit, adjacency: what is protected, and which datasets are neighbours.
        limits: against everyone, and against few that collude where noise is distributed.
        rule: by which runs add up, in words.
        disjoint_from: datasets of the member that share no unit with this one, as it declares.
        reason: of the officer.
        at: when, by its clock.
        spot: the entry.
    """

    member: str
    dataset: str
    unit: str
    max_records_per_unit: Count
    adjacency: str
    limits: tuple[LimitTold, ...]
    rule: str
    disjoint_from: tuple[str, ...]
    reason: str
    at: str
    spot: Spot


class Charged(Value):
    """One kind of release of a run, the same for some members.

    Attributes:
        members: whom it was charged to.
        run, purpose: of the release.
        event: of one noisy step, against everyone: a serialised `dp_accounting` event.
        words: the same in words.
        shared, coalition: the event against so many that collude, where noise is distributed.
        reserved, released, counted: steps by member: set aside, on record, and counting as spent.
    """

    members: tuple[str, ...]
    run: str
    purpose: str
    event: Json
    words: str
    shared: Json | None
    coalition: Count
    reserved: Count
    released: Count
    counted: Count


class Profile(Value):
    """ε at several δ of one run's steps: the privacy profile.

    Attributes:
        run, members: whose.
        against: whom it holds against: everyone, or so many that collude where noise is shared.
        points: δ with ε; null where there is no bound, or the accountant failed.
    """

    run: str
    members: tuple[str, ...]
    against: str
    points: tuple[tuple[float, float | None], ...]


class Guarantee(Value):
    """What is promised, to whom.

    Attributes:
        statement: in one sentence.
        flavour, level: of differential privacy.
        budgets: one for each dataset.
        charged: every event that any ε here follows from.
        profiles: ε at several δ.
        accountant: of record, with its version here.
        checks: which accountants looked at the same ε and agree, with how often.
        without_limit: members of whom no grant was given, so that no ε is stated for them.
        untold: what the logs cannot tell.
    """

    statement: str
    flavour: str
    level: str
    budgets: tuple[Budget, ...]
    charged: tuple[Charged, ...]
    profiles: tuple[Profile, ...]
    accountant: str
    checks: Mapping[str, Count]
    without_limit: tuple[str, ...]
    untold: tuple[str, ...]


# --- 3 mechanism, 4 coverage -----------------------------------------------------------------------------


class Mechanism(Value):
    """How noise came in.

    Attributes:
        purpose, run: of the releases.
        members: whose.
        sampling_rate: public Poisson rate of a step; null for a release without sampling, or an epoch of fixed batches.
        largest_batch, most_units: where a sample is cut, to how many units, and of how many at most; null elsewhere.
        noise_multiplier: standard deviation of the noise over the sensitivity; null without privacy.
        shared_noise_multiplier: of the noise that the others see together, where it is distributed.
        steps: noisy steps in one release; more than one number where releases differ.
        noise: where it is added, in words.
    """

    purpose: str
    run: str
    members: tuple[str, ...]
    sampling_rate: float | None
    largest_batch: int | None
    most_units: int | None
    noise_multiplier: float | None
    shared_noise_multiplier: float | None
    steps: tuple[int, ...]
    noise: str


class Mechanisms(Value):
    """All mechanisms.

    Attributes:
        mechanisms: by purpose and run.
        rng: where noise and sampling came from, as members say.
        sums: how vectors are summed.
        dropout: what happens when members vanish.
        clipping_norm: as the run's report claims it, where that was given; no log holds it.
        untold: what the logs cannot tell.
    """

    mechanisms: tuple[Mechanism, ...]
    rng: tuple[str, ...]
    sums: str
    dropout: str
    clipping_norm: float | None
    untold: tuple[str, ...]


class Access(Value):
    """Releases of one purpose.

    Attributes:
        purpose: training, evaluation or compression.
        releases: how many, of all members.
        summed: of them, how many are in a sum.
        steps: noisy steps that count as spent.
    """

    purpose: str
    releases: Count
    summed: Count
    steps: Count


class RoundTold(Value):
    """Who took part in one round.

    Attributes:
        run, round, purpose: which.
        summed: whose vectors are in the sum.
        left_out: whose were released and are in no sum; they count as spent.
        failed: whether the round ended without a sum.
    """

    run: str
    round: int
    purpose: str
    summed: tuple[str, ...]
    left_out: tuple[str, ...]
    failed: bool


class Coverage(Value):
    """What the numbers cover, and what nothing protects.

    Attributes:
        accesses: by purpose; a purpose that is not here released nothing.
        rounds: who took part in each.
        left_out: releases that are in no sum of the federation's log that was given, and cost all the same.
        elsewhere: runs of which that log, or the lack of one, tells no sum and no failed round; another may hold them.
        models: sums that led to a model; whoever saw them all has learned no more than ε allows.
        unprotected: what is not protected, as a list.
        untold: what the logs cannot tell.
    """

    accesses: tuple[Access, ...]
    rounds: tuple[RoundTold, ...]
    left_out: Count
    elsewhere: tuple[str, ...]
    models: Count
    unprotected: tuple[str, ...]
    untold: tuple[str, ...]
