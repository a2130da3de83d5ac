"""Vectors worked on block by block: in files as in memory, the same bits, and the memory of a few blocks."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import numpy as np
import pytest

from hansa.agreement.terms import ServerRule
from hansa.errors import EngineError, ServerStateError
from hansa.server_step import ServerState, initial_state, published_weights, step
from hansa.vectors import (
    BLOCK,
    IN_MEMORY,
    Entrywise,
    InFiles,
    Mapped,
    Vectors,
    copied,
    in_blocks,
    let_go,
    pieces_of,
    read_npy,
)
from hansa.wire import Message, array_sha256, from_bytes, to_bytes
from hansa_simulations.processes.watching import resident_bytes

LENGTH = 2 * BLOCK + 77
MANY = 3 * 2**20  # entries: 24 MB of float64


@pytest.fixture
def files(tmp_path: Path) -> InFiles:
    return InFiles(tmp_path, from_bytes=1)


def noise(length: int = LENGTH, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(length)


def test_blocks_cover_a_vector_once() -> None:
    parts = list(in_blocks(LENGTH))
    assert [part.start for part in parts] == [0, BLOCK, 2 * BLOCK]
    assert [part.stop for part in parts] == [BLOCK, 2 * BLOCK, LENGTH]
    assert list(in_blocks(0)) == []


def test_a_vector_in_a_file_is_an_ordinary_array_that_nobody_can_write_to(
    files: InFiles, tmp_path: Path
) -> None:
    given = noise()
    made = copied(given, files)
    assert type(made) is np.ndarray
    assert made.tobytes() == given.tobytes()
    assert not made.flags.writeable
    assert list(tmp_path.iterdir()) == []  # its file has no name
    let_go(made)
    assert made.tobytes() == given.tobytes()  # it is read again
    assert array_sha256(made) == array_sha256(given)
    assert array_sha256(made[1000:]) == array_sha256(given[1000:])  # from the middle of a page
    assert b"".join(pieces_of(made)) == given.tobytes()
    assert list(pieces_of(made[:0])) == list(pieces_of(b"")) == []


def test_only_large_vectors_lie_in_files(tmp_path: Path) -> None:
    vectors = InFiles(tmp_path, from_bytes=8 * LENGTH)
    small, large = noise(LENGTH - 1), noise(LENGTH)
    assert vectors.placed(small) is small
    placed = vectors.placed(large)
    assert placed is not large
    assert vectors.placed(placed) is placed
    assert IN_MEMORY.placed(large) is large
    assert np.array_equal(placed, large)


def test_a_message_over_a_file_is_read_like_another(tmp_path: Path) -> None:
    message = Message("update", {"a": 1}, {"u": noise(), "v": np.arange(5, dtype="<u4")})
    path = tmp_path / "message"
    path.write_bytes(to_bytes(message))
    again = from_bytes(memoryview(Mapped.at(path)))
    assert again == message
    assert to_bytes(again) == to_bytes(message)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="empty"):
        Mapped.at(path)


def test_a_file_of_numpy_is_read_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "model.npy"
    np.save(path, noise())
    read = read_npy(path)
    assert type(read) is np.ndarray
    assert np.array_equal(read, noise())
    np.save(path, np.asfortranarray(noise(6).reshape(2, 3)))
    with pytest.raises(ValueError, match="row by row"):
        read_npy(path)
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="pickle"):
        read_npy(path)


def test_a_disk_that_takes_no_more_ends_a_run_that_can_go_on(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"cannot be kept in .*No such file"):
        InFiles(tmp_path / "gone", from_bytes=1).making(5)
    made = InFiles(tmp_path, from_bytes=1).making(LENGTH)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(EngineError, match="File too large") as refusal:
            made.add(noise())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "Make room" in refusal.value.diagnostics()


# --- the server step over blocks ----------------------------------------------------------------------------


def states(rule: ServerRule, vectors: Vectors, length: int = LENGTH) -> list[ServerState]:
    """Three rounds whose last two models are averaged; the updates are computed where they are needed."""
    found = [initial_state(rule, noise(length), average_tail=0.6, rounds=3, vectors=vectors)]
    for seed in range(2, 5):
        total = (1e6 * noise(length, seed)).astype("<i4")
        update = Entrywise(vectors.placed(total), lambda part: part.astype(np.float64) / 1e6)
        found.append(step(rule, found[-1], update, vectors=vectors))
    return found


@pytest.mark.parametrize("name", ["fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad", "adamw"])
def test_steps_in_files_are_steps_in_memory_to_the_bit(name: str, files: InFiles) -> None:
    rule = ServerRule(rule=name, learning_rate=0.5)
    in_files, in_memory = states(rule, files), states(rule, IN_MEMORY)
    assert [one.digest() for one in in_files] == [one.digest() for one in in_memory]
    published = [published_weights(in_files[-1], files), published_weights(in_memory[-1])]
    assert published[0].tobytes() == published[1].tobytes()
    assert published[1].tobytes() != in_memory[-1].weights.tobytes()


def test_what_is_not_finite_is_found_beyond_the_first_block(files: InFiles) -> None:
    rule = ServerRule(rule="fedavg")
    state = initial_state(rule, noise(), average_tail=0.0, rounds=1, vectors=files)
    update = noise()
    update[[BLOCK + 5, LENGTH - 1]] = np.inf
    for given in (update, Entrywise(copied(update, files), lambda part: part * 2.0)):
        with pytest.raises(
            ServerStateError, match=rf"2 of {LENGTH} entries are not finite, the first at {BLOCK + 5}"
        ):
            step(rule, state, given, vectors=files)
    with pytest.raises(ServerStateError, match=rf"{LENGTH - 1} entries where the model has {LENGTH}"):
        step(rule, state, Entrywise(noise(LENGTH - 1), lambda part: part), vectors=files)


def test_a_step_takes_the_memory_of_a_few_blocks(files: InFiles) -> None:
    rule = ServerRule(rule="fedadam", learning_rate=0.5)
    start = copied(np.zeros(MANY), files)
    before = resident_bytes(os.getpid())
    state = initial_state(rule, start, average_tail=1.0, rounds=1, vectors=files)
    state = step(rule, state, Entrywise(start, lambda part: part + 1.0), vectors=files)
    assert array_sha256(state.weights) == state.weights_sha256
    more = resident_bytes(os.getpid()) - before
    assert more < 16 * 2**20, f"{more} bytes for seven vectors of {8 * MANY}"
