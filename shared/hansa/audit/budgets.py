"""Budgets replayed from a member's own log, and every ε recomputed from events.

dp_accounting is imported when the first ε is computed, and not before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from hansa.audit.bounds import Counted, bounded, require_few
from hansa.audit.findings import Failure, Notebook, Spent
from hansa.audit.integrity import Examined
from hansa.audit.spending import RunSpend, total
from hansa.errors import HansaError
from hansa.ledger.budgets import total_granted
from hansa.privacy.book import REPLAY_TOLERANCE, BudgetBook
from hansa.privacy.composition import FixedInAdvance
from hansa.privacy.crosscheck import CheckedEpsilon, checked_epsilon
from hansa.privacy.errors import AccountantFailedError, BudgetRecordError
from hansa.privacy.events import Spend
from hansa.privacy.records import Grant, Limit, Record, Reservation
from hansa.privacy.words import no_total_words

EPSILON = "epsilon"  # the type of what is wrong where accountants contradict each other


def check_budgets(own: Mapping[str, Examined], notebook: Notebook) -> None:
    """Replay each member's budgets and recompute what its runs have cost."""
    for name, log in own.items():
        if not log.facts.grants:
            notebook.not_checked(f"whether {name!r} kept its budget", "its own log holds no grant")
        for dataset in log.facts.grants:
            _replay(name, dataset, log, notebook)
        if len(log.facts.grants) > 1:
            _tell_together(log, notebook)


def _tell_together(log: Examined, notebook: Notebook) -> None:
    grants = [entry for _, _, entry in log.facts.grants.values()]
    try:
        loss = total_granted(grants)
    except HansaError as error:
        place = max(index for index, _, _ in log.facts.grants.values())
        what = f"{len(grants)} budgets together bound nothing: {error.cause}"
        notebook.failed(Failure(log.log, place, log.type_at(place), what, log.place))
        return
    if loss is None:
        notebook.remark(log.log, None, no_total_words([entry.unit for entry in grants]))
        return
    notebook.remark(
        log.log,
        None,
        f"{len(grants)} budgets together allow ε = {loss.epsilon:.6g} at δ = {loss.delta:g} to whoever is in "
        "all of the datasets that were not declared disjoint",
    )


def recomputed(
    spends: tuple[Spend, ...], delta: float, what: str, notebook: Notebook
) -> CheckedEpsilon | None:
    """ε of record with its cross-checks; `None`, and told, where the accountant of record fails or would not end.

    Raises:
        AccountantsDisagreeError: an ε is contradicted.
    """
    try:
        require_few(spends)
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
    held = [(index, record) for index, record in log.facts.records[dataset] if index < log.size]

    def records() -> Iterator[Record]:
        nonlocal place
        for place, record in held:  # noqa: B007  # read where replaying stops
            yield record

    try:
        book = BudgetBook.replay(records(), tolerance=math.inf)
        counted, bounds = Counted(), list[str]()
        for place, record in held:  # noqa: B007  # read where a limit breaks
            _require_one_plan(counted, record, book.grant)
            counted.take(record)
            if isinstance(record, Reservation):
                bounds += _require_within(counted, book.grant)
        runs = [
            run for run in log.facts.spending.runs.values() if run.dataset == dataset and run.entry < log.size
        ]
        for run in runs:
            place = run.entry
            _tell_run(name, run, book.grant, notebook)
        _tell_all(name, book.grant, counted, sum(sum(run.counts.values()) for run in runs), notebook)
    except HansaError as error:
        notebook.failed(Failure(log.log, place, log.type_at(place), error.cause, log.place))
        return
    for why in dict.fromkeys(bounds):
        notebook.not_checked(
            f"the exact ε of dataset {dataset[:8]} of {name!r}, which is within its limit by RDP", why
        )
    notebook.passed("budgets that held after every entry")
    notebook.passed("reservations within their budget", len(runs))


def _require_one_plan(counted: Counted, record: Record, grant: Grant) -> None:
    """Runs that were all fixed in advance are fixed in one agreement; the next one is signed after seeing outputs."""
    if not isinstance(record, Reservation):
        return
    fixed = any(isinstance(limit.rule, FixedInAdvance) for _, _, limit in grant.limits())
    if fixed and counted.agreements - {record.agreement}:
        raise BudgetRecordError(
            "its budget adds up runs that were all fixed in advance, and holds runs of another agreement: PLD "
            "bounds nothing for runs that follow each other by choice"
        )


def _require_within(counted: Counted, grant: Grant) -> list[str]:
    """Check every limit; why PLD could not tell, where it could not.

    Raises:
        BudgetRecordError: a limit does not hold, or nothing shows that it does.
    """
    causes = []
    for words, coalition, limit in grant.limits():
        blocks = counted.blocks(coalition)
        found = bounded(limit, blocks)
        if not found.epsilon <= limit.loss.epsilon * (1 + REPLAY_TOLERANCE):
            before = bounded(limit, blocks[:-1])
            left = max(limit.loss.epsilon - before.epsilon, 0.0)
            how = f" by RDP, as PLD cannot tell ({found.why})" if found.why else ""
            raise BudgetRecordError(
                f"with it, ε against {words} is {found.epsilon:.6g} at δ = {limit.loss.delta:g}{how}; "
                f"{limit.loss.epsilon:.6g} was granted and {left:.6g} of it remains"
            )
        causes += [found.why] if found.why else []
    return causes


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


def _tell_all(name: str, grant: Grant, counted: Counted, events: int, notebook: Notebook) -> None:
    for against, coalition, limit in grant.limits():
        found, loss = bounded(limit, counted.blocks(coalition)), limit.loss
        notebook.spent.append(
            Spent(name, grant.dataset, "", against, found.epsilon, loss.delta, loss.epsilon, events)
        )
