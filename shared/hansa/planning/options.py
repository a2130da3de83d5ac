"""Every combination of mechanism, steps and rate that a plan looks at, in numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from hansa.agreement import Agreement
from hansa.agreement.terms import SHARED_NOISE_OPTIONS, Terms
from hansa.canonical import Json
from hansa.errors import AgreementError, PrivacyParameterError
from hansa.privacy.calibration import calibrated_noise_multiplier
from hansa.privacy.distributed import SharedNoise, losses
from hansa.privacy.grid import Grid
from hansa.privacy.sampling import FixedBatches, sampling_of
from hansa.protocol import public_weights

Mechanism: TypeAlias = Literal["local", "distributed"]
SCHEMA_VERSION = 1
MECHANISMS: tuple[Mechanism, ...] = ("local", "distributed")
STEP_FACTORS = (0.25, 1.0, 4.0)
RATE_FACTORS = (1.0, 2.0, 4.0)
_LOCAL_ROUNDS = 20  # of the local plan, where the agreement names no rounds of its own for it
_MAX_STEPS = 100_000  # of an agreement whose steps are rounds

# Bytes that a member sends in a steady round beside its vector: signatures, keys, statements, and for each member of the
# league two envelopes with what proves them. Measured from 3 to 50 members; `tests/unit/test_planning.py` measures again.
_OWN_BYTES, _BYTES_PER_MEMBER = 2_700, 515
_OWN_BYTES_HYBRID, _BYTES_PER_MEMBER_HYBRID = 5_300, 2_740


@dataclass(frozen=True)
class Option:
    """One way to train under the same promise.

    Attributes:
        mechanism, steps, sampling_rate: what is varied.
        sums: secure sums of a run; under ``distributed`` one for each step.
        unreachable: why this cannot be agreed; then all that follows is `None`.
        noise_multiplier: z, of one member's noise (``local``) or of the shares that are promised in every sum.
        share_multiplier: z / √h, of one member's own share; `None` under ``local``.
        noise_sd: standard deviation of the noise in each coordinate of the mean gradient of one step when all members are
            in it, in gradient units.
        signal_to_noise: C / (noise_sd · √d): the longest mean gradient that clipping allows, over the length that the
            noise of one step has.
        run_signal_to_noise: that times √steps: steps add up where they agree, and noise only as its root.
        epsilon_any: of the run, against everyone.
        epsilon_colluding: of the run, against at most c of the others together with all outside.
        upload_bytes_per_member, upload_bytes: of the run, in messages of the secure sums.
        seconds: of the protocol in the run, where it was measured.
    """

    mechanism: Mechanism
    steps: int
    sampling_rate: float
    sums: int
    unreachable: str | None = None
    noise_multiplier: float | None = None
    share_multiplier: float | None = None
    noise_sd: float | None = None
    signal_to_noise: float | None = None
    run_signal_to_noise: float | None = None
    epsilon_any: float | None = None
    epsilon_colluding: float | None = None
    upload_bytes_per_member: int | None = None
    upload_bytes: int | None = None
    seconds: float | None = None

    @property
    def epochs(self) -> float:
        """How often a unit is expected to be drawn: what the gradients of a run cost."""
        return self.steps * self.sampling_rate


@dataclass(frozen=True)
class Plan:
    """All options of an agreement.

    Attributes:
        agreed: mechanism, steps and rate as they stand in the agreement.
        members, smallest_sum, colluding: n, max(t, min_members), c.
        units: of all members together.
        dimension: d.
        epsilon, delta, clipping_norm: the agreement's.
        options: in order of mechanism, steps and rate.
    """

    agreed: tuple[str, int, float]
    members: int
    smallest_sum: int
    colluding: int
    units: int
    dimension: int
    epsilon: float
    delta: float
    clipping_norm: float
    options: tuple[Option, ...]

    def timed(self, seconds_of_a_sum: float) -> Plan:
        """With the time that so many sums take on the machine where one was measured."""
        options = (
            one if one.unreachable else replace(one, seconds=one.sums * seconds_of_a_sum)
            for one in self.options
        )
        return replace(self, options=tuple(options))

    def as_dict(self) -> dict[str, Json]:
        """As JSON values."""
        mechanism, steps, rate = self.agreed
        return {
            "schema_version": SCHEMA_VERSION,
            "agreed": {"mechanism": mechanism, "steps": steps, "sampling_rate": rate},
            **{
                name: getattr(self, name)
                for name in (
                    "members", "smallest_sum", "colluding", "units", "dimension", "epsilon", "delta", "clipping_norm",
                )
            },
            "options": [{**vars(option), "epochs": option.epochs} for option in self.options],
        }  # fmt: skip


def make_plan(
    agreement: Agreement,
    dimension: int,
    *,
    steps: Sequence[int] = (),
    rates: Sequence[float] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> Plan:
    """What the agreement's promise would come to, by mechanism, steps and sampling rate.

    Args:
        agreement: frozen or not, with a privacy mechanism.
        dimension: d, trained weights.
        steps: to look at; by default a quarter of the agreed ones, these, and four times as many.
        rates: likewise; by default the agreed one, twice and four times as much.
        progress: told what is computed next.

    Raises:
        PrivacyParameterError: the agreement promises nothing, or a dimension, step count or rate makes no sense.
    """
    terms, privacy = agreement.terms, agreement.terms.privacy
    if privacy.mechanism == "none" or privacy.epsilon is None or privacy.delta is None:
        raise PrivacyParameterError(
            "the agreement promises no privacy (privacy.mechanism = 'none'), so there is no noise to plan",
            remedy="Set privacy.mechanism, epsilon and delta to what you mean to promise.",
        )
    if dimension < 1:
        raise PrivacyParameterError(f"a dimension of {dimension} is not at least 1")
    for count in steps:
        if not 1 <= count <= _MAX_STEPS:
            raise PrivacyParameterError(f"{count} steps are outside 1 to {_MAX_STEPS}")
    for rate in rates:
        if not 0 < rate <= 1:
            raise PrivacyParameterError(f"a sampling rate of {rate:g} is outside (0, 1]")
    options = []
    for mechanism in MECHANISMS:
        for count in sorted(steps or _varied_steps(privacy.steps)):
            for rate in sorted(rates or _varied_rates(privacy.sampling_rate)):
                progress(f"{mechanism} noise, {count} steps at rate {rate:g}")
                options.append(_option(agreement, dimension, mechanism, count, rate))
    return Plan(
        agreed=(privacy.mechanism, privacy.steps, privacy.sampling_rate),
        members=len(terms.members),
        smallest_sum=terms.smallest_sum,
        colluding=privacy.colluding,
        units=sum(member.units for member in terms.members),
        dimension=dimension,
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        clipping_norm=privacy.clipping_norm,
        options=tuple(options),
    )


def upload_bytes(members: int, dimension: int, *, post_quantum: bool = False) -> int:
    """About what a member sends in one steady round of a secure sum: four bytes for each weight, and its messages."""
    own, each = (
        (_OWN_BYTES_HYBRID, _BYTES_PER_MEMBER_HYBRID) if post_quantum else (_OWN_BYTES, _BYTES_PER_MEMBER)
    )
    return 4 * dimension + own + each * members


def _varied_steps(agreed: int) -> list[int]:
    return sorted({min(max(1, round(agreed * factor)), max(agreed, _MAX_STEPS)) for factor in STEP_FACTORS})


def _varied_rates(agreed: float) -> list[float]:
    return sorted({min(1.0, agreed * factor) for factor in RATE_FACTORS})


def _option(agreement: Agreement, dimension: int, mechanism: Mechanism, steps: int, rate: float) -> Option:
    rounds = steps if mechanism == "distributed" else _local_rounds(agreement.terms, steps)
    option = Option(mechanism, steps, rate, rounds)
    try:
        terms = _varied(agreement, mechanism, steps, rate, rounds)
        numbers = _numbers(terms, dimension)
    except AgreementError as error:
        return replace(option, unreachable="; ".join(map(str, error.problems)))
    except PrivacyParameterError as error:
        return replace(option, unreachable=error.cause)
    each = rounds * upload_bytes(len(terms.members), dimension, post_quantum=terms.secure_sum.post_quantum)
    return replace(option, **numbers, upload_bytes_per_member=each, upload_bytes=each * len(terms.members))


def _varied(agreement: Agreement, mechanism: Mechanism, steps: int, rate: float, rounds: int) -> Terms:
    """The agreement's terms with that changed; by its own rules."""
    training: dict[str, object] = {"rounds": rounds}
    server = agreement.terms.training.server
    if server.warmup_rounds:  # the same share of the run
        warmup = server.warmup_rounds * rounds // agreement.terms.training.rounds
        training["server"] = {**server.tree(), "warmup_rounds": warmup}
    unshared = {} if mechanism == "distributed" else dict.fromkeys(SHARED_NOISE_OPTIONS)
    varied = agreement.derive(
        privacy={"mechanism": mechanism, "steps": steps, "sampling_rate": rate, **unshared}, training=training
    )
    return varied.terms


def _numbers(terms: Terms, dimension: int) -> Mapping[str, Any]:
    privacy = terms.privacy
    if privacy.epsilon is None or privacy.delta is None:
        raise PrivacyParameterError("an agreement without epsilon and delta needs no noise")
    sampling = sampling_of(terms)
    multiplier = calibrated_noise_multiplier(privacy.epsilon, privacy.delta, sampling, terms.charged_steps)
    share = None
    if privacy.mechanism == "distributed":
        shared = SharedNoise.of(terms, dimension, multiplier)
        share = shared.share_multiplier
        divisor = sampling.rate * sum(member.units for member in terms.members)
        noise_sd = shared.mean_gradient_sd(len(terms.members), divisor)
    else:
        grid, weights = Grid.of(privacy.clipping_norm, dimension), public_weights(terms)
        own = grid.sigma(multiplier) / grid.scale
        noise_sd = math.hypot(
            *(weights[member.name] * own / (sampling.rate * member.units) for member in terms.members)
        )
    spent = losses(terms, multiplier)
    signal = privacy.clipping_norm / (noise_sd * math.sqrt(dimension))
    return {
        "noise_multiplier": multiplier,
        "share_multiplier": share,
        "noise_sd": noise_sd,
        "signal_to_noise": signal,
        "run_signal_to_noise": signal * math.sqrt(privacy.steps),
        "epsilon_any": spent.epsilon_any,
        # noise of a member's own is there whoever colludes
        "epsilon_colluding": spent.epsilon_any
        if spent.epsilon_colluding is None
        else spent.epsilon_colluding,
    }


def _local_rounds(terms: Terms, steps: int) -> int:
    """Rounds of so many local steps: about as many as agreed, each of whole epochs where batches are fixed."""
    wanted = terms.training.rounds if terms.privacy.mechanism == "local" else _LOCAL_ROUNDS
    sampling = sampling_of(terms)
    batches = sampling.batches if isinstance(sampling, FixedBatches) else 1
    divisors = (r for r in range(min(wanted, steps), 0, -1) if steps % r == 0 and steps // r % batches == 0)
    return next(divisors, 1)
