"""The roster in force: from an agreement and the files of its amendments."""

from __future__ import annotations

import dataclasses

import pytest

from hansa.agreement.amendments import (
    Proposal,
    apply_amendments,
    check_proposal,
    read_proposal,
    roster_in_force,
)
from hansa.errors import AgreementError, UsageError, WireError
from hansa.identity import COORDINATOR, Amendment, Signer, Statement
from hansa.identity.amendment import MAX_REASON, PURPOSE
from hansa.identity.errors import AmendmentError, RosterError, SignatureError
from hansa.ledger.files import entry_lines
from support.identities import (
    AUDITOR,
    MEMBERS,
    amendment_file,
    frozen,
    pinned,
    revocation,
    roster,
    signature,
    signer,
)

AGREEMENT = pinned()
ROSTER = roster()
REVOKE = revocation(AGREEMENT, ROSTER)
RENEW = revocation(
    AGREEMENT,
    ROSTER.revoke("epsilon"),
    sequence=2,
    change="replace-key",
    public_key=signer("epsilon", 2).public_key,
    reason="new laptop",
)


def proposal(amendment: Amendment, names=MEMBERS[:4]) -> Proposal:
    return Proposal.of([amendment.sign(signer(name)) for name in names])


def apply(*proposals: Proposal):
    return apply_amendments(ROSTER, AGREEMENT.agreement_id, proposals)


def states(standing) -> list[tuple[int, str, tuple[str, ...]]]:
    return [(one.proposal.amendment.sequence, one.state, one.approved) for one in standing.amendments]


class TestRosterInForce:
    def test_without_amendments_it_is_what_the_agreement_pins(self, tmp_path):
        standing = roster_in_force(AGREEMENT, [tmp_path])
        assert (standing.roster, standing.next_sequence, standing.amendments) == (ROSTER, 1, ())
        with pytest.raises(AgreementError, match="pins no keys"):
            roster_in_force(frozen(), [])

    def test_amendments_follow_each_other_in_whatever_order_files_are_named(self, tmp_path):
        first = amendment_file(tmp_path / "z.sig", REVOKE, MEMBERS[:4])
        second = amendment_file(tmp_path / "a.sig", RENEW, MEMBERS[:4])
        for places in ([tmp_path], [first, second], [second, first], [tmp_path, first]):
            standing = roster_in_force(AGREEMENT, places)
            assert standing.roster == ROSTER.replace_key("epsilon", signer("epsilon", 2).public_key)
            assert standing.next_sequence == 3
            assert states(standing) == [(1, "in force", MEMBERS[:4]), (2, "in force", MEMBERS[:4])]

    def test_too_few_approvals_are_pending_and_change_nothing(self):
        standing = apply(proposal(REVOKE, MEMBERS[:3]))
        assert standing.roster == ROSTER
        assert states(standing) == [(1, "pending", MEMBERS[:3])]
        assert standing.amendments[0].needed == 4

    def test_copies_with_different_approvals_count_together(self, tmp_path):
        amendment_file(tmp_path / "one.sig", REVOKE, ("alpha", "beta", "gamma"))
        amendment_file(tmp_path / "two.sig", REVOKE, ("delta", "alpha"))
        standing = roster_in_force(AGREEMENT, [tmp_path])
        assert states(standing) == [(1, "in force", MEMBERS[:4])]
        assert standing.roster.revoked == {"epsilon"}

    @pytest.mark.parametrize("fourth", ["epsilon", COORDINATOR, AUDITOR])
    def test_who_does_not_count_does_not_make_it_enough(self, fourth):
        standing = apply(proposal(REVOKE, (*MEMBERS[:3], fourth)))
        assert states(standing) == [(1, "pending", MEMBERS[:3])]

    def test_an_amendment_that_lost_is_outdated(self):
        other = revocation(AGREEMENT, ROSTER, "delta")
        standing = apply(proposal(REVOKE), proposal(other, ("alpha",)))
        assert standing.roster.revoked == {"epsilon"}
        assert states(standing) == [(1, "in force", MEMBERS[:4]), (1, "outdated", ())]

    def test_two_that_exclude_each_other_stop_everything(self):
        other = revocation(AGREEMENT, ROSTER, reason="for another reason")
        with pytest.raises(AmendmentError, match="2 different amendments number 1"):
            apply(proposal(REVOKE), proposal(other))

    def test_the_second_without_the_first_is_not_in_force(self):
        standing = apply(proposal(RENEW))
        assert standing.roster == ROSTER
        assert states(standing) == [(2, "outdated", ())]

    def test_a_revoked_member_approves_no_later_amendment(self):
        later = dataclasses.replace(
            RENEW, change="revoke", public_key=None, member="delta", reason="and this one"
        )
        with pytest.raises(AmendmentError, match="revoked"):
            apply(proposal(REVOKE), proposal(later, ("alpha", "beta", "epsilon")))

    def test_a_new_key_approves_and_the_old_one_no_longer_does(self):
        amended = ROSTER.revoke("epsilon").replace_key("epsilon", signer("epsilon", 2).public_key)
        third = revocation(AGREEMENT, amended, "delta", sequence=3)
        names = ("alpha", "beta", "gamma")
        new = third.sign(signer("epsilon", 2))
        approvals = [*(third.sign(signer(name)) for name in names), new]
        standing = apply(proposal(REVOKE), proposal(RENEW), Proposal.of(approvals))
        assert standing.roster.revoked == {"delta"}
        old = third.sign(signer("epsilon"))
        with pytest.raises(AmendmentError, match="does not count"):
            apply(proposal(REVOKE), proposal(RENEW), Proposal.of([*approvals[:-1], old]))

    def test_amendments_of_other_agreements_in_a_folder_are_passed_over(self, tmp_path):
        other = pinned(privacy={"epsilon": 9.0})
        path = amendment_file(tmp_path / "other.sig", revocation(other, ROSTER), MEMBERS[:4])
        (tmp_path / "league.alpha.sig").write_text(entry_lines(signature(AGREEMENT, "alpha")))
        assert roster_in_force(AGREEMENT, [tmp_path]).amendments == ()
        with pytest.raises(AmendmentError, match="amends another agreement"):
            roster_in_force(AGREEMENT, [path])

    def test_a_file_that_is_named_and_not_there_is_told(self, tmp_path):
        with pytest.raises(UsageError, match="no file or folder"):
            roster_in_force(AGREEMENT, [tmp_path / "absent.sig"])

    def test_a_file_that_cannot_be_read_stops_everything(self, tmp_path):
        # a revocation that was damaged must not be taken for one that was never made
        path = amendment_file(tmp_path / "a.sig", REVOKE, MEMBERS[:4])
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(UsageError, match="is no file of an amendment: a list of statements is cut short"):
            roster_in_force(AGREEMENT, [tmp_path])


class TestProposals:
    def test_a_file_holds_one_amendment_and_comes_back(self, tmp_path):
        made = proposal(REVOKE)
        (tmp_path / "a.sig").write_text(made.text)
        assert read_proposal(tmp_path / "a.sig") == made
        assert made.amendment == REVOKE

    def test_approving_twice_changes_nothing(self):
        made = proposal(REVOKE, ("alpha",))
        assert made.approved_by(REVOKE.sign(signer("alpha"))) is made
        assert [one.signer for one in made.approved_by(REVOKE.sign(signer("beta"))).approvals] == [
            "alpha",
            "beta",
        ]

    def test_a_second_line_of_a_signer_that_says_otherwise_is_refused(self):
        forged = REVOKE.sign(Signer("alpha", signer("somebody").private_key))
        with pytest.raises(AmendmentError, match="two different approvals by 'alpha'"):
            proposal(REVOKE, ("alpha",)).approved_by(forged)

    def test_approvals_of_something_else_are_refused(self):
        other = revocation(AGREEMENT, ROSTER, "delta")
        with pytest.raises(AmendmentError, match="'beta' approved something else"):
            Proposal.of([REVOKE.sign(signer("alpha")), other.sign(signer("beta"))])
        (signed,) = signature(AGREEMENT, "beta").statements
        with pytest.raises(AmendmentError, match="'beta' approved something else"):
            Proposal.of([REVOKE.sign(signer("alpha")), signed])
        with pytest.raises(AmendmentError, match="no amendment can be read"):
            Proposal.of([signed])

    @pytest.mark.parametrize(
        "change",
        [
            {"sequence": 0},
            {"sequence": True},
            {"sequence": "1"},
            {"change": "promote"},
            {"change": None},
            {"member": 1},
            {"public_key": 1},
            {"reason": None},
            {"public_key": "p256:00", "change": "replace-key"},
            {"public_key": None, "change": "replace-key"},
            {"extra": 1},
            {"member": "\x1b[2Jalpha"},
            {"member": ""},
            {"reason": "a\nb"},
            {"reason": "\x1b[2Krevoke nobody"},
            {"reason": "\u202eedoc"},
            {"reason": "x" * (MAX_REASON + 1)},
        ],
        ids=repr,
    )
    def test_what_is_no_amendment_is_refused(self, change):
        statement = Statement.sign(signer("alpha"), PURPOSE, {**REVOKE.tree(), **change})
        with pytest.raises((WireError, AmendmentError, SignatureError)):
            Amendment.of(statement)
        with pytest.raises(AmendmentError, match="no amendment can be read"):
            Proposal.of([statement])

    def test_a_missing_member_is_no_amendment(self):
        for name in REVOKE.tree():
            value = {key: item for key, item in REVOKE.tree().items() if key != name}
            with pytest.raises(WireError, match="seven members"):
                Amendment.of(Statement.sign(signer("alpha"), PURPOSE, value))


class TestChecksBeforeSigning:
    def standing(self, *proposals):
        return apply(*proposals)

    def check(self, amendment, *before):
        check_proposal(self.standing(*before), AGREEMENT.agreement_id, amendment)

    def test_what_can_come_into_force_passes(self):
        self.check(REVOKE)
        self.check(RENEW, proposal(REVOKE))

    @pytest.mark.parametrize(
        "changes", [{"sequence": 2}, {"agreement_id": "0" * 64}, {"roster_sha256": "0" * 64}], ids=repr
    )
    def test_what_does_not_follow_is_refused(self, changes):
        with pytest.raises(AmendmentError, match="does not follow"):
            self.check(dataclasses.replace(REVOKE, **changes))

    def test_what_changes_nothing_is_refused(self):
        with pytest.raises(AmendmentError, match="no member"):
            self.check(revocation(AGREEMENT, ROSTER, "zeta"))
        again = revocation(AGREEMENT, ROSTER.revoke("epsilon"), sequence=2)
        with pytest.raises(AmendmentError, match="revoked already"):
            self.check(again, proposal(REVOKE))
        same = revocation(AGREEMENT, ROSTER, change="replace-key", public_key=signer("epsilon").public_key)
        with pytest.raises(AmendmentError, match="is the old one"):
            self.check(same)

    def test_a_revoked_key_does_not_come_back(self):
        back = dataclasses.replace(RENEW, public_key=signer("epsilon").public_key)
        with pytest.raises(AmendmentError, match="is the old one"):
            self.check(back, proposal(REVOKE))
        with pytest.raises(AmendmentError, match="is the old one"):
            apply(proposal(REVOKE), proposal(back))

    def test_a_key_of_another_party_is_refused(self):
        stolen = revocation(AGREEMENT, ROSTER, change="replace-key", public_key=signer("alpha").public_key)
        with pytest.raises(RosterError, match="roster"):
            self.check(stolen)

    def test_what_too_few_are_left_to_approve_is_refused(self):
        second = revocation(AGREEMENT, ROSTER.revoke("epsilon"), "delta", sequence=2)
        with pytest.raises(AmendmentError, match="3 members could approve it, and 4 are needed"):
            self.check(second, proposal(REVOKE))
