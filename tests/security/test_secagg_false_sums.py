"""False sums: a member left out, a vector altered, an aggregate or a record that is not what the members sent."""

from __future__ import annotations

import numpy as np
import pytest

from hansa.errors import WireError
from hansa.identity import Statement
from hansa.identity.statement import pack, unpack
from hansa.secagg import attest, verify_sum
from hansa.secagg import messages as m
from hansa.secagg.errors import ExcludedError, SumVerificationError, TranscriptError
from hansa.wire import Message
from hansa_simulations.bench.secure_league import MODEL, PURPOSE, RUN, SumLeague, make_league


def begun(league: SumLeague) -> SumLeague:
    """A league that is about to be asked for its masked vectors."""
    league.prepare()
    league.coordinator.begin(PURPOSE, 0, MODEL)
    return league


def masked(league: SumLeague) -> SumLeague:
    """A league whose masked vectors are in, about to confirm."""
    begun(league).exchange()
    return league


class TestExclusion:
    """A member that did send is left out."""

    def test_the_receipt_shows_it_in_the_audit(self) -> None:
        league = begun(make_league(5, 20))
        victim = league.members["member-5"]
        late = victim.handle(league.pending("member-5", m.Manifest))
        league.away = {"member-5"}
        league.exchange()
        current = league.coordinator._current
        assert current is not None
        said, statement = m.Context(league.terms, RUN).read(late, m.Masked, "member-5")
        current.accept(said, statement, late)  # it came, after the survivors were fixed
        victim.handle(league.pending("member-5", m.Receipt))
        assert victim.receipts[1]
        league.exchange()
        outcome = league.exchange()
        assert outcome is not None
        assert "member-5" not in outcome.survivors

        def vectors(name: str) -> np.ndarray:
            return np.frombuffer(league.spool.get(f"{RUN}.1.{name}.y") or b"", dtype="<u4")

        assert verify_sum(league.terms, outcome.record, vectors).excluded == ("member-5",)
        silent = outcome.record.model_copy(update={"receipts": ()})  # the coordinator keeps quiet about it
        assert verify_sum(league.terms, silent, vectors).excluded == ()
        kept = tuple(victim.receipts.values())
        assert verify_sum(league.terms, silent, vectors, receipts=kept).excluded == ("member-5",)

    def test_the_victim_confirms_nothing_without_itself(self) -> None:
        league = masked(make_league(5, 20))
        honest = league.pending("member-1", m.Survivors)
        without = league.as_coordinator(honest, {"masked": pack(unpack(honest.arrays["masked"])[1:])})
        with pytest.raises(ExcludedError):
            league.members["member-1"].handle(without)
        assert league.members["member-1"].handle(honest).kind == m.Confirm.purpose_name

    def test_a_manifest_without_this_member_is_refused(self) -> None:
        league = begun(make_league(5, 20))
        honest = league.pending("member-1", m.Manifest)
        with pytest.raises(ExcludedError):
            league.members["member-1"].handle(
                league.as_coordinator(honest, contributors=list(league.members)[1:])
            )


class TestAlteredVectorAndFalseAggregate:
    """What is summed or published is not what the members sent."""

    def finished(self) -> tuple[SumLeague, dict[str, np.ndarray]]:
        league = make_league(5, 30)
        self.outcome = league.sum(0)
        names = league.members
        return league, {
            n: np.frombuffer(league.spool.get(f"{RUN}.1.{n}.y") or b"", dtype="<u4").copy() for n in names
        }

    def test_a_vector_altered_on_its_way_is_refused(self) -> None:
        league = begun(make_league(4, 20))
        reply = league.members["member-1"].handle(league.pending("member-1", m.Manifest))
        altered = reply.arrays["y"].copy()
        altered[3] += 1
        with pytest.raises(WireError):
            m.Context(league.terms, RUN).read(
                Message(reply.kind, reply.body, {"y": altered}), m.Masked, "member-1"
            )

    def test_a_member_does_not_confirm_another_hash_of_its_own_vector(self) -> None:
        league = masked(make_league(4, 20))
        honest = league.pending("member-1", m.Survivors)
        listed = list(unpack(honest.arrays["masked"]))
        value = listed[0].value | {"arrays": {"y": "0" * 64}}
        listed[0] = Statement.sign(league.signers["member-1"], m.Masked.purpose_name, value)
        with pytest.raises(TranscriptError, match="masked vector"):
            league.members["member-1"].handle(league.as_coordinator(honest, {"masked": pack(listed)}))

    def test_the_verifier_recomputes_the_sum(self) -> None:
        league, vectors = self.finished()
        verified = verify_sum(league.terms, self.outcome.record, vectors.__getitem__)
        assert (verified.total == league.expected(tuple(league.members))).all()

    def test_the_verifier_tells_an_altered_vector(self) -> None:
        league, vectors = self.finished()
        vectors["member-2"][0] ^= 1
        with pytest.raises(SumVerificationError, match="member-2"):
            verify_sum(league.terms, self.outcome.record, vectors.__getitem__)

    def test_the_verifier_tells_a_false_aggregate(self) -> None:
        league, vectors = self.finished()
        false = self.outcome.record.model_copy(update={"aggregate_sha256": "0" * 64})
        with pytest.raises(SumVerificationError, match="not the sum"):
            verify_sum(league.terms, false, vectors.__getitem__)

    @pytest.mark.parametrize(
        ("field", "change", "told"),
        [
            ("masked", lambda v: v[:-1], "confirm|survivors|open"),
            ("masked", lambda v: v[:2], "are needed"),
            ("confirmations", lambda _: (), "holds no confirmations"),
            ("confirmations", lambda v: v[:3], "confirmed"),
            ("confirmations", lambda v: (*v[:3], v[0]), "confirmed"),
            ("keys", lambda v: v[:-1], "another round"),
            ("keys", lambda v: (v[1], v[0], *v[2:]), "order"),
            ("self_seeds", lambda v: v | {"member-1": "00" * 32}, "commit"),
            ("self_seeds", lambda v: {k: v[k] for k in list(v)[1:]}, "exactly"),
            ("mask_seeds", lambda v: {"member-1": "00" * 32}, "exactly"),
            ("terms", lambda v: "0" * 64, "terms"),
            ("round", lambda v: 2, "round"),
            ("run", lambda v: "other", "run"),
            ("manifest", lambda v: v.replace('"step":0', '"step":1'), "signature"),
        ],
    )
    def test_the_verifier_tells_a_record_that_proves_nothing(self, field: str, change, told: str) -> None:
        league, vectors = self.finished()
        false = self.outcome.record.model_copy(update={field: change(getattr(self.outcome.record, field))})
        with pytest.raises(SumVerificationError, match=told):
            verify_sum(league.terms, false, vectors.__getitem__)


class TestSpool:
    """Masked vectors wait for a verifier, and for nobody else's word."""

    def test_a_member_that_recomputed_the_sum_lets_them_go(self) -> None:
        league = make_league(4, 20)
        record = league.sum(0).record
        name = f"{RUN}.1.member-1.y"
        assert league.spool.get(name) is not None
        league.coordinator.release(attest(league.terms, record, league.signers["member-3"]))
        assert league.spool.get(name) is None

    def test_neither_the_coordinator_nor_another_sum_does(self) -> None:
        league = make_league(4, 20)
        record = league.sum(0).record
        with pytest.raises(TranscriptError, match="only a member"):
            league.coordinator.release(attest(league.terms, record, league.signers["coordinator"]))
        other = record.model_copy(update={"aggregate_sha256": "0" * 64})
        with pytest.raises(TranscriptError, match="another sum"):
            league.coordinator.release(attest(league.terms, other, league.signers["member-3"]))
        later = record.model_copy(update={"round": 7})
        with pytest.raises(TranscriptError, match="another sum"):
            league.coordinator.release(attest(league.terms, later, league.signers["member-3"]))
        assert league.spool.get(f"{RUN}.1.member-1.y") is not None

    def test_vectors_of_a_round_that_was_given_up_are_not_kept(self) -> None:
        league = masked(make_league(4, 20))
        assert league.spool.get(f"{RUN}.1.member-1.y") is not None
        assert league.coordinator.abandon() == 1
        assert league.spool.get(f"{RUN}.1.member-1.y") is None
