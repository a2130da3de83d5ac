"""What a coordinator, or a member's own data, could do to a private evaluation; what each member lets happen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hansa.canonical import sha256_hex
from hansa.errors import DataError, HansaError, TooFewMembersError
from hansa.fairness.errors import EvaluationError
from hansa.fairness.evaluated import Evaluated
from hansa.gate.record import read_run
from hansa.ledger import Aggregate, Evaluation, LogView, Release, Reservation, SignedEntry
from hansa.privacy.charges import EVALUATION as KIND
from hansa.protocol.history import ENTRIES, pack_entries, unpack_entries
from hansa.wire import Message
from hansa_client.evaluation.judging import FileEvaluation
from hansa_server.federation import Outcome, run_federation
from hansa_server.journal import InMemoryJournal
from hansa_server.summation import SecureSummation
from support.evaluations import COMPARED, EVALUATION, JUDGED, REFERENCE, WHOLE, Judging, asked_for
from support.leagues import table


def entries(judging: Judging, name: str | None = None) -> list[Any]:
    log = judging.league.log if name is None else LogView(judging.league.stores[name].log)
    return [SignedEntry.parse(data).entry for data in log.entries()]


def released(judging: Judging, name: str) -> list[Release]:
    return [e for e in entries(judging, name) if isinstance(e, Release) and e.purpose == KIND]


def concluding(judging: Judging, act: Any) -> Outcome:
    """Train, then let a coordinator do what it likes before the run is closed."""
    journal = InMemoryJournal()
    judging.summation = SecureSummation(judging.agreement, judging.league, journal, "r", judging.league.house)
    return run_federation(
        judging.agreement,
        judging.league.start,
        judging.league,
        journal,
        run="r",
        summation=judging.summation,
        conclude=lambda outcome: act(outcome.state),
    )


class TestWhatIsSummed:
    def test_the_sum_is_that_of_the_members_tables_and_their_noise(self) -> None:
        judging = Judging()
        assert judging.run().not_concluded is None
        (found,) = judging.evaluated
        truth = sum(one.tables[0] for one in judging.evaluators.values())
        errors = found.tables.counts - truth
        assert found.contributors == ("a", "b", "c")
        assert np.abs(errors).max() < 6 * found.tables.noise_sd
        assert errors.std() == pytest.approx(found.tables.noise_sd, rel=0.25)
        assert found.noise_variance == pytest.approx(found.tables.noise_sd**2)

    def test_a_second_file_is_judged_beside_the_first(self) -> None:
        judging = Judging(**COMPARED)
        assert judging.run().not_concluded is None
        assert judging.evaluators["a"].calls == [(sha256_hex(JUDGED), sha256_hex(REFERENCE))]
        assert judging.evaluated[0].reference_sha256 == sha256_hex(REFERENCE)

    def test_everybody_reads_the_same_from_the_log(self) -> None:
        judging = Judging()
        judging.run()
        logged = entries(judging)
        (entry,) = (e for e in logged if isinstance(e, Evaluation))
        aggregate = next(e for e in logged if isinstance(e, Aggregate) and e.purpose == KIND)
        again = Evaluated.logged(judging.agreement, entry, aggregate)
        assert np.array_equal(again.total, judging.evaluated[0].total)
        assert again.contributors == judging.evaluated[0].contributors
        mirrored = LogView(judging.league.stores["a"].mirror)
        assert any(isinstance(SignedEntry.parse(data).entry, Evaluation) for data in mirrored.entries())
        other = entry.model_copy(update={"aggregate_sha256": "ab" * 32})
        with pytest.raises(EvaluationError):
            Evaluated.logged(judging.agreement, other, aggregate)

    def test_distributed_noise_is_shared(self) -> None:
        judging = Judging(privacy={"mechanism": "distributed", "steps": 1, **WHOLE})
        assert judging.run().not_concluded is None
        (found,) = judging.evaluated
        assert found.plan.honest == 2
        assert found.tables.noise_sd == pytest.approx(found.plan.noise_multiplier * (3 / 2) ** 0.5, rel=0.01)
        charge = next(
            e for e in entries(judging, "a") if isinstance(e, Reservation) and e.charges[0].kind == KIND
        )
        assert charge.charges[0].coalition == 1


class TestTheCharge:
    def test_units_that_are_held_out_pay_from_a_budget_of_their_own(self) -> None:
        judging = Judging()
        judging.run()
        (release,) = released(judging, "a")
        reservations = [e for e in entries(judging, "a") if isinstance(e, Reservation)]
        assert [[c.kind for c in e.charges] for e in reservations] == [["training"], [KIND]]
        assert release.dataset_id == reservations[1].dataset_id != reservations[0].dataset_id
        grants = [e for e in entries(judging, "a") if e.type == "budget"]
        assert grants[1].disjoint_from == (grants[0].dataset_id,)

    def test_units_that_may_train_too_pay_twice_from_one(self) -> None:
        judging = Judging(evaluation={**EVALUATION, "units": "own-file", "share": None})
        judging.run()
        (reservation,) = (e for e in entries(judging, "a") if isinstance(e, Reservation))
        assert [c.kind for c in reservation.charges] == ["training", KIND]
        assert released(judging, "a")[0].dataset_id == reservation.dataset_id

    def test_a_fourth_evaluation_where_three_are_allowed_is_refused(self) -> None:
        judging = Judging(evaluation={**EVALUATION, "evaluations": 3})
        said = []

        def four(state: Any) -> None:
            for number in range(1, 4):
                asked_for(judging, state, number, JUDGED)
            with pytest.raises(TooFewMembersError) as refused:
                asked_for(judging, state, 4, JUDGED)
            said.append(refused.value.cause)

        assert concluding(judging, four).not_concluded is None
        assert "budget-spent" in said[0]
        assert [len(released(judging, name)) for name in "abc"] == [3, 3, 3]
        assert [len(one.calls) for one in judging.evaluators.values()] == [3, 3, 3]

    def test_an_honest_coordinator_does_not_ask_for_it(self) -> None:
        judging = Judging()
        outcome = judging.run(times=2)
        assert outcome.not_concluded is not None
        assert "as often as the agreement allows" in outcome.not_concluded
        assert outcome.stopped_because is None

    def test_the_same_evaluation_again_is_refused(self) -> None:
        judging = Judging(evaluation={**EVALUATION, "evaluations": 2})

        def twice(state: Any) -> None:
            asked_for(judging, state, 1, JUDGED)
            with pytest.raises(HansaError):
                asked_for(judging, state, 1, JUDGED)

        concluding(judging, twice)
        assert [len(released(judging, name)) for name in "abc"] == [1, 1, 1]

    def test_a_run_whose_evaluation_cannot_be_paid_does_not_begin(self) -> None:
        judging = Judging()
        assert judging.run().not_concluded is None
        judging.league.log = type(judging.league.log)(
            type(judging.league.stores["a"].log)(), judging.league.federation_log
        )
        second = Judging(judging.records)
        second.league.stores, second.league.identities = judging.league.stores, judging.league.identities
        outcome = second.league.__class__(
            second.agreement,
            second.league.start,
            second.league.updates,
            stores=judging.league.stores,
            identities=judging.league.identities,
            evaluations=second.evaluators,
        ).run(run="again")
        assert outcome.stopped_because is not None
        assert "budget-spent" in outcome.stopped_because
        assert all(not one.calls for one in second.evaluators.values())


class TestTheFile:
    def test_bytes_that_are_not_those_of_the_manifest_are_refused(self) -> None:
        judging = Judging()

        def swapped(state: Any) -> None:
            with pytest.raises(TooFewMembersError, match="message-malformed"):
                asked_for(judging, state, 1, b"another file", named=sha256_hex(JUDGED))

        concluding(judging, swapped)
        assert all(not one.calls for one in judging.evaluators.values())
        assert all(not released(judging, name) for name in "abc")

    def test_a_manifest_without_its_file_is_refused(self) -> None:
        judging = Judging()
        take = judging.league.between

        def without(name: str, request: Any, answer: Any) -> Any:
            if request.kind == "sum" and request.body["files"]:
                arrays = {key: value for key, value in request.arrays.items() if not key.startswith("file.")}
                request = type(request)("sum", {**request.body, "files": []}, arrays)
            return take(name, request, answer)

        judging.league.between = without
        outcome = judging.run()
        assert outcome.not_concluded is not None
        assert "model-mismatch" in outcome.not_concluded
        assert all(not released(judging, name) for name in "abc")

    def test_a_model_that_is_not_finished_is_not_judged(self) -> None:
        judging = Judging(training={"rounds": 2}, privacy={"steps": 2, **WHOLE})
        said = []
        journal = InMemoryJournal()
        judging.summation = SecureSummation(
            judging.agreement, judging.league, journal, "r", judging.league.house
        )

        def early(outcome: Outcome) -> None:
            if outcome.state.round == 1:
                with pytest.raises(TooFewMembersError, match="model-mismatch") as refused:
                    asked_for(judging, outcome.state, 1, JUDGED)
                said.append(refused.value)

        run_federation(
            judging.agreement,
            judging.league.start,
            judging.league,
            journal,
            run="r",
            summation=judging.summation,
            after_round=early,
        )
        assert said
        assert all(not one.calls for one in judging.evaluators.values())


class TestTheMembersData:
    def test_a_missing_attribute_is_told_at_the_member_and_is_an_absence_outside(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        records = {name: table(200, i) for i, name in enumerate("abcd")}
        judging = Judging(
            records,
            members=[{"name": name, "units": 40} for name in "abcd"],
            privacy={"steps": 2, **WHOLE},
        )
        blind = records["d"]
        lacking = type(blind)(blind.inputs, blind.labels, blind.units, blind.unit_ids, {})
        with pytest.raises(DataError, match="do not tell all groups apart") as told:
            FileEvaluation(judging.agreement, lacking)
        assert "data.groups.side" in told.value.diagnostics()

        class Broken:
            def evaluate(self, *_: object) -> Any:
                return FileEvaluation(judging.agreement, lacking)

        judging.league.evaluations = {**judging.league.evaluations, "d": Broken()}
        judging.league.restart("d")
        replies = []

        def listening(_name: str, request: Any, answer: Any) -> Any:
            replies.append(reply := answer(request))
            return reply

        judging.league.between = listening
        assert judging.run().not_concluded is None
        assert judging.evaluated[0].contributors == ("a", "b", "c")
        assert not any(b"side" in reply.header or b"groups" in reply.header for reply in replies)
        assert "data.groups.side" in caplog.text
        assert not released(judging, "d")

    def test_messages_have_one_form_however_many_records_there_are(self) -> None:
        def sizes(rows: int) -> list[tuple[str, int, tuple[tuple[str, tuple[int, ...]], ...]]]:
            judging = Judging({name: table(rows, i) for i, name in enumerate("abc")})
            seen = []

            def watching(name: str, request: Any, answer: Any) -> Any:
                reply = answer(request)
                if request.kind == "sum" and request.body["files"]:
                    shapes = tuple(
                        (n, a.shape) for n, a in sorted(reply.arrays.items()) if n != "log.entries"
                    )
                    seen.append((name, len(reply.body["bundle"]["parts"]), shapes))
                return reply

            judging.league.between = watching
            assert judging.run().not_concluded is None
            return seen

        assert sizes(0) == sizes(3) == sizes(700)

    def test_a_value_outside_the_schema_counts_as_no_value(self) -> None:
        records = {name: table(120, i) for i, name in enumerate("abc")}
        records["a"].groups["side"][:] = -1
        judging = Judging(records)
        assert judging.run().not_concluded is None
        layout = judging.evaluated[0].layout
        counted = judging.evaluators["a"].tables[0].reshape(layout.shape(layout.tables[0]))
        assert counted[:-1].sum() == 0
        assert counted[-1].sum() == 120


class TestWhatAMemberPutsOnRecord:
    """A gate rests on releases that name the manifest of their round and what they are for: one that does not would close it."""

    @pytest.mark.parametrize(
        "lie", [{"manifest_sha256": "0" * 64}, {"purpose": "training"}], ids=["manifest", "purpose"]
    )
    def test_a_vector_whose_release_answers_something_else_is_not_summed(self, lie: dict[str, Any]) -> None:
        names = "abcde"
        judging = Judging(members=[{"name": name, "units": 60} for name in names])

        def lies(name: str, request: Message, answer: Callable[[Message], Message]) -> Message | None:
            reply = answer(request)
            if name != "e" or ENTRIES not in reply.arrays:
                return reply
            said = [SignedEntry.parse(data) for data in unpack_entries(reply.arrays[ENTRIES])]
            told = [
                SignedEntry.sign(
                    Release.model_validate({**one.entry.model_dump(), **lie}), judging.league.keys.signer("e")
                )
                if isinstance(one.entry, Release) and one.entry.purpose == KIND
                else one
                for one in said
            ]
            entries = pack_entries([one.encoded for one in told])
            return Message(reply.kind, reply.body, {**reply.arrays, ENTRIES: entries})

        judging.league.between = lies
        assert judging.run().not_concluded is None
        (found,) = judging.evaluated
        assert found.contributors == tuple("abcd")
        assert released(judging, "e")  # it had one of its own, which it kept to itself
        record = read_run(entries(judging), judging.agreement.terms, judging.agreement.agreement_id, "r")
        assert [len(manifests) for manifests in record.manifests.values()] == [1]
