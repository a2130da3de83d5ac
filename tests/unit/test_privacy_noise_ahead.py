"""Noise that is made ahead: the same draws in the same order, each once, whatever goes wrong in between."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.errors import PrivacyParameterError
from hansa.privacy import streams
from hansa.privacy.noise_ahead import NoiseAhead
from hansa.privacy.randomness import PublicSampling, SecretRandomness

SIGMA, SIZE = 50.0, 300
_WAIT_S = 20


class Numbered:
    """A randomness whose n-th noise vector is full of n."""

    def __init__(self) -> None:
        self.made = 0
        self.threads: set[int] = set()
        self.selecting: set[int] = set()
        self.fail: Callable[[int], None] = lambda number: None
        self.begun = threading.Semaphore(0)
        self.references: list[weakref.ref[np.ndarray]] = []

    def select(self, units: int, rate: float) -> np.ndarray:
        self.selecting.add(threading.get_ident())
        return np.ones(units, dtype=np.bool_)

    def noise(self, sigma: float, size: int) -> np.ndarray:
        self.threads.add(threading.get_ident())
        self.made += 1
        number = self.made
        self.begun.release()
        self.fail(number)
        vector = np.full(size, number, dtype=np.int64)
        self.references.append(weakref.ref(vector))
        return vector

    @property
    def alive(self) -> int:
        """How many vectors somebody still holds."""
        return sum(reference() is not None for reference in self.references)


def twins() -> tuple[SecretRandomness, SecretRandomness]:
    """Two with the same keys, which nothing but a test can make."""
    made = []
    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch:
            keys = [bytes([number]) * 32 for number in (1, 2)]
            patch.setattr(streams.secrets, "token_bytes", lambda _size, keys=keys: keys.pop(0))
            patch.setattr(streams.SecretStream, "_seen", {})
            made.append(SecretRandomness())
    return made[0], made[1]


def numbers(ahead: NoiseAhead, count: int) -> list[int]:
    return [int(ahead.noise(SIGMA, SIZE)[0]) for _ in range(count)]


def noise_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("hansa-noise")]


@given(st.lists(st.booleans(), max_size=14))
@settings(max_examples=40, deadline=None)
def test_reading_ahead_changes_neither_noise_nor_sampling(calls: list[bool]) -> None:
    """True is a selection, False a noise vector, in any order."""
    plain, under = twins()
    with NoiseAhead(under, SIGMA, SIZE, calls.count(False)) as ahead:
        for selects in calls:
            if selects:
                assert np.array_equal(plain.select(90, 0.4), ahead.select(90, 0.4))
            else:
                assert np.array_equal(plain.noise(SIGMA, SIZE), ahead.noise(SIGMA, SIZE))
    assert not noise_threads()


def test_vectors_come_in_order_and_once() -> None:
    with NoiseAhead(Numbered(), SIGMA, SIZE, 30) as ahead:
        assert numbers(ahead, 30) == list(range(1, 31))


def test_noise_is_made_in_one_other_thread_and_sampling_in_the_callers() -> None:
    source = Numbered()
    with NoiseAhead(source, SIGMA, SIZE, 5) as ahead:
        ahead.select(3, 0.5)
        numbers(ahead, 5)
    assert len(source.threads) == 1
    assert source.threads.isdisjoint({threading.get_ident()})
    assert source.selecting == {threading.get_ident()}


def test_the_next_vector_is_made_while_the_caller_computes() -> None:
    source = Numbered()
    with NoiseAhead(source, SIGMA, SIZE, 3) as ahead:
        assert source.begun.acquire(timeout=_WAIT_S)  # the first, before anyone asks
        ahead.noise(SIGMA, SIZE)
        assert source.begun.acquire(timeout=_WAIT_S)  # the second, while nobody asks
        assert source.made == 2


def test_at_most_one_vector_is_ahead_and_none_beyond_the_last_step() -> None:
    source = Numbered()
    with NoiseAhead(source, SIGMA, SIZE, 6) as ahead:
        for step in range(1, 7):
            ahead.noise(SIGMA, SIZE)
            assert source.made <= step + 1
            gc.collect()
            assert source.alive <= 2  # one ready, one in the thread's hand or the caller's
        with pytest.raises(PrivacyParameterError, match="last step"):
            ahead.noise(SIGMA, SIZE)
    assert source.made == 6


def test_no_steps_make_no_noise() -> None:
    source = Numbered()
    with NoiseAhead(source, SIGMA, SIZE, 0) as ahead, pytest.raises(PrivacyParameterError, match="last step"):
        ahead.noise(SIGMA, SIZE)
    assert source.made == 0
    with pytest.raises(PrivacyParameterError, match="announced"):
        NoiseAhead(source, SIGMA, SIZE, -1)


def test_an_exception_in_the_thread_is_raised_in_the_caller_and_nothing_repeats() -> None:
    source = Numbered()

    def fail(number: int) -> None:
        if number in {3, 4}:
            raise MemoryError(f"vector {number}")

    source.fail = fail
    with NoiseAhead(source, SIGMA, SIZE, 5) as ahead:
        assert numbers(ahead, 2) == [1, 2]
        for number in (3, 4):
            with pytest.raises(MemoryError, match=f"vector {number}"):
                ahead.noise(SIGMA, SIZE)
        assert numbers(ahead, 3) == [5, 6, 7]  # all five steps get noise
        with pytest.raises(PrivacyParameterError, match="last step"):
            ahead.noise(SIGMA, SIZE)
    assert not noise_threads()


def test_a_public_stream_refuses_in_the_caller() -> None:
    with NoiseAhead(PublicSampling(1), SIGMA, SIZE, 2) as ahead:
        assert np.array_equal(ahead.select(50, 0.5), PublicSampling(1).select(50, 0.5))
        with pytest.raises(PrivacyParameterError, match="public stream"):
            ahead.noise(SIGMA, SIZE)


@pytest.mark.parametrize("after", [False, True])
def test_an_interrupt_while_waiting_loses_noise_and_repeats_none(
    monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """Ctrl-C before the wait, or once the vector was there and before the caller had it."""
    whole = Future.result

    def interrupted(self: Future, timeout: float | None = None) -> np.ndarray:
        monkeypatch.setattr(Future, "result", whole)
        if after:
            whole(self, timeout)
        raise KeyboardInterrupt

    with NoiseAhead(Numbered(), SIGMA, SIZE, 4) as ahead:
        assert numbers(ahead, 2) == [1, 2]
        monkeypatch.setattr(Future, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ahead.noise(SIGMA, SIZE)
        assert numbers(ahead, 2) == [4, 5]
    assert not noise_threads()


def test_an_interrupt_inside_the_context_closes_it() -> None:
    source = Numbered()

    def interrupted(ahead: NoiseAhead) -> None:
        with ahead:
            ahead.noise(SIGMA, SIZE)
            raise KeyboardInterrupt

    ahead = NoiseAhead(source, SIGMA, SIZE, 9)
    with pytest.raises(KeyboardInterrupt):
        interrupted(ahead)
    made = source.made
    assert made <= 2
    assert not noise_threads()
    with pytest.raises(PrivacyParameterError, match="closed"):
        ahead.noise(SIGMA, SIZE)
    assert source.made == made


def test_closing_waits_for_the_vector_under_way_and_forgets_it() -> None:
    source = Numbered()
    go, entered = threading.Event(), threading.Event()

    def slow(number: int) -> None:
        entered.set()
        assert go.wait(_WAIT_S)

    source.fail = slow
    ahead = NoiseAhead(source, SIGMA, SIZE, 9)
    assert entered.wait(_WAIT_S)
    closer = threading.Thread(target=ahead.close)
    closer.start()
    closer.join(0.05)
    assert closer.is_alive()
    go.set()
    closer.join(_WAIT_S)
    assert not closer.is_alive()
    assert source.made == 1
    assert not noise_threads()
    gc.collect()
    assert source.alive == 0
    ahead.close()  # once more does nothing
    with pytest.raises(PrivacyParameterError, match="closed"):
        ahead.noise(SIGMA, SIZE)


@pytest.mark.parametrize(("sigma", "size"), [(SIGMA + 1, SIZE), (SIGMA, SIZE + 1)])
def test_other_noise_than_was_announced_is_refused(sigma: float, size: int) -> None:
    with NoiseAhead(Numbered(), SIGMA, SIZE, 2) as ahead:
        with pytest.raises(PrivacyParameterError, match="announced"):
            ahead.noise(sigma, size)
        assert numbers(ahead, 2) == [1, 2]


def test_callers_in_several_threads_never_share_a_vector() -> None:
    found: list[int] = []
    start = threading.Barrier(4)
    with NoiseAhead(Numbered(), SIGMA, SIZE, 200) as ahead:

        def work() -> None:
            start.wait(_WAIT_S)
            found.extend(numbers(ahead, 50))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_WAIT_S)
    assert len(found) == len(set(found)) == 200


def test_a_forked_process_gets_no_noise_that_was_made_before() -> None:
    with NoiseAhead(SecretRandomness(), SIGMA, SIZE, 4) as ahead:
        ahead.noise(SIGMA, SIZE)
        child = os.fork()
        if child == 0:  # pragma: no cover
            status = 1
            try:
                ahead.noise(SIGMA, SIZE)
            except PrivacyParameterError:
                ahead.close()  # returns, though its thread stayed with the parent
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        ahead.noise(SIGMA, SIZE)


def test_one_that_nobody_closed_ends_with_its_last_reference() -> None:
    ahead = NoiseAhead(Numbered(), SIGMA, SIZE, 9)
    threads = noise_threads()
    assert len(threads) == 1
    del ahead
    gc.collect()
    threads[0].join(_WAIT_S)
    assert not threads[0].is_alive()
