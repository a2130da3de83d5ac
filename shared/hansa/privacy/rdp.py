"""The accountant that checks the one of record everywhere: Rényi DP, an upper bound in closed form."""

from __future__ import annotations

from collections.abc import Iterable

from hansa.privacy.accountant import check_delta
from hansa.privacy.events import Spend
from hansa.privacy.renyi import ORDERS, epsilon_of_renyi, renyi_loss


class RdpAccountant:
    """Rényi DP over fixed integer orders: the smallest ε that one of them gives.

    Guarantees: never below the true ε, whatever the order; so an accountant that answers more than this one, and is
        not merely coarser, is wrong.
    """

    name = "rdp"

    def epsilon(self, spends: Iterable[Spend], delta: float) -> float:
        check_delta(delta)
        held = tuple(spend for spend in spends if spend.count)
        if not held:
            return 0.0
        return min(epsilon_of_renyi(renyi_loss(held, order), order, delta) for order in ORDERS)
