"""Noise in parts through the real secure sum: what is left against those who collude is never less than was promised.

Members without data put in their shares alone; keys are known, so that what passes once passes always.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from hansa.errors import PrivacyParameterError
from hansa.identity import COORDINATOR, Statement
from hansa.identity.errors import SignatureError
from hansa.identity.statement import pack, unpack
from hansa.privacy.distributed import SharedNoise
from hansa.privacy.parts import InParts, NoiseParts, PartSeeds, end_of
from hansa.protocol.derivation import pooled_encoding
from hansa.secagg import Coordinator, verify_sum
from hansa.secagg import messages as m
from hansa.secagg.coordinator import vector_name
from hansa.secagg.errors import (
    AlreadyAnsweredError,
    QuorumError,
    SumTermsError,
    SumVerificationError,
    TranscriptError,
)
from hansa.secagg.verify import verify_record
from hansa.wire import Message
from hansa_simulations.bench.secure_league import PURPOSE, RUN, Fixed, SumLeague, fixed_league
from support import noise as statistics
from support.pooling import Known

LENGTH = 8_000
C = 1


@dataclass
class Share(Fixed):
    """A member without data: a share of the noise, in parts."""

    name: str = ""
    seeds: PartSeeds | None = None

    def contribute(self, manifest: m.Manifest, seeds: PartSeeds | None = None) -> np.ndarray:
        assert seeds is not None
        self.seeds = seeds
        self.values = InParts(Known("lasting", self.name), seeds).noise(seeds.parts.sigma, LENGTH)
        return self.values

    def left(self, contributors: int) -> np.ndarray:
        """What stays of it in a sum of so many."""
        assert self.seeds is not None
        removed = self.seeds.parts.removed(contributors)
        gone = self.seeds.parts.surplus_of(self.seeds.opened(removed), removed, LENGTH) if removed else 0
        return self.values - gone


def shared_noise(n: int) -> SharedNoise:
    return SharedNoise.fitted(
        members=n, smallest_sum=2 * n // 3 + 1, colluding=C, noise_multiplier=0.05, clipping_norm=1.0,
        dimension=LENGTH, batch=1, in_parts=True,
    )  # fmt: skip


def league(n: int = 5, label: str = "parts") -> tuple[SumLeague, NoiseParts]:
    made, noise = fixed_league(n, LENGTH, label=label), shared_noise(n)
    assert noise.parts is not None
    vectors = {
        PURPOSE: replace(made.terms.vectors[PURPOSE], quantiser=pooled_encoding(noise), parts=noise.parts)
    }
    made.terms = replace(made.terms, vectors=vectors)
    made.coordinator = Coordinator(
        made.terms, RUN, made.signers[COORDINATOR], spool=made.spool, workers=made.workers
    )
    for name in made.members:
        made.contributors[name] = Share(np.zeros(LENGTH, dtype=np.int64), name=name)
        made.restart(name)
    return made, noise.parts


def promised(n: int) -> float:
    """V, in grid units squared: the noise that honest members of any sum are to hold together."""
    noise = shared_noise(n)
    return (noise.noise_multiplier * noise.grid.sensitivity) ** 2


def asked_to_mask(made: SumLeague) -> SumLeague:
    made.prepare()
    made.coordinator.begin(PURPOSE, 0, "0" * 64)
    return made


def signed(message: Message) -> Statement:
    return Statement.parse(message.text(m.SIGNED))


class TestVariance:
    @pytest.mark.parametrize("missing", [None, *range(1, 6)])
    def test_every_pattern_of_dropouts_is_left_with_what_was_promised(self, missing: int | None) -> None:
        made, parts = league()
        asked_to_mask(made)
        made.away = set() if missing is None else {f"member-{missing}"}
        while (outcome := made.exchange()) is None:
            pass
        k = 5 - len(made.away)
        assert len(outcome.survivors) == k
        assert len(outcome.record.noise_seeds) == (k if parts.removed(k) else 0)
        total = outcome.total.astype(np.int64)
        assert np.array_equal(total, sum(made.contributors[name].left(k) for name in outcome.survivors))
        for curious in outcome.survivors:  # one member that subtracts what it knows leaves what was promised
            honest = total - made.contributors[curious].left(k)
            assert statistics.by_variance(honest, math.sqrt(promised(5))) > 1e-4
            assert statistics.by_kolmogorov_smirnov(honest, math.sqrt(promised(5))) > 1e-4
            # and one part more would be too much: the test could have failed
            assert statistics.by_variance(honest, math.sqrt(promised(5) * (k - C - 1) / (k - C))) < 1e-9

    @pytest.mark.parametrize("n", range(3, 16))
    def test_what_stays_is_never_below_what_was_promised(self, n: int) -> None:
        noise = SharedNoise.fitted(
            members=n, smallest_sum=2 * n // 3 + 1, colluding=C, noise_multiplier=2.0, clipping_norm=1.0,
            dimension=1000, batch=10, in_parts=True,
        )  # fmt: skip
        parts, due = noise.parts, (2.0 * noise.grid.sensitivity) ** 2
        assert parts is not None
        for k in range(noise.smallest_sum, n + 1):
            kept = [parts.lasting, *parts.surplus[parts.removed(k) :]]
            charged = sum(sigma**2 - 4 for sigma in kept)  # as `Grid` charges each
            assert (k - C) * charged == pytest.approx(due, rel=1e-12)
            assert min(kept) >= 20
            assert (k - C) * parts.left(k) >= due

    def test_a_part_that_would_be_too_narrow_is_refused(self) -> None:
        noise = replace(shared_noise(5), noise_multiplier=0.0001)
        with pytest.raises(PrivacyParameterError, match="below 20"):
            assert noise.parts


class TestWhoDoesNotOpen:
    def test_who_vanishes_before_unmasking_leaves_its_surplus(self) -> None:
        made, _ = league()
        asked_to_mask(made).exchange()
        made.away = {"member-2"}
        while (outcome := made.exchange()) is None:
            pass
        assert len(outcome.survivors) == 5
        assert set(outcome.record.noise_seeds) == {"member-1", "member-3", "member-4", "member-5"}
        shares = made.contributors
        expected = shares["member-2"].values + sum(
            shares[name].left(5) for name in outcome.record.noise_seeds
        )
        assert np.array_equal(outcome.total, expected)
        assert verified(made, outcome)

    def test_who_starts_again_leaves_it_too(self) -> None:
        made, _ = league()
        asked_to_mask(made).exchange()
        made.restart("member-3")
        while (outcome := made.exchange()) is None:
            pass
        assert "member-3" not in outcome.record.noise_seeds
        assert len(outcome.record.noise_seeds) == 4

    def test_who_opens_another_seed_is_named_and_its_noise_stays(self) -> None:
        made, _ = league()
        asked_to_mask(made).exchange()
        made.members["member-4"]._seeds = (1, PartSeeds(made.contributors["member-4"].seeds.parts, bytes))
        while (outcome := made.exchange()) is None:
            pass
        assert "member-4" not in outcome.record.noise_seeds
        assert "seed of noise" in outcome.blamed["member-4"]


class TestGreedyCoordinator:
    def test_more_survivors_than_there_are_need_their_signatures(self) -> None:
        """It claims five where four have masked; the fifth signature is its own invention."""
        made, _ = league()
        asked_to_mask(made)
        made.away = {"member-5"}
        made.exchange()
        asked = made.pending("member-1", m.Survivors)
        lines = unpack(asked.arrays["masked"])
        false = replace(lines[0], signer="member-5")
        with pytest.raises(SignatureError):
            made.members["member-1"].handle(made.as_coordinator(asked, {"masked": pack([*lines, false])}))

    def test_a_colluding_survivor_without_a_vector_counts_among_those_who_collude(self) -> None:
        """The fifth signs and has put in nothing. Four honest members open for five, and hold what was promised."""
        made, _ = league()
        asked_to_mask(made)
        empty = Fixed(np.zeros(LENGTH, dtype=np.int64))
        made.members["member-5"]._contributor = empty
        while (outcome := made.exchange()) is None:
            pass
        seed = bytes.fromhex(outcome.record.noise_seeds["member-5"])
        honest = outcome.total + shared_noise(5).parts.surplus_of(
            seed, 1, LENGTH
        )  # it was taken off and never put in
        assert np.array_equal(honest, sum(made.contributors[f"member-{i}"].left(5) for i in range(1, 5)))
        assert statistics.by_variance(honest, math.sqrt(promised(5))) > 1e-4
        assert statistics.by_variance(honest, math.sqrt(promised(5) * 0.9)) < 1e-4
        assert len(outcome.survivors) == 5

    def test_two_sets_of_survivors_open_nothing(self) -> None:
        """Some are told of five survivors and some of four; a member that colludes signs for both."""
        made, _ = league()
        asked_to_mask(made).exchange()
        asked = made.pending("member-1", m.Survivors)
        everyone = unpack(asked.arrays["masked"])
        few = made.as_coordinator(asked, {"masked": pack(everyone[1:])})
        told = {"member-1": asked, "member-2": asked, "member-3": few, "member-4": few}
        said = {name: signed(made.members[name].handle(request)) for name, request in told.items()}
        for first, others in (("member-1", ("member-1", "member-2")), ("member-3", ("member-3", "member-4"))):
            colluder = Statement.signed(made.signers["member-5"], m.Confirm.purpose_name, said[first].data)
            proof = pack([*(said[name] for name in others), colluder])
            unmask = unmask_request(made, asked, proof)
            for name in others:
                with pytest.raises(QuorumError):
                    made.members[name].handle(unmask)
        mixed = pack([*said.values()])
        for name in told:
            with pytest.raises(TranscriptError):
                made.members[name].handle(unmask_request(made, asked, mixed))
        for name in told:
            assert made.members[name]._seeds is not None  # nothing was opened

    def test_a_member_opens_once(self) -> None:
        made, _ = league()
        asked_to_mask(made).exchange()
        made.exchange()
        asked = made.pending("member-1", m.UnmaskRequest)
        reply = made.members["member-1"].handle(asked)
        assert m.NOISE_SEED in reply.arrays
        again = made.members["member-1"].handle(asked)
        assert np.array_equal(again.arrays[m.NOISE_SEED], reply.arrays[m.NOISE_SEED])
        other = made.as_coordinator(asked, {"confirmations": pack(unpack(asked.arrays["confirmations"])[:4])})
        with pytest.raises(AlreadyAnsweredError):
            made.members["member-1"].handle(other)

    def test_an_opened_seed_opens_nothing_that_stays(self) -> None:
        seeds = PartSeeds(NoiseParts(5, 400.0, (60.0, 50.0, 40.0)), bytes)
        for removed in (1, 2, 3):
            assert end_of(seeds.opened(removed), removed) == seeds.end
        chain = {seeds.opened(removed) for removed in (1, 2, 3)}
        assert len(chain) == 3
        assert seeds.opened(3) not in {end_of(seeds.opened(2), steps) for steps in range(1, 50)}
        for wrong in (0, 4):
            with pytest.raises(PrivacyParameterError):
                seeds.opened(wrong)

    def test_survivors_that_nobody_signs_open_nothing(self) -> None:
        made, _ = league()
        for change in ({"threat_model": "honest-but-curious"}, {"min_members": 5}):
            with pytest.raises(SumTermsError) as refused:
                replace(made.terms, **change)
            (problem,) = refused.value.problems
            assert problem.place == f"vectors.{PURPOSE}.parts"


class TestVerifying:
    def test_a_record_with_parts_is_recomputed(self) -> None:
        made, _ = league()
        outcome = made.sum(0)
        assert verified(made, outcome)
        assert verify_record(made.terms, outcome.record).removed == 1
        fewer = outcome.record.model_copy(update={"noise_seeds": {}})
        with pytest.raises(SumVerificationError, match="is not the sum of its vectors"):
            verified(made, replace(outcome, record=fewer))

    @pytest.mark.parametrize(
        "change", ["another seed", "a stranger", "more than survivors allow", "less than they allow"]
    )
    def test_a_record_that_opens_what_it_must_not_is_refused(self, change: str) -> None:
        made, _ = league(6 if "allow" in change else 5, change)
        asked_to_mask(made)
        if change == "more than survivors allow":
            made.away = {"member-6"}
        while (outcome := made.exchange()) is None:
            pass
        seeds = dict(outcome.record.noise_seeds)
        chain = made.contributors["member-1"].seeds
        if change == "another seed":
            seeds["member-1"] = "ab" * 32
        elif change == "a stranger":
            seeds["somebody"] = seeds["member-1"]
        elif change == "more than survivors allow":
            seeds = {
                "member-1": chain.opened(len(chain.parts.surplus)).hex()
            }  # a member that colludes gives it away
        else:
            seeds["member-1"] = end_of(bytes.fromhex(seeds["member-1"]), 1).hex()
        record = outcome.record.model_copy(update={"noise_seeds": seeds})
        with pytest.raises(SumVerificationError):
            verified(made, replace(outcome, record=record))


def unmask_request(made: SumLeague, asked: Message, proof: np.ndarray) -> Message:
    context = m.Context(made.terms, RUN)
    binding = signed(asked).value["binding"]
    return context.write(
        made.signers[COORDINATOR], m.UnmaskRequest, 1, {"confirmations": proof}, binding=binding
    )


def verified(made: SumLeague, outcome: object) -> bool:
    record = outcome.record

    def vector(name: str) -> np.ndarray:
        stored = made.spool.get(vector_name(RUN, record.round, name))
        return np.frombuffer(stored, dtype="<u4")

    return np.array_equal(verify_sum(made.terms, record, vector).total, outcome.total)
