"""What events would cost a unit that is drawn more rarely than they say."""

from __future__ import annotations

from collections.abc import Iterable

from hansa.errors import PrivacyParameterError
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.events import Spend, numbers_of, poisson_gaussian


def epsilon_at_rate(spends: Iterable[Spend], delta: float, rate: float) -> float:
    """ε at `delta` of these spends for a unit whose own Poisson rate is `rate`.

    Events without Poisson sampling stay as they are: such a unit takes part in them like any other.

    Args:
        spends: with counts.
        delta: of the accountant of record.
        rate: in (0, 1], at most that of every sampled event.

    Guarantees: never above `epsilon_spent` of the spends, and holds for the unit if it was drawn independently at this rate.

    Raises:
        PrivacyParameterError: an event whose rate is smaller.
    """
    found = []
    for spend in spends:
        numbers = numbers_of(spend.event)
        if spend.event["type"] != "PoissonSampled":
            found.append(spend)
            continue
        if rate > numbers.rate:
            raise PrivacyParameterError(
                f"a unit is drawn at {rate:g}, and the event says {numbers.rate:g} at most"
            )
        found.append(Spend(poisson_gaussian(rate, numbers.multiplier), spend.count))
    return epsilon_spent(found, delta)
