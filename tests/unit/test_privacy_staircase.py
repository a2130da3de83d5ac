"""The staircase under the discrete Gaussian, against arithmetic with 60 digits: nothing about a draw is approximate."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.privacy import staircase as room
from hansa.privacy.noise import LARGEST_SIGMA, SMALLEST_SIGMA, discrete_gaussian
from hansa.privacy.staircase import REACH, SLOTS, Staircase, is_below, staircase
from hansa.privacy.streams import AesStream

sigmas = st.floats(math.log2(SMALLEST_SIGMA), math.log2(LARGEST_SIGMA)).map(
    lambda bits: min(max(2.0**bits, SMALLEST_SIGMA), LARGEST_SIGMA)
)
SOME = [20.0, 20.5, 33.3, 63.99, 64.0, 70.0, 1000.0, 2.0**30 + 0.5, LARGEST_SIGMA]


class Script:
    """A stream of given words, and no more of them."""

    def __init__(self, *words: Iterable[int]) -> None:
        self.parts = [np.array(list(part), dtype=np.uint64) for part in words]

    def fill(self, words: np.ndarray) -> None:
        part = self.parts.pop(0)
        assert len(part) == len(words)
        words[:] = part


def curve(steps: Staircase, k: int) -> Decimal:
    """c·exp(−k² / 2σ²) with 60 digits, by another way than the code's."""
    with localcontext() as context:
        context.prec = 60
        sigma = Decimal(steps.sigma)
        return Decimal(steps.height) * (-((Decimal(int(k)) / sigma) ** 2) / 2).exp()


def counts(steps: Staircase) -> tuple[Counter[int], Counter[int]]:
    """Certain and conditional slots by the first integer of their step."""
    certain, conditional = steps.first[: steps.certain], steps.first[steps.certain :]
    return Counter(certain.tolist()), Counter(conditional.tolist())


def integers_of_interest(steps: Staircase, seed: int = 0) -> list[int]:
    """All of a small table; else both ends of every step, and an integer within."""
    width, last = 1 << steps.width_bits, int(steps.first.max()) + (1 << steps.width_bits)
    if last < 2000:
        return list(range(-last, last))
    starts = np.unique(steps.first)
    inside = starts + np.random.default_rng(seed).integers(0, width, len(starts))
    chosen = np.concatenate([starts, starts + width - 1, inside])
    return np.random.default_rng(seed).permutation(chosen).tolist()


def misplaced(steps: Staircase) -> list[int]:
    """Integers whose probability would be wrong: the curve is not between their certain and all their slots."""
    certain, conditional = counts(steps)
    wrong = []
    for k in integers_of_interest(steps):
        step = k >> steps.width_bits << steps.width_bits
        if not certain[step] <= curve(steps, k) <= certain[step] + conditional[step]:
            wrong.append(k)
    return wrong


@pytest.mark.parametrize("sigma", SOME)
def test_the_curve_is_between_the_whole_numbers_everywhere(sigma: float) -> None:
    assert misplaced(staircase(sigma)) == []


@pytest.mark.parametrize("sigma", [20.0, 1000.0])
def test_a_table_with_one_wrong_slot_is_found(sigma: float) -> None:
    steps = staircase(sigma)
    too_sure = replace(steps, certain=steps.certain + 1)
    assert misplaced(too_sure)
    first = steps.first.copy()
    first[steps.certain - 1] = first[0]  # a slot of the middle points to the tail
    assert misplaced(replace(steps, first=first))
    assert misplaced(replace(steps, height=steps.height * 1.02))


@given(sigmas)
@settings(max_examples=60, deadline=None)
def test_any_sigma_has_its_table(sigma: float) -> None:
    steps = staircase(sigma)
    width = 1 << steps.width_bits
    assert width == 1 or sigma / 64 < width <= sigma / 32
    assert len(steps.first) == SLOTS
    assert len(steps.low) == len(steps.rise) == SLOTS - steps.certain
    assert (steps.first % width == 0).all()
    starts = np.unique(steps.first)
    assert np.array_equal(starts, np.arange(starts[0], -starts[0], width))  # every step has a slot
    assert -starts[0] >= REACH * sigma
    assert steps.rise.min() >= 1
    certain, conditional = counts(steps)
    assert [certain[first] for first in steps.first[steps.certain :].tolist()] == steps.low.tolist()
    assert [conditional[first] for first in steps.first[steps.certain :].tolist()] == steps.rise.tolist()
    kept = steps.height * sigma * math.sqrt(2 * math.pi) / (SLOTS * width)
    assert 0.94 < kept <= 1
    assert steps.certain > 0.93 * SLOTS
    assert not any(array.flags.writeable for array in (steps.first, steps.low, steps.rise))


@given(sigmas, st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_any_integer_at_any_sigma_is_between(sigma: float, seed: int) -> None:
    steps = staircase(sigma)
    certain, conditional = counts(steps)
    chosen = integers_of_interest(steps, seed)
    for k in chosen[:: max(1, len(chosen) // 40)]:
        step = k >> steps.width_bits << steps.width_bits
        assert certain[step] <= curve(steps, k) <= certain[step] + conditional[step]


@pytest.mark.parametrize("sigma", [20.0, 63.99, 70.0, 300.0])
@pytest.mark.parametrize("share", [1e-6, 0.2, 0.71, 1 - 2.0**-53])
def test_every_word_means_what_it_should(sigma: float, share: float) -> None:
    """All slots, with every offset, in one call: what is kept is what the definition keeps, decided with 60 digits."""
    steps = staircase(sigma)
    width = 1 << steps.width_bits
    slots = np.repeat(np.arange(SLOTS, dtype=np.uint64), width)
    offsets = np.tile(np.arange(width, dtype=np.uint64), SLOTS)
    between = np.uint64(0x0000_5A5A_0000_0000)  # bits that choose nothing
    words = (slots << np.uint64(48)) | between | offsets
    drawn = int(share * 2**64)
    out = np.empty(len(words), dtype=np.int64)
    conditional = int((slots >= steps.certain).sum())
    refused = steps.propose(Script(words, [drawn] * conditional), out)
    expected = steps.first[slots.astype(np.int64)] + offsets.astype(np.int64)
    assert np.array_equal(out, expected)
    wanted = []
    for place in np.flatnonzero(slots >= steps.certain):
        index = int(slots[place]) - steps.certain
        height = Decimal(drawn) / 2**64 * int(steps.rise[index]) + int(steps.low[index])
        if not height < curve(steps, int(out[place])):
            wanted.append(place)
    assert refused.tolist() == wanted


@given(sigmas, st.integers(0, 2**32), st.integers(-3, 3), st.integers(-3, 3))
@settings(max_examples=150, deadline=None)
def test_a_comparison_at_the_last_bit_is_decided_by_further_bits(
    sigma: float, seed: int, off: int, off_next: int
) -> None:
    """V is placed at the curve, up to a unit of its 64th or its 128th bit; what comes out is the order of the numbers."""
    steps = staircase(sigma)
    index = int(np.random.default_rng(seed).integers(0, SLOTS - steps.certain))
    k = int(steps.first[steps.certain + index])
    low, rise = int(steps.low[index]), int(steps.rise[index])
    with localcontext() as context:
        context.prec = 60
        level = (curve(steps, k) - low) / rise * 2**128
        whole = int(level) + off_next + (off << 64)
        if abs(off_next) <= 1 and off == 0:
            whole += 2 if off_next >= 0 else -2  # further words are not in the script
        if not 0 <= whole < 2**128:
            return
        wanted = Decimal(whole) < level
    script = Script([whole % 2**64])
    assert is_below(script, whole >> 64, k, low, rise, steps) == wanted
    if off == 0:
        assert script.parts == []
    elif abs(off) > 1:  # 64 bits were enough
        assert len(script.parts) == 1


def test_float64_and_exact_decisions_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = discrete_gaussian(AesStream(bytes(32)), 777.7, 20_000)
    asked = []

    def counted(*arguments: object) -> bool:
        asked.append(arguments)
        return is_below(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(room, "_UNSURE", 2.0**11)
    monkeypatch.setattr(room, "is_below", counted)
    slow = discrete_gaussian(AesStream(bytes(32)), 777.7, 20_000)
    assert len(asked) > 500
    assert np.array_equal(quick, slow)


def test_a_close_comparison_is_not_left_to_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """V equal to the level in all of float64's digits goes to the exact comparison, whose word is taken."""
    steps = staircase(20.0)
    index = SLOTS - steps.certain - 300
    k = int(steps.first[steps.certain + index])
    level = (curve(steps, k) - int(steps.low[index])) / int(steps.rise[index])
    near = int(level * 2**64)
    for answer in (True, False):
        monkeypatch.setattr(room, "is_below", lambda *_, answer=answer: answer)
        for distance in (0, 2**30, -(2**30), 2**39, -(2**39)):
            out = np.empty(1, dtype=np.int64)
            script = Script([(steps.certain + index) << 48], [near + distance])
            assert (len(steps.propose(script, out)) == 0) == answer
    monkeypatch.setattr(room, "is_below", None)  # farther apart it is not asked
    for distance, kept in ((2**42, False), (-(2**42), True)):
        script = Script([(steps.certain + index) << 48], [near + distance])
        assert (len(steps.propose(script, out)) == 0) == kept


def test_numpys_exponential_is_as_good_as_the_derivation_needs() -> None:
    points = np.concatenate([np.random.default_rng(1).uniform(-201, 0, 4000), -np.linspace(0, 1, 1000)])
    found = np.exp(points)
    with localcontext() as context:
        context.prec = 40
        worst = max(
            abs(Decimal(float(value)) / Decimal(float(point)).exp() - 1)
            for point, value in zip(points, found, strict=True)
        )
    assert worst < Decimal(2) ** -50 < Decimal(2) ** -40


def test_the_height_is_what_the_derivation_says() -> None:
    assert max(staircase(sigma).height for sigma in (20.0, 31.9, 32.0, 63.99, 64.0, 1e5)) < 1308
