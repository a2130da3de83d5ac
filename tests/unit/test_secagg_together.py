"""What an exchange changes is on disk before any of its replies leaves, in few writes; masks are expanded ahead of the vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from hansa.errors import HansaError
from hansa.secagg import FolderStore, MaskWorkers, MemoryStore, answer
from hansa.secagg import messages as m
from hansa.secagg.bundle import unbundle
from hansa.secagg.errors import MaskKeyUsedError, StateError
from hansa.secagg.masks import MaskKey, add_masks
from hansa.secagg.masks_ahead import WORTH_A_THREAD, MaskAhead
from hansa_simulations.bench.secure_league import MODEL, PURPOSE, RUN, make_league, over_the_wire


class CountingStore(MemoryStore):
    """Counts what would be one durable write, and fails when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[list[str]] = []
        self.full = False

    def put_together(self, items: Mapping[str, bytes | memoryview], forget: Sequence[str] = ()) -> None:
        if self.full:
            raise StateError("no space left on device")
        self.writes.append([name.rsplit(".", 1)[1] for name in items])
        super().put_together(items, forget)


def test_a_steady_round_is_four_writes_at_a_member() -> None:
    league = make_league(4, 20)
    store = league.stores["member-1"] = CountingStore()
    league.restart("member-1")
    league.sum(0)
    league.coordinator.begin(PURPOSE, 1, MODEL)
    store.writes.clear()
    while league.exchange() is None:
        pass
    # the mark on the mask; vector and state; what was confirmed; what was opened. The next round's part is in them
    assert store.writes == [["state"], ["y", "state"], ["state"], ["state"]]
    assert league.coordinator.ready


def test_nothing_leaves_while_it_cannot_be_written_and_the_same_bytes_leave_afterwards() -> None:
    league = make_league(4, 20)
    store = league.stores["member-1"] = CountingStore()
    league.restart("member-1")
    league.prepare()
    league.coordinator.begin(PURPOSE, 0, MODEL)
    league.exchange()
    request = over_the_wire(league.coordinator.requests()["member-1"])  # survivors, and the next round's keys
    kinds = [part.kind for part in unbundle(request)]
    assert m.Survivors.purpose_name in kinds
    member, refused = league.members["member-1"], list[HansaError]()
    before = store.get(f"{RUN}.state")
    store.full = True
    reply = answer(member, request, refused.append)
    assert not {part.kind for part in unbundle(reply)} & {m.Confirm.purpose_name, m.Keys.purpose_name}
    assert all(isinstance(error, StateError) for error in refused)
    assert store.get(f"{RUN}.state") == before
    with pytest.raises(StateError):
        member.handle(unbundle(request)[0])  # not by another way either
    store.full = False
    first, again = (answer(member, request, refused.append) for _ in range(2))
    assert m.Confirm.purpose_name in [part.kind for part in unbundle(first)]
    assert first.header == again.header
    league.restart("member-1")  # and a new process knows what was said
    assert answer(league.members["member-1"], request, refused.append).header == first.header


def test_files_of_one_write_are_all_there_and_old_ones_gone(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "s")
    store.put("old", b"1")
    store.put_together({"a": b"2", "b": memoryview(b"3")}, forget=["old", "never"])
    assert [store.get(name) for name in ("old", "a", "b")] == [None, b"2", b"3"]
    store.put_together({})
    with pytest.raises(StateError, match="name of stored bytes"):
        store.put_together({"a": b"9", "../b": b"9"})
    assert store.get("a") == b"2"
    store.close()


@pytest.mark.parametrize("length", [100, WORTH_A_THREAD + 5])
def test_masks_made_ahead_are_those_that_are_added_at_once(length: int) -> None:
    keys = [bytes([index]) * 32 for index in range(4)]
    vector = np.arange(length, dtype=np.uint32)
    wanted = vector.copy()
    add_masks(wanted, [MaskKey(key) for key in keys[:3]], [MaskKey(keys[3])])
    plus, minus = [MaskKey(key) for key in keys[:3]], [MaskKey(keys[3])]
    with MaskAhead(MaskWorkers(), length, plus, minus) as mask:
        made = vector.copy()
    assert np.array_equal(mask.over(made), wanted)
    assert np.array_equal(made, vector)
    with pytest.raises(MaskKeyUsedError):
        mask.over(made)
    for key in (*plus, *minus):
        with pytest.raises(MaskKeyUsedError):
            key.take()


def test_a_vector_that_was_not_made_leaves_no_mask_to_use() -> None:
    with (
        pytest.raises(RuntimeError, match="no vector"),
        MaskAhead(MaskWorkers(), WORTH_A_THREAD, [MaskKey(bytes(32))], []) as mask,
    ):
        raise RuntimeError("no vector")
    with pytest.raises(MaskKeyUsedError):
        mask.over(np.zeros(WORTH_A_THREAD, np.uint32))
