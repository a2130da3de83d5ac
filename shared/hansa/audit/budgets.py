"""Budgets replayed from a member's own log, and every ε recomputed from events.

dp_accounting is imported when the first ε is computed, and not before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hansa.audit.findings import Failure, Notebook, Spent
from hansa.audit.integrity import Examined
from hansa.audit.spending import RunSpend, total
from hansa.errors import HansaError
from hansa.ledger.budgets import total_granted
from hansa.ledger.spends import BudgetGranted
from hansa.privacy.book import BudgetBook
from hansa.privacy.crosscheck import CheckedEpsilon, checked_epsilon
from hansa.privacy.errors import AccountantFailedError
from hansa.privacy.events import Spend
from hansa.privacy.records import Grant, Limit, Record
from hansa.privacy.words import no_total_words

EPSILON = "epsilon"  # the type of what is wrong where accountants contradict each other


def check_budgets(own: Mapping[str, Examined], notebook: Notebook) -> None:
    """Replay each member's budgets and recompute what its runs have cost."""
    for name, log in own.items():
        if not log.facts.grants:
            notebook.not_checked(f"whether {name!r} kept its budget", "its own log holds no grant")
        for dataset in log.facts.grants:
            _replay(name, dataset, log, notebook)
        grants = [entry for _, _, entry in log.facts.grants.values()]
        if len(grants) > 1:
            notebook.remark(log.log, None, _together(grants))


def _together(grants: Sequence[BudgetGranted]) -> str:
    loss = total_granted(grants)
    if loss is None:
        return no_total_words([entry.unit for entry in grants])
    return (
        f"{len(grants)} budgets together allow ε = {loss.epsilon:.6g} at δ = {loss.delta:g} to whoever is in "
        "all of the datasets that were not declared disjoint"
    )


def recomputed(
    spends: tuple[Spend, ...], delta: float, what: str, notebook: Notebook
) -> CheckedEpsilon | None:
    """ε of record with its cross-checks; `None`, and told, where the accountant of record fails.

    Raises:
        AccountantsDisagreeError: an ε is contradicted.
    """
    try:
        answer = checked_epsilon(spends, delta)
    except AccountantFailedError as error:
        notebook.not_checked(f"ε of {what}", error.cause)
        return None
    notebook.passed("ε recomputed from events")
    for finding in answer.findings:
        if finding in answer.not_checked:
            notebook.not_checked(f"ε of {what} by {finding.accountant}", finding.reason)
        else:
            notebook.passed(f"ε cross-checked by {finding.accountant}")
    return answer


def _replay(name: str, dataset: str, log: Examined, notebook: Notebook) -> None:
    place = log.facts.grants[dataset][0]

    def records() -> Iterator[Record]:
        nonlocal place
        for place, record in log.facts.records[dataset]:  # noqa: B007  # read where replaying stops
            yield record

    try:
        book = BudgetBook.replay(records())
        runs = [run for run in log.facts.spending.runs.values() if run.dataset == dataset]
        for run in runs:
            place = run.entry
            _tell_run(name, run, book.grant, notebook)
        _tell_all(name, book, sum(sum(run.counts.values()) for run in runs), notebook)
    except AccountantFailedError as error:
        notebook.not_checked(f"whether {name!r} kept the budget of dataset {dataset[:8]}", error.cause)
        return
    except HansaError as error:
        notebook.failed(Failure(log.log, place, log.facts.types[place], error.cause, log.place))
        return
    notebook.passed("budgets that held after every entry")
    notebook.passed("reservations within their budget", len(runs))


def _tell_run(name: str, run: RunSpend, grant: Grant, notebook: Notebook) -> None:
    for against, coalition, limit in grant.limits():
        spends = total([run], coalition)
        answer = recomputed(spends, limit.loss.delta, f"run {run.run!r} of {name!r}", notebook)
        if answer is not None:
            agreeing = tuple(
                finding.accountant for finding in answer.findings if finding not in answer.not_checked
            )
            notebook.spent.append(_spent(name, run, against, answer.epsilon, limit, spends, agreeing))


def _spent(
    name: str,
    run: RunSpend,
    against: str,
    epsilon: float,
    limit: Limit,
    spends: tuple[Spend, ...],
    checks: tuple[str, ...],
) -> Spent:
    events = sum(spend.count for spend in spends)
    return Spent(
        name, run.dataset, run.run, against, epsilon, limit.loss.delta, limit.loss.epsilon, events, checks
    )


def _tell_all(name: str, book: BudgetBook, events: int, notebook: Notebook) -> None:
    for quote in book.quotes():
        notebook.spent.append(
            Spent(
                name,
                book.grant.dataset,
                "",
                quote.against,
                quote.used,
                quote.limit.delta,
                quote.limit.epsilon,
                events,
            )
        )
