"""Why members of a simulation refuse for lack of budget, in their own words: the machine that hosts them may know."""

from __future__ import annotations

from collections.abc import Iterator

from hansa.agreement import Agreement
from hansa.errors import BudgetRefusedError
from hansa.fairness.agreed import run_charges
from hansa.ledger import BudgetGranted, LogView, SignedEntry
from hansa.ledger.budgets import records_of
from hansa.privacy.book import BudgetBook
from hansa.protocol import PolicyCode
from hansa_client.protection import Protection
from hansa_server.federation import Outcome
from hansa_simulations.league import TrainingLeague


def budget_refusals(
    agreement: Agreement, league: TrainingLeague, outcome: Outcome, run: str
) -> Iterator[tuple[str, BudgetRefusedError]]:
    """Who refused for lack of budget, and why, by the member's own log; nothing is written there.

    Args:
        agreement: frozen.
        league: of the members.
        outcome: of the run.
        run: its name.
    """
    asked = {
        name
        for record in outcome.rounds
        for name, code in record.absent.items()
        if code == PolicyCode.BUDGET.value
    }
    for member in agreement.terms.members:
        if member.name in asked:
            with league.log(member.name) as log:
                why = _refusal(agreement, log, run)
            if why is not None:
                yield member.name, why


def _refusal(agreement: Agreement, log: LogView, run: str) -> BudgetRefusedError | None:
    terms, noise = agreement.terms, agreement.require_frozen().noise_multiplier
    if noise is None:
        return None
    entries = [SignedEntry.parse(data).entry for data in log.entries()]
    grants = [entry for entry in entries if isinstance(entry, BudgetGranted)]
    charged = run_charges(agreement, apart=len(grants) > 1)
    asked = Protection.of(terms.privacy)
    for granted, charges in zip(grants, (charged.training, charged.evaluation), strict=False):
        if asked != Protection.granted(granted):
            return BudgetRefusedError(
                f"the agreement protects a {asked}; the budget was granted for a {Protection.granted(granted)}",
                remedy="Name another --members-home, or an agreement that protects the same.",
            )
        book = BudgetBook.replay(records_of(entries, granted.dataset_id))
        try:
            if charges and book.reservation(run) is None:
                book.reserve(run, charges, agreement.agreement_id)
        except BudgetRefusedError as error:
            return error
    return None
