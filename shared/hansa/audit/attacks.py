"""Attacks on members' own trainers: whether what their entries tell contradicts the events that they name.

Everything is computed anew from counts; an entry holds no bound. Numbers are of strangers, so that what would take hours
is not computed, and told.
"""

from __future__ import annotations

from collections.abc import Mapping

from hansa.audit.bounds import require_few
from hansa.audit.findings import Failure, Notebook
from hansa.audit.integrity import Examined
from hansa.errors import PrivacyParameterError
from hansa.ledger.attacks import AttackMade
from hansa.ledger.entry import real_value
from hansa.privacy.attack import MOST_CANARIES, Claim, Design, Verdict
from hansa.privacy.errors import AccountantFailedError
from hansa.privacy.events import numbers_of

MOST_ATTACKS = 100  # of one log; each takes seconds


def check_attacks(own: Mapping[str, Examined], notebook: Notebook) -> None:
    """Hold each attack in a member's own log against the claim that it names."""
    for name, log in own.items():
        told = [(index, entry) for index, entry in log.facts.attacks if index < log.size]
        for index, entry in told[:MOST_ATTACKS]:
            _check(name, index, entry, log, notebook)
        if len(told) > MOST_ATTACKS:
            notebook.not_checked(
                f"{len(told) - MOST_ATTACKS} attacks in the log of {name!r}",
                f"the first {MOST_ATTACKS} of a log are looked at",
            )


def verdict_of(entry: AttackMade) -> Verdict:
    """The attack that an entry tells of.

    Raises:
        AccountantFailedError: its numbers would take too long, or are of a kind that attacks do not judge.
        PrivacyParameterError: its events are not known, or promise nothing.
    """
    spends = tuple(one.spend for one in entry.spends)
    if any(numbers_of(one.event).truncation is not None for one in spends):
        raise AccountantFailedError("no curve of samples that are cut holds for every number of units")
    require_few(spends)
    if entry.canaries > MOST_CANARIES:
        raise AccountantFailedError(
            f"{entry.canaries} canaries are more than the {MOST_CANARIES} of an attack"
        )
    claim = Claim(spends, real_value(entry.delta))
    design = Design(claim, entry.canaries, entry.guessed_in, entry.guessed_out, real_value(entry.confidence))
    return design.judge(entry.correct)


def _check(name: str, index: int, entry: AttackMade, log: Examined, notebook: Notebook) -> None:
    try:
        verdict = verdict_of(entry)
        if not verdict.contradicts:
            notebook.passed("attacks that contradict no claim")
            return
        said = (
            f"an attack contradicts what the run is charged as: ε is at least {verdict.epsilon:.3g} with "
            f"{100 * verdict.design.confidence:.4g} % confidence, and {verdict.design.claim.epsilon:.3g} is claimed, at "
            f"δ = {verdict.design.claim.delta:g}: {entry.correct} of {verdict.design.guesses} guesses were right"
        )
    except AccountantFailedError as error:
        notebook.not_checked(f"an attack of {name!r}, entry {index} of its log", error.cause)
        return
    except PrivacyParameterError as error:
        said = f"it tells of no attack: {error.cause}"
    notebook.failed(Failure(log.log, index, entry.type, said, log.place))
