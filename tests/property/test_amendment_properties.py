"""Amendments of any kind: who approved decides, and neither the order nor the splitting of files does."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.agreement.amendments import Proposal, apply_amendments, read_proposals
from hansa.identity import Amendment
from hansa.identity.amendment import PURPOSE, approvals_needed
from support.identities import AUDITOR, COORDINATOR, MEMBERS, pinned, revocation, roster, signer

AGREEMENT = pinned()
ROSTER = roster()

reasons = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), max_size=40)
approver_sets = st.sets(st.sampled_from([*MEMBERS, COORDINATOR, AUDITOR]), min_size=1)


def proposal(amendment: Amendment, names) -> Proposal:
    return Proposal.of([amendment.sign(signer(name)) for name in names])


@given(st.sampled_from(MEMBERS), reasons, st.booleans())
def test_an_amendment_comes_back_from_its_statement(member, reason, revoke):
    key = None if revoke else signer(member, 2).public_key
    change = "revoke" if revoke else "replace-key"
    made = revocation(AGREEMENT, ROSTER, member, reason=reason, change=change, public_key=key)
    statement = made.sign(signer("alpha"))
    assert statement.purpose == PURPOSE
    assert Amendment.of(statement) == made


@given(st.sampled_from(MEMBERS), approver_sets)
def test_it_is_in_force_exactly_when_enough_others_approved(member, names):
    amendment = revocation(AGREEMENT, ROSTER, member)
    standing = apply_amendments(ROSTER, AGREEMENT.agreement_id, [proposal(amendment, sorted(names))])
    counted = set(names) & set(MEMBERS) - {member}
    enough = len(counted) >= approvals_needed(ROSTER)
    assert (standing.roster == ROSTER.revoke(member)) is enough
    assert (standing.roster == ROSTER) is not enough
    assert set(standing.amendments[0].approved) == counted
    assert standing.next_sequence == 1 + enough


@settings(max_examples=30)
@given(st.data())
def test_files_may_be_split_copied_and_named_in_any_way(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("amendments")
    changes = [
        revocation(AGREEMENT, ROSTER),
        revocation(
            AGREEMENT,
            ROSTER.revoke("epsilon"),
            sequence=2,
            change="replace-key",
            public_key=signer("epsilon", 2).public_key,
        ),
    ]
    lines = [[change.sign(signer(name)).line for name in MEMBERS[:4]] for change in changes]
    count = 0
    for one in lines:
        parts = data.draw(st.lists(st.sets(st.sampled_from(one), min_size=1), max_size=3))
        for part in [*parts, set(one) - set().union(*parts)]:
            if part:
                name = data.draw(st.integers(0, 99))
                (folder / f"{name:02}-{count}.sig").write_text("".join(f"{line}\n" for line in sorted(part)))
                count += 1
    standing = apply_amendments(ROSTER, AGREEMENT.agreement_id, read_proposals(AGREEMENT, [folder]))
    assert standing.roster == ROSTER.replace_key("epsilon", signer("epsilon", 2).public_key)
    assert [one.state for one in standing.amendments] == ["in force", "in force"]
