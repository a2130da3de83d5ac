"""A federation under distributed noise: what it charges, whom it refuses, and what a retry is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pytest

from hansa.agreement import Agreement
from hansa.identity import Statement
from hansa.ledger import SignedEntry, officer_of, utc
from hansa.ledger.budgets import granted
from hansa.privacy.charges import charges_of
from hansa.privacy.composition import Adding
from hansa.privacy.distributed import losses
from hansa.privacy.events import Spend
from hansa.privacy.loss import PrivacyLoss
from hansa.privacy.randomness import SecretRandomness
from hansa.privacy.records import Grant, Limit, new_dataset_id
from hansa.protocol import PolicyCode, shared_noise
from hansa.wire import Message
from hansa_simulations.identities import Identities
from hansa_simulations.ledgers import MemberStores, ledger_in
from support.federations import Federation, honest, kinds, parts
from support.leagues import table
from support.pooling import STEPS, contributor, frozen, league_of, pooled_league

AGREEMENT, BUILT = pooled_league()
START = BUILT.initial_vector()
NOISE = AGREEMENT.require_frozen().noise_multiplier or 0.0
NAMES = tuple("abc")


def share(agreement: Agreement = AGREEMENT) -> Callable[[np.ndarray], np.ndarray]:
    """A member without data: its share of the noise."""
    sigma = shared_noise(agreement).share_sigma
    return lambda weights: SecretRandomness().noise(sigma, len(weights))


def league(agreement: Agreement = AGREEMENT, **more: object) -> Federation:
    names = [member.name for member in agreement.terms.members]
    return Federation(agreement, START, {name: share(agreement) for name in names}, **more)  # type: ignore[arg-type]


def granting(everyone: float, few: float | None, coalition: int = 1) -> Federation:
    """A league whose officers have granted these limits."""
    identities = Identities.ephemeral(NAMES)
    stores = {name: MemberStores() for name in NAMES}
    delta, rule = 1e-3, Adding(1)
    for name, held in stores.items():
        limit = None if few is None else Limit(PrivacyLoss(few, delta), rule)
        grant = Grant(
            new_dataset_id(), Limit(PrivacyLoss(everyone, delta), rule), limit, coalition if limit else 0
        )
        entry = granted(grant, member=name, unit="record", max_records_per_unit=1, at=utc(datetime.now(UTC)))
        ledger = ledger_in(held, name, identities)
        ledger.grant(SignedEntry.sign(entry, identities.signer(officer_of(name))))
    return league(stores=stores, identities=identities)


class TestCharges:
    def test_both_losses_are_charged_for_every_step_at_the_floor(self) -> None:
        federation = league()
        assert federation.run().stopped_because is None
        (charge,) = charges_of(AGREEMENT.terms, NOISE)
        for name in NAMES:
            book = federation.book(name)
            assert book.spent() == (Spend(charge.event, STEPS),)
            assert charge.shared is not None
            assert book.spent(1) == (Spend(charge.shared, STEPS),)
            assert book.spent(2) == book.spent()  # two of the others may know what was counted on

    def test_more_contributors_than_promised_are_not_credited(self) -> None:
        agreement, _ = league_of(4)
        federation = Federation(agreement, START, {f"m{i}": share(agreement) for i in range(4)})
        outcome = federation.run()
        assert all(len(record.present) == 4 for record in outcome.rounds)
        (spend,) = federation.book("m0").spent(1)
        assert spend.event["event"]["noise_multiplier"] == agreement.require_frozen().noise_multiplier

    def test_a_member_that_drops_in_the_middle_is_charged_and_the_step_goes_on(self) -> None:
        agreement, _ = league_of(4)

        def drops(name: str, request: Message, answer: Callable[[Message], Message]) -> Message | None:
            reply = answer(request)  # it has trained, charged and masked; the answer is lost
            return None if name == "m3" and "secagg.manifest" in kinds(request) else reply

        federation = Federation(agreement, START, {f"m{i}": share(agreement) for i in range(4)}, drops)
        outcome = federation.run()
        assert outcome.stopped_because is None
        assert all("m3" not in record.present for record in outcome.rounds)
        assert federation.book("m3").released("r") >= 1

    def test_a_retry_is_another_step_with_a_fresh_batch_and_noise_and_is_charged(self) -> None:
        agreement, built = frozen(secure_sum={"retries": 1})
        seen: list[tuple[bytes, np.ndarray]] = []

        class Watched(SecretRandomness):
            last = b""

            def key(self) -> bytes:
                Watched.last = super().key()
                return Watched.last

        trainer = contributor(agreement, built, "a", table(40, 1))

        def update(weights: np.ndarray) -> np.ndarray:
            made = trainer.train(weights, Watched())
            seen.append((Watched.last, made))
            return made

        def between(name: str, request: Message, answer: Callable[[Message], Message]) -> Message | None:
            if "secagg.manifest" in kinds(request) and name == "b":
                (manifest,) = (part for part in parts(request) if part.kind == "secagg.manifest")
                if Statement.parse(manifest.text("signed")).value["round"] == 2:
                    return None
            return answer(request)

        federation = Federation(
            agreement, START, {"a": update, "b": share(agreement), "c": share(agreement)}, between
        )
        assert federation.run().stopped_because is None
        assert len(seen) == STEPS + 1
        assert len({key for key, _ in seen}) == len({made.tobytes() for _, made in seen}) == STEPS + 1
        assert federation.book("a").released("r") == STEPS + 1
        assert charges_of(agreement.terms, 1.0)[0].count == STEPS + 1


class TestRefusals:
    TOLD = losses(AGREEMENT.terms, NOISE)

    def limits(self) -> tuple[float, float]:
        assert self.TOLD.epsilon_colluding is not None
        return self.TOLD.epsilon_any, self.TOLD.epsilon_colluding

    @pytest.mark.parametrize(
        ("everyone", "few"), [(0.99, 1.0), (1.0, 0.99), (0.99, None)], ids=["everyone", "few", "one limit"]
    )
    def test_a_limit_that_does_not_hold_is_a_refusal(self, everyone: float, few: float | None) -> None:
        most, least = self.limits()
        federation = granting(most * everyone, None if few is None else least * few)
        outcome = federation.run()
        assert outcome.stopped_because is not None
        assert outcome.stopped_because.count(PolicyCode.BUDGET) == 3
        assert all(training.calls == 0 for training in federation.trainings.values())
        assert all(not federation.book(name).spent() for name in NAMES)

    @pytest.mark.parametrize("few", [1.0, None])
    def test_limits_that_hold_admit_the_run(self, few: float | None) -> None:
        most, least = self.limits()
        assert granting(most, None if few is None else least).run().stopped_because is None

    def test_a_limit_against_more_that_collude_counts_the_members_own_share(self) -> None:
        most, least = self.limits()
        assert granting(most, least, coalition=2).run().stopped_because is not None
        assert granting(most, most, coalition=2).run().stopped_because is None

    def test_a_spent_budget_admits_no_second_run(self) -> None:
        first = league()
        first.run(run="first")
        again = league(stores=first.stores, identities=first.identities)
        outcome = again.run(run="second")
        assert outcome.stopped_because is not None
        assert outcome.stopped_because.count(PolicyCode.BUDGET) == 3
        assert all(training.calls == 0 for training in again.trainings.values())

    @pytest.mark.parametrize(
        "other",
        [{"clipping_norm": 2.0}, {"sampling_rate": 0.4}, {"epsilon": 4.0}],
        ids=lambda value: next(iter(value)),
    )
    def test_a_member_with_another_grid_rate_or_clipping_takes_no_part(self, other: dict[str, float]) -> None:
        changed, _ = frozen(privacy=other)
        assert changed.terms_id != AGREEMENT.terms_id
        stranger = league(changed)
        federation = league()
        federation.nodes["b"] = stranger.nodes["b"]
        outcome = federation.run()
        assert outcome.state.round == 0
        assert outcome.stopped_because is not None
        assert f"b ({PolicyCode.AGREEMENT})" in outcome.stopped_because
        assert stranger.trainings["b"].calls == 0

    @pytest.mark.parametrize(
        "wrong",
        [
            lambda w: np.zeros(len(w)),
            lambda w: np.zeros(len(w), dtype=np.int32),
            lambda w: np.zeros(3, dtype=np.int64),
        ],
        ids=["floats", "short integers", "another length"],
    )
    def test_what_is_no_sum_on_the_grid_is_an_absence(
        self, wrong: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        federation = league(between=honest)
        federation.trainings["b"]._update = wrong
        outcome = federation.run()
        assert outcome.state.round == 0
        assert outcome.stopped_because is not None
        assert "b (absent)" in outcome.stopped_because


def test_a_sum_beyond_the_ring_is_refused_and_nothing_follows_it() -> None:
    """A wrap is a failure of correctness: here a lying member makes one."""
    federation = league()
    federation.trainings["b"]._update = lambda w: np.full(len(w), 2**31 - 1, dtype=np.int64)
    outcome = federation.run()
    assert outcome.state.round == 0
    assert np.array_equal(outcome.state.weights, START)
