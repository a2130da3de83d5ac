"""Masks: keystreams as the standard defines them, added and taken off, each key once."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from hansa.secagg import masks as masks_module
from hansa.secagg import workers as workers_module
from hansa.secagg.errors import MaskKeyUsedError, MaskWorkersError
from hansa.secagg.masks import MaskKey, add_masks, expand_into
from hansa.secagg.workers import MaskWorkers


def keystream(key: bytes, words: int) -> np.ndarray:
    """The keystream by ECB over explicit counters, independent of the CTR implementation."""
    blocks = -(-words // 4)
    counters = b"".join(counter.to_bytes(16, "big") for counter in range(blocks))
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305  (the oracle builds CTR from it)
    return np.frombuffer(encryptor.update(counters), dtype="<u4")[:words]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_mask_is_aes_256_ctr_from_counter_zero() -> None:
    # NIST SP 800-38A, F.5.5 uses another initial counter; the all-zero key and counter are in FIPS 197's test files.
    vector = np.zeros(4, dtype="<u4")
    add_masks(vector, [MaskKey(bytes(32))])
    assert vector.tobytes().hex() == "dc95c078a2408989ad48a21492842087"


@pytest.fixture(params=[1.0, 1.7], ids=["ctr", "gcm"])
def through(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """Both ways to a keystream, whichever is faster on this machine."""
    gain: float = request.param
    for module in (masks_module, workers_module):
        monkeypatch.setattr(module, "gain_of_gcm", lambda: gain)
    return gain


@pytest.mark.usefixtures("through")
@pytest.mark.parametrize("words", [1, 3, 4, 5, 16_383, 16_384, 16_385, 98_303, 98_304, 98_305, 250_001])
def test_masks_of_any_length_are_added_and_taken_off(words: int) -> None:
    start = np.random.default_rng(words).integers(0, 2**32, words, dtype=np.uint32)
    vector = start.copy()
    first, second = os.urandom(32), os.urandom(32)
    add_masks(vector, [MaskKey(first)], [MaskKey(second)])
    assert (vector == start + keystream(first, words) - keystream(second, words)).all()
    add_masks(vector, [MaskKey(second)], [MaskKey(first)])
    assert (vector == start).all()


@pytest.mark.usefixtures("through")
@pytest.mark.parametrize("words", [1000, 20_003])
@pytest.mark.parametrize("first", [0, 4, 8, 400, 98_304])
def test_a_part_of_a_mask_can_be_made_by_itself(first: int, words: int) -> None:
    key = os.urandom(32)
    part = np.zeros(words, dtype="<u4")
    expand_into(part, [key], [], first_word=first)
    assert (part == keystream(key, first + words)[first:]).all()


def test_the_way_through_gcm_is_taken_where_it_is_faster(
    through: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []

    def cipher(algorithm: object, mode: modes.Mode) -> Cipher:
        used.append(mode.name)
        return Cipher(algorithm, mode)

    monkeypatch.setattr(masks_module, "Cipher", cipher)
    add_masks(np.zeros(16_384, dtype="<u4"), [MaskKey(bytes(32))])
    assert used == (["CTR", "GCM"] if through > 1 else ["CTR"])
    used.clear()
    add_masks(np.zeros(16_383, dtype="<u4"), [MaskKey(bytes(32))])
    assert used == ["CTR"]


def test_the_gain_is_measured_once_and_never_below_one() -> None:
    masks_module.gain_of_gcm.cache_clear()
    gain = masks_module.gain_of_gcm()
    assert gain >= 1.0
    assert masks_module.gain_of_gcm() == gain
    assert masks_module.gain_of_gcm.cache_info().misses == 1


@pytest.mark.parametrize("length", [1, 4, 5, 1000, 40_003, 1_000_001])
@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_shares_start_at_whole_blocks_and_cover_the_vector(
    length: int, processes: int, through: float
) -> None:
    own, share = workers_module._shares(length, processes)
    starts = list(range(own, length, share))
    assert len(starts) <= processes - 1
    assert 0 < own <= length
    assert share % 4 == 0
    assert all(start % 4 == 0 for start in starts)
    if length > 1000 and processes == 2:
        assert own / (length - own) == pytest.approx(through, rel=0.01)


def test_a_part_starts_at_a_whole_block() -> None:
    with pytest.raises(ValueError, match="whole AES block"):
        expand_into(np.zeros(4, dtype="<u4"), [bytes(32)], [], first_word=2)


def test_a_key_masks_one_vector_only() -> None:
    key = MaskKey(os.urandom(32))
    vector = np.zeros(4, dtype="<u4")
    add_masks(vector, [key])
    masked = vector.copy()
    with pytest.raises(MaskKeyUsedError):
        add_masks(vector, [MaskKey(bytes(32)), key])
    assert (vector == masked).all()


def test_a_key_shows_nothing_of_itself() -> None:
    key = MaskKey(bytes(range(32)))
    assert repr(key) == "MaskKey(unused)"
    key.take()
    assert repr(key) == "MaskKey(used)"


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_key_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        MaskKey(bytes(size))


@pytest.mark.skipif(not workers_module.SHARED_MEMORY, reason="workers share memory on Linux only")
class TestWorkers:
    LENGTH = 40_003

    @pytest.fixture(autouse=True)
    def small_vectors_are_shared(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(workers_module, "MIN_SHARED_WORDS", 1)
        monkeypatch.setattr(workers_module, "MIN_KEPT_WORDS", 1)

    @pytest.mark.usefixtures("through")
    @pytest.mark.parametrize("processes", [1, 2, 3])
    def test_any_number_of_processes_gives_the_same_bits(self, processes: int) -> None:
        plus, minus = [os.urandom(32) for _ in range(3)], [os.urandom(32)]
        with MaskWorkers(processes) as workers:
            vector = workers.empty(self.LENGTH)
            vector[:] = np.arange(self.LENGTH)
            workers.add_masks(vector, [MaskKey(k) for k in plus], [MaskKey(k) for k in minus])
        expected = np.arange(self.LENGTH, dtype=np.uint32)
        add_masks(expected, [MaskKey(k) for k in plus], [MaskKey(k) for k in minus])
        assert (vector == expected).all()

    def test_a_vector_from_elsewhere_is_masked_here(self) -> None:
        key = os.urandom(32)
        with MaskWorkers(2) as workers:
            workers.empty(self.LENGTH)
            vector = np.zeros(self.LENGTH, dtype="<u4")
            workers.add_masks(vector, [MaskKey(key)])
        assert (vector == keystream(key, self.LENGTH)).all()

    def test_an_older_shared_vector_is_masked_here(self) -> None:
        key = os.urandom(32)
        with MaskWorkers(2) as workers:
            older, newer = workers.empty(self.LENGTH), workers.empty(self.LENGTH)
            older[:] = newer[:] = 0
            workers.add_masks(older, [MaskKey(key)])
        assert (older == keystream(key, self.LENGTH)).all()
        assert not newer.any()

    def test_keys_are_used_up_by_workers_too(self) -> None:
        key = MaskKey(os.urandom(32))
        with MaskWorkers(2) as workers:
            vector = workers.empty(self.LENGTH)
            workers.add_masks(vector, [key])
            with pytest.raises(MaskKeyUsedError):
                workers.add_masks(vector, [key])

    @pytest.mark.parametrize("processes", [1, 2])
    def test_memory_is_used_again_only_when_nothing_refers_to_it(self, processes: int) -> None:
        with MaskWorkers(processes) as workers:
            first = workers.empty(self.LENGTH)
            address, view = first.ctypes.data, first.view(np.int32)[5:]
            del first
            gc.collect()
            second = workers.empty(self.LENGTH)  # `view` still needs the first one's memory
            assert second.ctypes.data != address
            view[:] = 7
            address = second.ctypes.data
            del second
            gc.collect()
            shorter = workers.empty(self.LENGTH - 1000)
            assert shorter.ctypes.data == address
            key = os.urandom(32)
            shorter[:] = 0
            workers.add_masks(shorter, [MaskKey(key)])
            assert (shorter == keystream(key, len(shorter))).all()
            assert (view == 7).all()

    def test_files_are_closed_with_the_workers(self) -> None:
        before = open_files()
        workers = MaskWorkers(2)
        vector = workers.empty(self.LENGTH)
        assert open_files() > before
        del vector, workers
        gc.collect()
        assert open_files() == before

    def test_a_worker_that_dies_is_a_typed_error(self) -> None:
        with MaskWorkers(2) as workers:
            vector = workers.empty(self.LENGTH)
            workers.warm()
            assert workers._pool is not None
            for process in list(workers._pool._processes.values()):
                process.kill()
                process.join()
            with pytest.raises(MaskWorkersError):
                workers.add_masks(vector, [MaskKey(os.urandom(32))])

    def test_no_process_at_all_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least one"):
            MaskWorkers(0)
