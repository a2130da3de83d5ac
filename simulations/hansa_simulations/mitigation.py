"""What a finished run did about groups, as its report tells it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hansa.agreement import Terms
from hansa.privacy.adaptation import adaptation_of
from hansa.privacy.events import Spend
from hansa.privacy.group_rates import epsilon_at_rate
from hansa.privacy.sampling import GroupSampling, sampling_of
from hansa.report import AdaptationReport, GroupRateReport, MitigationReport, adaptation_told


def rates_told(terms: Terms, spends: Iterable[Sequence[Spend]]) -> MitigationReport | None:
    """Rates by group, and what each would cost by itself for the member that lost most; `None` where all are drawn at one.

    Args:
        terms: of the agreement.
        spends: of each member.
    """
    sampling = sampling_of(terms)
    if not isinstance(sampling, GroupSampling):
        return None
    delta, members = terms.privacy.delta if terms.private else None, list(spends)
    return MitigationReport(
        attribute=sampling.attribute,
        accounted_rate=sampling.rate,
        groups=tuple(
            GroupRateReport(
                value=value,
                rate=rate,
                epsilon=None
                if delta is None
                else max((epsilon_at_rate(each, delta, rate) for each in members), default=0.0),
            )
            for value, rate in sampling.rates.items()
        ),
    )


def adapted_told(terms: Terms, quantities: Sequence[tuple[float, ...]]) -> AdaptationReport | None:
    """What adapted, and how it went; `None` where nothing does.

    Args:
        terms: of the agreement.
        quantities: after each round.
    """
    adapts = adaptation_of(terms)
    return None if adapts is None else adaptation_told(adapts, quantities)
