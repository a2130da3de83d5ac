"""Gates that a coordinator would like, and what members, logs and readers make of them."""

from __future__ import annotations

import math

import pytest
from pydantic import JsonValue

from hansa.agreement.conditions import AttackTerm
from hansa.agreement.publication import Evaluation
from hansa.artifact import contents
from hansa.artifact.judged import evidence_in, evidence_of, fairness_table
from hansa.artifact.privacy import privacy_statement
from hansa.canonical import sha256_hex
from hansa.fairness.judging import Outcome
from hansa.gate.approving import check_gate, check_publication
from hansa.gate.errors import GateMismatchError, NotPublishedError
from hansa.gate.record import MemberSpent, read_run
from hansa.identity.errors import SignatureError, UnknownSignerError
from hansa.ledger import AttackMade, Override, Publication, SignedEntry, Spending, real
from hansa.ledger.errors import EntryError
from hansa.ledger.signed import statement_of
from hansa.ledger.spends import Charging, Reservation
from hansa.privacy.charges import EVALUATION
from hansa.privacy.events import Spend, poisson_gaussian
from hansa.protocol import Proposed
from hansa.protocol.approval import MANIFEST
from hansa_client.evaluation.approving import Approver
from support.gates import FAIR, HOLDS, MODEL, RUN, TRAINED, UNFAIR, RunStory, approved, signed_by, total_of
from support.ledgers import AT, HASH, MEMBERS, SIGNERS, fixed_signer, release
from support.packages import TERMS, agreement_of, keys_of

AGREEMENT = agreement_of(TERMS)
SMALL = {"f": (40, 10, 10, 40), "m": (860, 140, 140, 860)}  # too few women to judge


def story(cells=FAIR, agreement=AGREEMENT, **changes) -> RunStory:
    return RunStory(agreement, total_of(agreement, cells), **changes)


def with_terms(**evaluation):
    changed = Evaluation(**{**TERMS.evaluation.model_dump(), **evaluation})
    return agreement_of(TERMS.model_copy(update={"evaluation": changed}))


def outcome(told: RunStory) -> Outcome:
    return told.decision().judgement.outcome


@pytest.fixture(scope="module")
def fair() -> RunStory:
    return story()


def test_an_honest_gate_is_approved(fair):
    assert fair.check(fair.gate()).open
    assert outcome(story(UNFAIR)) == "fail"
    assert outcome(story(SMALL)) == "inconclusive"


@pytest.mark.parametrize("cells", [UNFAIR, SMALL], ids=["fails", "is inconclusive"])
def test_a_coordinator_that_opens_a_gate_that_is_closed_gets_no_signature(cells):
    told = story(cells)
    for lie in ({"conditions": (HOLDS,)}, {"conditions": story().decision().conditions}):
        with pytest.raises(GateMismatchError, match="says open, and the sums say closed"):
            told.check(told.gate(decision="open", **lie))


def test_a_condition_cannot_be_left_out_reworded_or_moved(fair):
    honest = fair.decision().conditions
    better = honest[0].model_copy(update={"low": real(0.99)})
    for lie in (honest[1:], (*honest, HOLDS), honest[::-1], (better, *honest[1:])):
        with pytest.raises(GateMismatchError, match="conditions are not those"):
            fair.check(fair.gate(conditions=lie))


def test_an_excuse_that_is_on_no_record_is_none():
    told = story(SMALL)
    excused = tuple(
        one if one.holds else one.model_copy(update={"override_sha256": HASH})
        for one in told.decision().conditions
    )
    with pytest.raises(GateMismatchError, match="sums say closed"):
        told.check(told.gate(conditions=excused, decision="open"))
    exempt = tuple(one.model_copy(update={"exempt": True}) for one in told.decision().conditions)
    with pytest.raises(GateMismatchError, match="sums say closed"):
        told.check(told.gate(conditions=exempt, decision="open"))


def override(told: RunStory, condition: str) -> Override:
    return Override(
        **told.base,
        party=MEMBERS[1],
        name="Dr. Ada Example",
        role="chief medical officer",
        condition=condition,
        artifact_sha256=MODEL,
        reason="reviewed by hand",
    )


def test_a_named_person_excuses_what_is_inconclusive_and_never_what_fails():
    told = story(SMALL)
    blocking = [one.name for one in told.decision().conditions if not one.holds]
    told.overrides = [override(told, name) for name in blocking]
    assert told.check(told.gate()).open
    told.overrides = told.overrides[:1]
    assert not told.decision().open
    unfair = story(UNFAIR)
    unfair.overrides = [override(unfair, one.name) for one in unfair.decision().conditions]
    assert not unfair.decision().open
    assert all(
        one.override_sha256 is None for one in unfair.decision().conditions if one.verdict != "inconclusive"
    )


def test_an_override_of_another_file_counts_for_nothing():
    told = story(SMALL)
    blocking = [one.name for one in told.decision().conditions if not one.holds]
    told.overrides = [override(told, name).model_copy(update={"artifact_sha256": HASH}) for name in blocking]
    assert not told.decision().open


def test_a_file_that_was_not_evaluated_gets_no_signature(fair):
    with pytest.raises(GateMismatchError, match="another file than was evaluated"):
        fair.check(fair.gate(artifact_sha256=HASH))
    with pytest.raises(GateMismatchError, match="does not show"):
        fair.check(fair.gate(evaluation_sha256=HASH))
    with pytest.raises(GateMismatchError, match="another agreement or run"):
        fair.check(fair.gate(run="run-2"))


def test_a_file_that_is_swapped_after_members_evaluated_another_gets_no_signature(fair):
    # the coordinator has members evaluate one file and logs that it was another
    class Swapping(RunStory):
        def manifest(self, number=1):
            honest = self.artifact
            self.artifact = sha256_hex(b"another model")
            try:
                return super().manifest(number)
            finally:
                self.artifact = honest

    told = Swapping(AGREEMENT, total_of(AGREEMENT, FAIR))
    gate = fair.gate(evaluation_sha256=told.evaluation().sha256)
    with pytest.raises(GateMismatchError, match="asked to evaluate another file"):
        told.check(gate)
    forged = RunStory(AGREEMENT, total_of(AGREEMENT, FAIR)).manifest()
    with pytest.raises(GateMismatchError, match="name another manifest"):
        check_gate(gate, AGREEMENT, told.record(), forged)


def test_a_sum_that_is_not_the_logged_one_gets_no_signature(fair):
    record = fair.record()
    (evaluation,) = record.evaluations.values()
    other = story({"f": (900, 100, 100, 900), "m": (860, 140, 140, 860)})
    swapped = dict(record.tables)
    swapped[evaluation.round] = next(iter(other.record().tables.values()))
    fake = type(record)(**{**vars(record), "tables": swapped})
    with pytest.raises(GateMismatchError, match="names another sum"):
        check_gate(fair.gate(), AGREEMENT, fake, fair.manifest())


def test_more_evaluations_than_were_fixed_open_no_gate():
    told = story(evaluations=2)
    with pytest.raises(GateMismatchError, match="2 evaluations are on record, and the agreement fixed 1"):
        told.gate()
    agreement = with_terms(evaluations=2)
    allowed = story(agreement=agreement, evaluations=2)
    assert allowed.check(allowed.gate()).open
    # a sum that was taken and not told counts too
    hidden = story(evaluations=2)
    record = hidden.record()
    first = next(iter(record.evaluations.items()))
    kept = type(record)(**{**vars(record), "evaluations": dict([first])})
    from hansa.gate.approving import require_allowed

    with pytest.raises(GateMismatchError, match="agreement fixed 1"):
        require_allowed(kept, TERMS)


def test_a_second_look_is_paid_for_beforehand():
    once, twice = story(), story(agreement=with_terms(evaluations=2))
    bound = [float.fromhex(told.decision().conditions[0].low) for told in (once, twice)]
    assert bound[1] < bound[0]


def test_epsilon_above_the_agreed_one_closes_the_gate_whatever_the_coordinator_says():
    told = story(spent=Spend(poisson_gaussian(0.1, 0.7), 10))
    (epsilon,) = [one for one in told.decision().conditions if one.name.startswith("epsilon")]
    assert epsilon.verdict == "fail"
    with pytest.raises(GateMismatchError, match="sums say closed"):
        told.check(told.gate(conditions=story().decision().conditions, decision="open"))


def attack(correct: int, spend: Spend = TRAINED) -> SignedEntry:
    entry = AttackMade(
        at=AT, agreement_id=ATTACKED.agreement_id, member=MEMBERS[0], kind="gradients", canaries=1000,
        guessed_in=100, guessed_out=100, correct=correct, confidence=real(0.95), delta=real(1e-5),
        spends=(Spending.of(spend),),
    )  # fmt: skip
    return signed_by(entry, MEMBERS[0])


ATTACKED = agreement_of(
    TERMS.model_copy(
        update={
            "publication": TERMS.publication.model_copy(update={"conditions": (AttackTerm(kind="attack"),)})
        }
    )
)


def test_an_attack_that_shows_more_than_is_claimed_closes_the_gate():
    def verdict(*entries: SignedEntry) -> str:
        told = story(agreement=ATTACKED, more=entries).decision()
        (one,) = [one for one in told.conditions if one.name.startswith("attack")]
        return one.verdict

    assert verdict() == "inconclusive"  # nobody has attacked
    assert verdict(attack(110)) == "pass"
    assert verdict(attack(200)) == "fail"
    assert verdict(attack(110), attack(200)) == "fail"  # a second attack that finds nothing hides no first


def test_a_sum_over_too_few_members_closes_the_gate():
    told = story(contributors=MEMBERS[:2])
    (members,) = [one for one in told.decision().conditions if one.name.startswith("members")]
    assert members.verdict == "fail"


# --- one member against the publication of all -------------------------------------------------------------


def reserved(event: dict[str, JsonValue]) -> SignedEntry:
    entry = Reservation(
        at=AT, agreement_id=AGREEMENT.agreement_id, run=RUN, member=MEMBERS[0], dataset_id="0" * 32, unit="record",
        adjacency="add-or-remove-one", charges=(Charging(kind="training", event=event, count=1),),
    )  # fmt: skip
    return signed_by(entry, MEMBERS[0])


def test_a_member_that_reserves_an_event_that_nobody_knows_keeps_nobody_from_a_gate():
    told = story(more=(reserved({"type": "Unheard"}),))
    assert told.check(told.gate()).open


def test_events_that_nobody_could_compose_in_time_or_memory_are_not_composed(monkeypatch):
    def composed(*_):
        raise AssertionError("gigabytes are taken for what a member says that it has released")

    monkeypatch.setattr("hansa.gate.record.epsilon_spent", composed)
    for event, count in ((poisson_gaussian(0.5, 0.3), 2**20), (poisson_gaussian(0.001, 1.0), 2**30)):
        assert math.isnan(MemberSpent((Spend(event, count),)).epsilon(1e-5))


def test_a_loss_that_nobody_can_tell_is_promised_to_nobody_whoever_excuses_it():
    """A person may excuse a condition that could not be decided; a statement of privacy cannot be written without a number."""
    spent = {name: MemberSpent((TRAINED,)) for name in MEMBERS}
    for one in (MemberSpent(known=False), MemberSpent((Spend({"type": "NonPrivate"}, 1),))):
        with pytest.raises(NotPublishedError, match="cannot be told") as refused:
            privacy_statement(AGREEMENT, {**spent, MEMBERS[1]: one}, [])
        assert [problem.place for problem in refused.value.problems] == [MEMBERS[1]]


def test_a_member_that_writes_without_end_makes_the_evidence_of_a_gate_no_larger():
    """Members refuse to look at more than 16 MiB, and a package with it would be refused for good."""

    def counted(told: RunStory) -> list[bytes]:
        return [one.encoded for one in evidence_in(told.entries())]

    more = [
        signed_by(
            release(
                number, MEMBERS[0], agreement_id=AGREEMENT.agreement_id, purpose=EVALUATION, unit="record",
                spends=(Spending.of(Spend(poisson_gaussian(0.5, 1.0), number)),) * 50,
            ),
            MEMBERS[0],
        )
        for number in range(100, 120)
    ]  # fmt: skip
    assert counted(story(more=more)) == counted(story())
    attacks = [attack(correct) for correct in range(100, 120)]
    told = story(agreement=ATTACKED, more=attacks)
    shown = [one for one in evidence_in(told.entries()) if isinstance(one.entry, AttackMade)]
    assert shown == [attacks[-1]]  # which shows the most
    again = read_run((one.entry for one in shown), ATTACKED.terms, ATTACKED.agreement_id, RUN)
    assert again.attack_bounds() == told.record().attack_bounds()


def test_one_liar_within_its_caps_turns_no_fail_into_a_pass():
    # an evaluation that misses by a little; one of four members may add or hide a capful of rows in each cell
    cells = {"f": (690, 310, 310, 690), "m": (860, 140, 140, 860)}
    honest = story(cells, with_terms(liars=1, max_rows_per_cell=100))
    assert not honest.decision().open
    moved = {"f": (790, 210, 210, 790), "m": (860, 140, 140, 860)}  # a hundred of each cell moved by the liar
    for liars, opened in ((0, True), (1, False)):
        lied = story(moved, with_terms(liars=liars, max_rows_per_cell=100))
        assert lied.decision().open is opened


# --- approvals -------------------------------------------------------------------------------------------


def publication(told: RunStory, gate: SignedEntry, **changes) -> Publication:
    files = {contents.MODEL: MODEL, contents.CARD: HASH}
    honest = {
        **told.base,
        "artifact_sha256": MODEL,
        "gate_sha256": gate.entry.sha256,
        "files": files,
        "steps": ("onnx", "int8"),
    }
    return Publication(**{**honest, **changes})


def check(told: RunStory, entry: Publication, **hashes: str):
    return check_publication(
        entry, told.agreement, told.record(), model_file=contents.MODEL, recomputed=hashes
    )


def test_a_publication_needs_an_open_gate_on_record_and_its_very_file():
    told = story()
    gate = approved(told.gate())
    entry = publication(told, gate)
    with pytest.raises(GateMismatchError, match="gate that the log does not show"):
        check(told, entry)
    told.more = (gate,)
    check(told, entry)
    swapped = publication(told, gate, files={contents.MODEL: HASH})
    with pytest.raises(GateMismatchError, match="model's file is not the one"):
        check(told, swapped)
    with pytest.raises(GateMismatchError, match="another file than went through"):
        check(told, publication(told, gate, artifact_sha256=HASH, files={contents.MODEL: HASH}))
    with pytest.raises(GateMismatchError, match="other steps"):
        check(told, publication(told, gate, steps=("onnx",)))
    with pytest.raises(GateMismatchError, match="would be published otherwise"):
        check(told, entry, **{contents.CARD: MODEL})
    told.more = (gate, approved(entry))
    with pytest.raises(GateMismatchError, match="publication of this run already"):
        check(told, publication(told, gate, files={contents.MODEL: MODEL}))


@pytest.mark.parametrize("cells", [UNFAIR, SMALL], ids=["fails", "is inconclusive"])
def test_a_closed_gate_publishes_nothing(cells):
    told = story(cells)
    closed = approved(told.gate())
    told.more = (closed,)
    with pytest.raises(GateMismatchError, match="is closed"):
        check(told, publication(told, closed))


def test_too_few_forged_and_foreign_approvals_open_nothing(fair):
    keyring = keys_of(AGREEMENT).keyring
    gate = fair.gate()
    keyring.verify(approved(gate))
    with pytest.raises(EntryError, match="2 members approved a gate, 3 are needed"):
        keyring.verify(approved(gate, MEMBERS[:2]))
    stranger = SignedEntry(gate, (statement_of(gate, fixed_signer("hospital-9")),))
    with pytest.raises(UnknownSignerError):
        keyring.verify(stranger)
    forged = approved(gate, MEMBERS[:2]).with_statements(
        [statement_of(gate, type(SIGNERS[MEMBERS[2]])(MEMBERS[2], fixed_signer("forger").private_key))]
    )
    with pytest.raises(SignatureError):
        keyring.verify(forged)
    elsewhere = fair.gate(run="run-2")  # approvals of one gate are none of another
    with pytest.raises(EntryError):
        SignedEntry(gate, (statement_of(elsewhere, SIGNERS[MEMBERS[0]]),))


def test_a_member_signs_one_publication_of_a_run():
    from hansa.artifact.contents import part_bytes
    from hansa.gate.approving import evaluation_of

    told = story()
    gate = approved(told.gate())
    told.more = (gate,)
    logged = [one.encoded for one in told.entries()]
    record = told.record()
    evaluated = evaluation_of(gate.entry, record, AGREEMENT, told.manifest())
    documents = {
        contents.FAIRNESS: part_bytes(fairness_table(TERMS, evaluated.tables, told.decision(), MODEL)),
        contents.GATE: part_bytes(evidence_of(evidence_in(told.entries()), told.manifest(), record.fewest)),
        contents.PRIVACY_JSON: part_bytes(privacy_statement(AGREEMENT, record.spent, [])),
    }
    files = {contents.MODEL: MODEL, **{name: sha256_hex(data) for name, data in documents.items()}}
    approver = Approver(AGREEMENT, SIGNERS[MEMBERS[0]])
    entry = publication(told, gate, files=files)
    approver.approve(RUN, Proposed(gate.entry.data, {MANIFEST: told.manifest()}), logged)
    signature = approver.approve(RUN, Proposed(entry.data, documents), logged)
    assert signature == statement_of(entry, SIGNERS[MEMBERS[0]]).signature
    again = publication(told, gate, files={**files, contents.CARD: HASH})
    with pytest.raises(GateMismatchError, match="another publication of this run"):
        approver.approve(RUN, Proposed(again.data, documents), logged)
    fresh = Approver(AGREEMENT, SIGNERS[MEMBERS[1]])
    with pytest.raises(GateMismatchError, match="not shown"):
        fresh.approve(RUN, Proposed(entry.data), logged)
    honest = fairness_table(TERMS, evaluated.tables, told.decision(), MODEL)
    lie = part_bytes(honest.model_copy(update={"metric": "auc"}))
    told_of = publication(told, gate, files={**files, contents.FAIRNESS: sha256_hex(lie)})
    with pytest.raises(GateMismatchError, match="not the quality that follows"):
        Approver(AGREEMENT, SIGNERS[MEMBERS[2]]).approve(
            RUN, Proposed(told_of.data, {**documents, contents.FAIRNESS: lie}), logged
        )
    with pytest.raises(GateMismatchError, match="do not approve entries"):
        fresh.approve(RUN, Proposed(told.evaluation().data), logged)


def test_a_gate_that_does_not_follow_from_its_own_conditions_is_no_entry():
    with pytest.raises(ValueError, match="decision is not the one"):
        story(SMALL).gate(decision="open")


def test_unsigned_words_of_persons_are_none():
    told = story(SMALL)
    entry = override(told, "c")
    keyring = keys_of(AGREEMENT).keyring
    with pytest.raises(EntryError, match="has not signed"):
        keyring.verify(signed_by(entry, MEMBERS[0]))


def test_what_is_logged_is_short():
    from hansa.gate.deciding import short_name

    long = "gap of accuracy by " + "x" * 300
    assert len(short_name(long)) == 200
    assert short_name(long) != short_name(long + "y")
