"""Reports to draw: one factory, and the cases that a reader meets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from hansa.canonical import sha256_hex
from hansa.privacy.adaptation import Adaptation
from hansa.privacy.following import NormRule, WeightRule
from hansa.report import AdaptationReport, adaptation_told, render_html
from hansa.report.schema import (
    EventCount,
    HistoryPoint,
    MemberReport,
    PhaseReport,
    Quality,
    Reference,
    Repeat,
    Report,
    RoundReport,
    SecureSumTerms,
    SumReport,
)
from hansa_simulations.quality import mean_quality, measure

HOSPITALS = ("Charite-Berlin", "Aachen", "Heidelberg", "Leipzig", "Kiel")
LONG = (
    "Universitaetsklinikum-Schleswig-Holstein-Campus-Luebeck", "Queen-Elizabeth-University-Hospital-Glasgow",
    "Hospital-Universitari-Vall-d.Hebron", "St_Olavs", "Assistance-Publique-Hopitaux-de-Marseille",
    "Karolinska", "UMC-Utrecht", "Azienda-Ospedaliera-Universitaria-Pisana", "Rigshospitalet",
)  # fmt: skip
GROUPS: Mapping[str, tuple[str, ...]] = {"age": ("<45", "45-65", ">=65"), "sex": ("F", "M")}
NOTES = (
    "All members and the coordinator ran on this machine, with keys that prove nobody's identity.",
    "Quality was measured by the simulator on test records that it holds itself, outside the protocol.",
    "The encoder started from 300 steps of non-private training on public generated text.",
)


def a_quality(
    level: float = 1.3, members: Sequence[str] = HOSPITALS, seed: int = 0, metric: str = "accuracy"
) -> Quality:
    """Quality on generated test records; a higher level is a better model. Later members are smaller."""
    rng = np.random.default_rng(seed)
    sizes = [max(6, 210 - 36 * i) for i in range(len(members))]
    owners = np.repeat(members, sizes)
    labels = rng.integers(0, 2, len(owners))
    groups = np.stack([rng.integers(0, len(GROUPS[name]), len(owners)) for name in GROUPS], axis=1)
    hard = np.repeat(0.25 * np.arange(len(members)) / len(members), sizes) + 0.5 * (groups[:, 1] == 0)
    margin = (level - hard) * (2 * labels - 1) + rng.normal(0, 1.3, len(owners))
    scores = np.stack([np.zeros_like(margin), margin], axis=1)
    return measure(metric, labels, scores, groups, owners, GROUPS)


def a_history(rounds: int, members: Sequence[str], epsilon: float | None) -> tuple[HistoryPoint, ...]:
    points = []
    for r in range(rounds + 1):
        quality = a_quality(1.4 * (1 - np.exp(-4 * (r + 1.5) / (rounds + 1))), members, seed=r)
        spent = None if epsilon is None else epsilon * (r / max(rounds, 1)) ** 0.55
        points.append(
            HistoryPoint(
                round=r,
                epsilon=spent,
                pooled=quality.pooled,
                mean_over_members=quality.mean_over_members,
                by_member=quality.by_member,
            )
        )
    return tuple(points)


def a_report(
    *,
    members: Sequence[str] = HOSPITALS,
    rounds: int = 20,
    epsilon: float | None = 7.9981,
    absent: Mapping[int, Mapping[str, str]] | None = None,
    **changes: object,
) -> Report:
    """A report that fits together; `absent` is round to member to why, `changes` replaces any field."""
    missing = absent or {}
    log = tuple(
        RoundReport(
            round=r,
            present=tuple(name for name in members if name not in missing.get(r, {})),
            absent=missing.get(r, {}),
            upload_bytes=412_000 * (len(members) - len(missing.get(r, {}))),
            download_bytes=398_000 * len(members),
            seconds=1.9 + 0.1 * (r % 3),
        )
        for r in range(1, rounds + 1)
    )
    people = tuple(
        MemberReport(
            name=name,
            epsilon=None if epsilon is None else epsilon * present / max(rounds, 1),
            delta=1e-5,
            budget_epsilon=8.0,
            units=2000 - 300 * min(i, 5),
            weight=1 / len(members),
            rounds_present=present,
            noisy_steps=5 * present,
            upload_bytes=412_000 * present,
            download_bytes=398_000 * rounds,
            train_seconds=7.25 + i,
        )
        for i, name in enumerate(members)
        for present in [sum(name in entry.present for entry in log)]
    )
    noise = {"type": "Gaussian", "noise_multiplier": 0.8731}
    event = {"type": "PoissonSampled", "sampling_probability": 0.05, "event": noise}
    charged = {"type": "NonPrivate"} if epsilon is None else event
    values: dict[str, object] = {
        "status": "done",
        "title": "Readmission within 30 days from admission notes",
        "agreement_id": sha256_hex(b"agreement"),
        "terms_id": sha256_hex(b"terms"),
        "engine": "local",
        "seed": 7,
        "created": "2026-03-01T12:30:00+00:00",
        "mechanism": "none" if epsilon is None else "local",
        "unit": "patient",
        "sampling_rate": 0.05,
        "noise_multiplier": None if epsilon is None else 0.8731,
        "clipping_norm": None if epsilon is None else 0.5,
        "rounds": rounds,
        "rounds_planned": rounds,
        "parameters": 103_426,
        "randomness": "AES-256-CTR keyed from the operating system",
        "notes": NOTES,
        "not_in_force": ("fairness", "publication.compress"),
        "members": people,
        "quality": a_quality(members=members),
        "initial_quality": a_quality(0.7, members),
        "history": a_history(rounds, members, epsilon),
        "round_log": log,
        "events": tuple(EventCount(member=m.name, event=charged, count=m.noisy_steps) for m in people),
        "versions": {
            "python": "3.11.7",
            "hansa": "0.1.0",
            "torch": "2.13.0",
            "dp-accounting": "0.6.0",
            "numpy": "2.4.6",
        },
        "seconds": 52.31,
        "seconds_by_part": {"train": 39.8, "evaluate": 6.1, "warm start": 4.2, "report": 2.21},
        "peak_rss_bytes": 912_345_678,
        "model_sha256": sha256_hex(b"model"),
    }
    return Report.model_validate(values | changes)


def with_sums(report: Report, **terms: object) -> Report:
    """The same report of a run whose updates were summed under masks; Kiel drops, and a retry was needed."""
    n = len(report.members)
    t = 2 * n // 3 + 1
    costs = {
        name: PhaseReport(sent_bytes=1000 * (i + 1), received_bytes=500 * (i + 1), seconds=0.004 * (i + 1))
        for i, name in enumerate(("keys", "shares", "delivery", "masked", "confirm", "unmask"))
    }
    log = [
        entry.model_copy(
            update={
                "secure_sum": SumReport(
                    rounds=(entry.round,) if entry.round != 2 else (2, 3),
                    dropped={"Kiel": "masked"} if entry.round in {3, 4} else {},
                    blamed={"Aachen": "opened shares that are not those its dealers signed"}
                    if entry.round == 5
                    else {},
                    phases=costs,
                    verified_by="simulation-verifier",
                )
            }
        )
        for entry in report.round_log
    ]
    values: dict[str, object] = {
        "members": n, "threshold": t, "smallest_sum": max(t, 3), "honest": max(t, 3) - (n - t),
        "threat_model": "malicious", "post_quantum": False, "retries": 1,
        "authority": "ephemeral simulation authority: proves no identity",
    }  # fmt: skip
    return report.model_copy(
        update={"secure_sum": SecureSumTerms.model_validate(values | terms), "round_log": tuple(log)}
    )


NORM = NormRule(0.5, 0.2, 0.25, 4.0, 1.0)
WEIGHTS = WeightRule("sex", ("female", "male"), 0.5, 0.1, 2.0, 0.5, 0.05)
ADAPTS = Adaptation(1.0, NORM, 0.1, WEIGHTS, 0.2)


def what_adapted(adapts: Adaptation = ADAPTS) -> AdaptationReport:
    """After three steps of the same counts: half the units beyond the norm, and the first group with the larger loss."""
    found, now, counted = [], adapts.first, [0.0, 0.5, -0.5, 1.0, 3.0]
    for _ in range(3):
        now = adapts.following(now, counted[5 - adapts.coordinates :], 20.0)
        found.append(now)
    return adaptation_told(adapts, found)


def all_cases() -> dict[str, Report]:
    """The reports that a reader meets, by name."""
    absent = {
        **{r: {"Kiel": "absent"} for r in range(6, 10)},
        12: {"Kiel": "absent", "Leipzig": "HANSA-401"},
        13: {"Leipzig": "HANSA-401"},
        14: {"Leipzig": "HANSA-401", "Aachen": "absent"},
    }
    repeated = [a_quality(1.3, seed=s) for s in range(5)]
    return {
        "normal": a_report(),
        "secure-sum": with_sums(a_report(adaptation=what_adapted())),
        "long-names": a_report(
            members=LONG, title="Triage of free-text referrals at nine university hospitals"
        ),
        "no-privacy": a_report(
            epsilon=None, changes=("privacy.mechanism = none",), derived_from=sha256_hex(b"terms 0")
        ),
        "partial": a_report(
            rounds=14,
            rounds_planned=20,
            absent=absent,
            status="partial",
            stopped_because="a person stopped the run after round 14 (Ctrl-C)",
        ),
        "references": a_report(
            quality=mean_quality(repeated),
            references=(
                Reference(
                    kind="federated, no privacy", agreement_id=sha256_hex(b"a"), quality=a_quality(1.7)
                ),
                Reference(kind="pooled, same privacy", agreement_id=sha256_hex(b"b"), quality=a_quality(1.5)),
                Reference(kind="pooled, no privacy", agreement_id=sha256_hex(b"c"), quality=a_quality(1.8)),
                Reference(
                    kind="local only, same privacy", agreement_id=sha256_hex(b"d"), quality=a_quality(0.6)
                ),
            ),
            repeats=tuple(
                Repeat(seed=7 + s, pooled=q.pooled, mean_over_members=q.mean_over_members)
                for s, q in enumerate(repeated)
            ),
        ),
        "single-point": a_report(
            rounds=1, history=a_history(1, HOSPITALS, 7.9)[1:], initial_quality=None, unit="record"
        ),
        "pool": a_report(members=("pool",), quality=a_quality(), initial_quality=None, history=()),
    }


@pytest.fixture(scope="session")
def make_report() -> Callable[..., Report]:
    return a_report


@pytest.fixture(scope="session")
def make_quality() -> Callable[..., Quality]:
    return a_quality


@pytest.fixture(scope="session")
def cases() -> Mapping[str, Report]:
    return all_cases()


@pytest.fixture(scope="session")
def pages(cases: Mapping[str, Report]) -> Mapping[str, str]:
    """Every case as a page; drawn once, because it takes about a second each."""
    return {name: render_html(report) for name, report in cases.items()}


@pytest.fixture(scope="session")
def sums_added() -> Callable[..., Report]:
    return with_sums
