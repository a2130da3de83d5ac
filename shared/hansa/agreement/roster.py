"""Between an agreement and a roster: pinning keys when it is frozen, and reading them back."""

from __future__ import annotations

from hansa.agreement.document import Agreement, Frozen
from hansa.errors import AgreementError, Problem
from hansa.identity.errors import RosterError
from hansa.identity.roster import Roster


def pin(agreement: Agreement, roster: Roster) -> Agreement:
    """The frozen agreement with the keys of all its parties, which are then part of `agreement_id`.

    Args:
        agreement: frozen, so far without keys.
        roster: without revocations; see `hansa.identity.cards.roster_of_cards`.

    Raises:
        AgreementError: the agreement is not frozen, pins keys already, or the roster is not of its parties.
    """
    frozen = agreement.require_frozen()
    if frozen.member_keys or roster.revoked:
        raise AgreementError(
            "keys are pinned once",
            [Problem("frozen.member_keys", "later changes are amendments", "hansa agreement amend")],
        )
    keys = {
        "member_keys": dict(roster.members),
        "coordinator_key": roster.coordinator,
        "auditor_keys": dict(roster.auditors),
    }
    # all else that was frozen stays as it is, whatever it is
    return agreement.freeze(Frozen.model_validate({**frozen.model_dump(), **keys}))


def roster_of(agreement: Agreement) -> Roster:
    """The roster that a frozen agreement pins, members in the order of its terms.

    Amendments are not applied; see `hansa.agreement.amendments.roster_in_force`.

    Raises:
        AgreementError: the agreement is not frozen, pins no keys, or a key is no key.
    """
    frozen = agreement.require_frozen()
    if not frozen.member_keys or frozen.coordinator_key is None:
        raise AgreementError(
            "the agreement pins no keys",
            [
                Problem(
                    "frozen.member_keys",
                    "is empty: nobody can sign it, and no node of a real league accepts it",
                    "freeze it anew with `hansa agreement freeze FILE --keys FOLDER`",
                )
            ],
            remedy="",
        )
    try:
        return Roster(
            {member.name: frozen.member_keys[member.name] for member in agreement.terms.members},
            frozen.coordinator_key,
            auditors=dict(frozen.auditor_keys),
        )
    except RosterError as error:
        problems = [
            Problem(f"frozen: {problem.place}", problem.what, problem.remedy) for problem in error.problems
        ]
        raise AgreementError("the keys that the agreement pins do not make a roster", problems) from None
