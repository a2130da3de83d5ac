"""The accountant of record: privacy loss distributions (PLD), composed over everything that was charged."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Protocol

from hansa.errors import PrivacyParameterError
from hansa.privacy.errors import AccountantFailedError
from hansa.privacy.events import Numbers, Spend, counted, numbers_of
from hansa.privacy.truncation import LONGEST_STEP, cut_share

DISCRETIZATION_INTERVAL = 1e-4  # of the privacy loss; the estimate is pessimistic at any interval
# Its FFT leaves an error of some 1e-13 in δ, which grows with the number of steps: at δ = 1e-10 and a million steps the
# answer can be 0.5 % below what an attack achieves, or several times the truth. At 1e-9 it is right to 1e-4.
SMALLEST_DELTA = 1e-9
_LARGEST_LOSS = (
    1500.0  # of one kind of event; beyond it there is no privacy to speak of, and no memory for its grid
)


class Accountant(Protocol):
    """Events with counts in, ε at δ out. It keeps nothing between calls, so there is nothing to forget or restart."""

    @property
    def name(self) -> str:
        """Short and fixed: ``pld``, ``rdp``, ``prv``."""

    def epsilon(self, spends: Iterable[Spend], delta: float) -> float:
        """ε at `delta` of everything in `spends` together, add-or-remove-one.

        Args:
            spends: events with counts, in any order; equal events are composed by count.
            delta: in (0, 1).

        Returns:
            0 for no events, infinity for an event without privacy.

        Raises:
            PrivacyParameterError: δ, a count or an event for which no guarantee can be stated.
            AccountantFailedError: the numbers cannot be computed; never a number that is not an answer.
        """


class PldAccountant:
    """Privacy loss distributions: the accountant of record."""

    name = "pld"

    def epsilon(self, spends: Iterable[Spend], delta: float) -> float:
        return epsilon_spent(spends, delta)


def check_delta(delta: float) -> None:
    """Refuse a δ outside (0, 1).

    Raises:
        PrivacyParameterError: it is.
    """
    if not 0 < delta < 1:
        raise PrivacyParameterError(f"δ = {delta:g} is outside (0, 1)")


def check_delta_of_record(delta: float) -> None:
    """Refuse a δ at which the accountant of record tells no ε.

    Raises:
        PrivacyParameterError: it is outside [`SMALLEST_DELTA`, 1).
    """
    check_delta(delta)
    if delta < SMALLEST_DELTA:
        raise PrivacyParameterError(
            f"PLD cannot tell an ε at δ = {delta:g}",
            remedy=f"Choose a delta of {SMALLEST_DELTA:g} or more, or fewer reservations that share it.",
        )


def epsilon_spent(
    spends: Iterable[Spend], delta: float, *, interval: float = DISCRETIZATION_INTERVAL
) -> float:
    """ε at `delta` of everything in `spends` together, as `Accountant.epsilon` describes it.

    Args:
        spends: events with counts.
        delta: from `SMALLEST_DELTA` to below 1.
        interval: of the discretised privacy loss; only the default is an answer of record.

    Source: Doroshenko, Ghazi, Kamath, Kumar, Manurangsi (PoPETs 2022), as implemented by `dp_accounting`.

    Guarantees: never below the true ε of the events, up to 1 in 10,000 for float64 arithmetic.
    Assumes: the events describe what ran, and were fixed before the first of them was seen.
    """
    check_delta_of_record(delta)
    return _epsilon(counted(spends), delta, interval)


@lru_cache(maxsize=4096)
def _epsilon(counts: tuple[tuple[bytes, int], ...], delta: float, interval: float) -> float:
    if not counts:
        return 0.0
    composed: Any = None
    try:
        for event, count in counts:
            part = _composed(event, count, interval)
            if part is None:
                return math.inf
            composed = part if composed is None else composed.compose(part)
        epsilon = float(composed.get_epsilon_for_delta(delta))
    except (ArithmeticError, MemoryError, ValueError) as error:
        raise AccountantFailedError(f"PLD: {type(error).__name__}: {error}") from error
    if not epsilon >= 0:
        raise AccountantFailedError(f"PLD answers ε = {epsilon:g} at δ = {delta:g}")
    return epsilon


def _composed(event: bytes, count: int, interval: float) -> Any:
    """The PLD of `count` equal events, as `dp_accounting`'s PLDAccountant composes them.

    `None` stands for no privacy, or so little that its ε is beyond any limit.
    """
    value = json.loads(event)
    numbers = numbers_of(value)
    if numbers.multiplier == 0:
        return None
    sampled = value["type"] != "Gaussian"
    sigma = numbers.multiplier if sampled else numbers.multiplier / math.sqrt(count)
    smallest = sigma if numbers.truncation is None else sigma / LONGEST_STEP
    if 0.5 / smallest**2 + 10 / smallest > _LARGEST_LOSS:
        return None
    return _once(event, interval).self_compose(count) if sampled else _gaussian_pld(sigma, 1.0, interval)


@lru_cache(maxsize=16)
def _once(event: bytes, interval: float) -> Any:
    """One Gaussian on a sample. Kept, because making it takes longer than composing it."""
    numbers = numbers_of(json.loads(event))
    whole = _gaussian_pld(numbers.multiplier, numbers.rate, interval)
    return whole if numbers.truncation is None else _with_cut_samples(whole, numbers, interval)


def _with_cut_samples(whole: Any, numbers: Numbers, interval: float) -> Any:
    """The PLD of a step whose sample may be cut; `hansa.privacy.truncation` says why."""
    share = 0.0 if numbers.truncation is None else cut_share(numbers.truncation, numbers.rate)
    if share == 0:
        return whole
    return _gaussian_pld(numbers.multiplier / LONGEST_STEP, numbers.rate, interval).compute_mixture(
        whole, share
    )


def _gaussian_pld(multiplier: float, rate: float, interval: float) -> Any:
    from hansa.privacy.gaussian_pld import gaussian_pld  # with dp_accounting, which takes long to load

    return gaussian_pld(multiplier, rate, interval)
