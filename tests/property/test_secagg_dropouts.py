"""Masks cancel whoever vanishes, and whenever, as long as enough are left; otherwise the round says who is missing."""

from __future__ import annotations

import os
from itertools import combinations, product

import numpy as np
import pytest

from hansa.quorum import threshold
from hansa.secagg import verify_sum
from hansa.secagg.dealing import Held, Parties, own_masks
from hansa.secagg.errors import QuorumError
from hansa.secagg.keys import RoundSecrets
from hansa.secagg.masks import add_masks
from hansa.secagg.record import SumOutcome
from hansa.secagg.unmasking import RoundFacts, Secrets, masks_to_remove
from hansa_simulations.bench.secure_league import MODEL, PURPOSE, RUN, SumLeague, make_league

PHASES = ("keys", "shares", "delivery", "masked", "confirm", "unmask")


def subsets(names: tuple[str, ...], least: int = 1) -> list[tuple[str, ...]]:
    return [some for size in range(least, len(names) + 1) for some in combinations(names, size)]


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_masks_cancel_for_every_set_of_contributors_and_survivors(n: int) -> None:
    names = tuple(f"m{i}" for i in range(n))
    x = {name: i + 1 for i, name in enumerate(names)}
    secrets = {name: RoundSecrets.draw(os.urandom) for name in names}
    keys = {name: secrets[name].public(name, post_quantum=False) for name in names}
    binding = "ab" * 32
    tried = 0
    for contributors in subsets(names):
        masked = {}
        for name in contributors:
            masked[name] = np.full(5, x[name], dtype=np.uint32)
            held = {other: Held(b"", b"", b"") for other in names}
            parties = Parties(name, x, keys, "cd" * 32, threshold(n))
            add_masks(masked[name], *own_masks(secrets[name], parties, held, contributors, binding))
        for survivors in subsets(contributors):
            facts = RoundFacts("cd" * 32, binding, x, keys, contributors, survivors)
            opened = Secrets(
                {name: secrets[name].self_seed for name in survivors},
                {name: secrets[name].mask_seed for name in facts.vanished},
            )
            total = np.sum([masked[name] for name in survivors], axis=0, dtype=np.uint32)
            if len(contributors) > 1:
                assert (total != sum(x[name] for name in survivors)).any()  # masked until it is unmasked
            add_masks(total, *masks_to_remove(facts, opened, {}))
            assert (total == sum(x[name] for name in survivors)).all(), (contributors, survivors)
            tried += 1
    assert tried == 3**n - 2**n


def run_round(league: SumLeague, vanish: dict[str, str], step: int) -> SumOutcome:
    """One round from cold; each named member is gone from the named phase on."""
    outcome = None
    for index, phase in enumerate(PHASES):
        league.away |= {name for name, when in vanish.items() if when == phase}
        if index == 3:
            assert league.coordinator.ready
            league.coordinator.begin(PURPOSE, step, MODEL)
        outcome = league.exchange()
    assert outcome is not None
    return outcome


def check_record(league: SumLeague, outcome: SumOutcome) -> None:
    def masked(name: str) -> np.ndarray:
        return np.frombuffer(league.spool.get(f"{RUN}.{outcome.round}.{name}.y") or b"", dtype="<u4")

    verified = verify_sum(league.terms, outcome.record, masked)
    assert (verified.total == outcome.total).all()
    assert verified.survivors == outcome.survivors
    assert verified.excluded == ()


@pytest.mark.parametrize("n", [4, 5, 6])
@pytest.mark.parametrize("phase", PHASES)
def test_any_one_member_may_vanish_in_any_phase(n: int, phase: str) -> None:
    for index in range(n):
        league = make_league(n, 40, seed=index)
        gone = f"member-{index + 1}"
        outcome = run_round(league, {gone: phase}, step=0)
        counted = phase in {"confirm", "unmask"}  # its vector was in already
        expected = tuple(name for name in league.members if counted or name != gone)
        assert outcome.survivors == expected
        assert (outcome.total == league.expected(expected)).all()
        assert list(outcome.dropped) == [gone]
        assert outcome.dropped[gone] == ("masked" if phase == "delivery" else phase)
        check_record(league, outcome)


@pytest.mark.parametrize("gone", ["member-1", "member-3", "member-5"])
def test_in_hybrid_mode_pads_are_brought_back_whichever_of_a_pair_vanishes(gone: str) -> None:
    league = make_league(5, 50, post_quantum=True)
    outcome = run_round(league, {gone: "masked"}, step=0)
    assert outcome.survivors == tuple(name for name in league.members if name != gone)
    assert (outcome.total == league.expected(outcome.survivors)).all()
    assert len(outcome.record.pads[gone]) == int(gone[-1]) - 1  # one from each member with a lower x
    check_record(league, outcome)


@pytest.mark.parametrize("gone", ["", "member-2", "member-5"])
def test_hybrid_mode_with_a_trusted_coordinator(gone: str) -> None:
    league = make_league(5, 50, post_quantum=True, threat_model="honest-but-curious")
    league.prepare()
    league.coordinator.begin(PURPOSE, 0, MODEL)
    league.away = {gone}
    outcome = league.exchange() or league.exchange()
    assert outcome is not None
    assert outcome.survivors == tuple(name for name in league.members if name != gone)
    assert (outcome.total == league.expected(outcome.survivors)).all()
    check_record(league, outcome)


@pytest.mark.parametrize(("first", "second"), list(product(PHASES, PHASES)))
def test_two_of_seven_may_vanish_in_any_phases(first: str, second: str) -> None:
    league = make_league(7, 20)
    vanish = {"member-2": first, "member-6": second}
    outcome = run_round(league, vanish, step=0)
    expected = tuple(n for n in league.members if n not in vanish or vanish[n] in {"confirm", "unmask"})
    assert outcome.survivors == expected
    assert (outcome.total == league.expected(expected)).all()
    check_record(league, outcome)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("n", [3, 4, 5, 6])
def test_one_too_few_ends_the_round_and_names_the_missing(n: int, phase: str) -> None:
    league = make_league(n, 20)
    gone = [f"member-{i + 1}" for i in range(n - threshold(n) + 1)]
    with pytest.raises(QuorumError) as caught:
        run_round(league, dict.fromkeys(gone, phase), step=0)
    assert all(name in caught.value.cause for name in gone)
    assert f"{threshold(n)} are needed" in caught.value.cause


@pytest.mark.parametrize("phase", PHASES)
def test_members_that_come_back_are_asked_again_and_the_round_goes_on(phase: str) -> None:
    league = make_league(5, 20)
    gone = {"member-1", "member-4"}
    for index, now in enumerate(PHASES):
        if index == 3:
            league.coordinator.begin(PURPOSE, 0, MODEL)
        if now == phase:
            league.away |= gone
            if phase == "delivery":  # nothing is missing yet: their envelopes come again with the manifest
                assert league.exchange() is None
                league.away.clear()
                continue
            with pytest.raises(QuorumError):
                league.exchange()
            league.away.clear()
        outcome = league.exchange()
    assert outcome is not None
    assert outcome.survivors == tuple(league.members)
    assert (outcome.total == league.expected(outcome.survivors)).all()


@pytest.mark.parametrize("phase", PHASES[3:])
def test_who_missed_a_round_contributes_to_the_next(phase: str) -> None:
    league = make_league(5, 20)
    league.prepare()
    league.coordinator.begin(PURPOSE, 0, MODEL)
    for now in PHASES[3:]:
        if now == phase:
            league.away = {"member-3"}
        outcome = league.exchange()
        league.away = set()  # killed in one exchange, back in the next
    assert outcome is not None
    assert ("member-3" in outcome.survivors) == (phase != "masked")
    following = league.sum(1)
    assert following.survivors == tuple(league.members)
    assert (following.total == league.expected(following.survivors)).all()


def test_a_member_that_was_away_for_rounds_comes_back() -> None:
    league = make_league(5, 20)
    league.sum(0)
    league.away = {"member-3"}
    missed = [league.sum(step) for step in (1, 2)]
    assert all("member-3" not in outcome.survivors for outcome in missed)
    league.away = set()
    back = [league.sum(step) for step in (3, 4)]
    assert "member-3" in back[1].survivors
    assert (back[1].total == league.expected(back[1].survivors)).all()
