"""Mutated messages at every door of a whole round: typed errors, nothing changed, and never a wrong sum."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hansa.errors import HansaError, WireError
from hansa.identity import COORDINATOR, Statement
from hansa.secagg import messages as m
from hansa.secagg.bundle import answer, bundle, unbundle
from hansa.secagg.errors import BadShareError, QuorumError, SumOutOfRangeError, TranscriptError
from hansa.wire import Message, array_sha256, parse
from hansa_simulations.bench.secure_league import MODEL, PURPOSE, SumLeague, fixed_league, over_the_wire

NASTY: list[Any] = [
    None, True, 0, -1, 1, 2, 2**53, 2**64, 1.5, "", "x", "A" * 64, "0" * 64, "0" * 63, "é", "member-1", "stranger", "\n", [],
    ["member-1"], ["member-1", "member-1"], ["member-1", "member-2", "member-3"], [["member-1", "0" * 64]], {}, {"y": "0" * 64}, {"a": {}},
]  # fmt: skip
# A failure is reported as it was found: shrinking whole rounds takes minutes.
SETTINGS = settings(
    max_examples=40,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def mutated_bytes(data: st.DataObject, message: Message) -> Message:
    """What a broken or hostile carrier delivers: the bytes changed, no signature renewed."""
    header = bytearray(message.header)
    arrays = {name: array.copy() for name, array in message.arrays.items()}
    kind = data.draw(
        st.sampled_from(["flip", "cut", "insert", "array", "drop", "shape", "dtype", "kind", "line"])
    )
    if kind == "flip":
        header[data.draw(st.integers(0, len(header) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        del header[data.draw(st.integers(0, len(header) - 1)) :]
    elif kind == "insert":
        place = data.draw(st.integers(0, len(header)))
        header[place:place] = data.draw(st.binary(min_size=1, max_size=4))
    elif kind == "kind":
        return Message(
            data.draw(st.sampled_from(["", "secagg.bundle", "secagg.manifest", "secagg.unmask", "x"])),
            message.body,
            arrays,
        )
    elif kind == "line":
        line = message.body.get(m.SIGNED)
        if not isinstance(line, str):
            raise WireError("nothing to change")
        cut = data.draw(st.integers(0, len(line)))
        return Message(
            message.kind, {m.SIGNED: line[:cut] + data.draw(st.text(max_size=3)) + line[cut + 1 :]}, arrays
        )
    elif arrays:
        name = data.draw(st.sampled_from(sorted(arrays)))
        array = arrays[name]
        if kind == "drop":
            del arrays[name]
        elif kind == "dtype":
            arrays[name] = array.astype("<f8")
        elif kind == "shape":
            arrays[name] = array[: data.draw(st.integers(0, max(0, len(array) - 1)))]
        elif array.size:
            flat = array.reshape(-1).view(np.uint8)
            flat[data.draw(st.integers(0, flat.size - 1))] ^= 1 << data.draw(st.integers(0, 7))
            arrays[name] = array
        if data.draw(st.booleans()):
            return Message(message.kind, message.body, arrays)  # a header that fits the new arrays
    return parse(bytes(header), arrays)


def mutated_statement(data: st.DataObject, league: SumLeague, signer: str, message: Message) -> Message:
    """What a hostile party itself says: other content, signed with its own good key."""
    value = dict(Statement.parse(message.text(m.SIGNED)).value)
    arrays = {name: array.copy() for name, array in message.arrays.items()}
    kind = data.draw(st.sampled_from(["field", "field", "delete", "add", "array"]))
    if kind == "field":
        value[data.draw(st.sampled_from(sorted(value)))] = data.draw(st.sampled_from(NASTY))
    elif kind == "delete":
        del value[data.draw(st.sampled_from(sorted(value)))]
    elif kind == "add":
        value[data.draw(st.sampled_from(["a", "weight", "é"]))] = data.draw(st.sampled_from(NASTY))
    elif arrays:
        name = data.draw(st.sampled_from(sorted(arrays)))
        flat = arrays[name].reshape(-1).view(np.uint8)
        change = data.draw(st.sampled_from(["flip", "cut", "empty", "f8"]))
        if change == "flip" and flat.size:
            flat[data.draw(st.integers(0, flat.size - 1))] ^= 1 << data.draw(st.integers(0, 7))
        elif change == "cut":
            arrays[name] = arrays[name][:-1]
        elif change == "empty":
            arrays[name] = np.zeros((0,), np.uint8)
        else:
            arrays[name] = np.zeros((3, 3), dtype="<f8")
        value["arrays"] = {key: array_sha256(array) for key, array in arrays.items()}
    raw = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return Message(
        message.kind, {m.SIGNED: Statement.signed(league.signers[signer], message.kind, raw).line}, arrays
    )


@SETTINGS
@given(st.data())
def test_what_a_hostile_carrier_changes_is_refused_and_the_sum_is_right(data: st.DataObject) -> None:
    league = fixed_league(3, 8)
    outcome = None
    for index in range(6):
        if index == 3:
            league.coordinator.begin(PURPOSE, 0, MODEL)
        for name, request in league.coordinator.requests().items():
            member = league.members[name]
            for part in unbundle(request):
                before = member._state
                try:
                    reply = member.handle(mutated_bytes(data, part))
                except HansaError:
                    assert member._state == before
                else:
                    assert reply.header == member.handle(part).header  # the change left the meaning as it was
            honest = answer(member, over_the_wire(request), league.refused.setdefault(name, []).append)
            for part in unbundle(honest):
                kept = snapshot(league)
                try:
                    league.coordinator.receive(name, bundle([mutated_bytes(data, part)]))
                except HansaError:
                    assert snapshot(league) == kept
            with contextlib.suppress(HansaError):  # parts of a bundle that are whole may have been taken
                league.coordinator.receive(name, mutated_bytes(data, honest))
            league.coordinator.receive(name, honest)
        outcome = league.coordinator.close()
    assert outcome is not None
    assert outcome.survivors == tuple(league.members)
    assert (outcome.total == league.expected(outcome.survivors)).all()
    assert not any(league.refused.values())


def snapshot(league: SumLeague) -> list[tuple[int, str, list[tuple[str, list[str]]], bytes]]:
    """What the coordinator has taken so far."""
    return [
        (
            one.number,
            one.phase.name,
            sorted((model.purpose_name, sorted(said)) for model, said in one.answers.items() if said),
            one.sum.tobytes() if hasattr(one, "sum") else b"",
        )
        for one in league.coordinator._rounds()
    ]


@SETTINGS
@given(st.data())
def test_what_a_hostile_coordinator_signs_never_leads_to_a_wrong_sum(data: st.DataObject) -> None:
    league = fixed_league(4, 8)
    victim = data.draw(st.sampled_from(sorted(league.members)))
    when = data.draw(st.integers(0, 5))

    def tamper(name: str, request: Message) -> Message:
        if name != victim:
            return request
        parts = unbundle(request)
        place = data.draw(st.integers(0, len(parts) - 1))
        parts[place] = mutated_statement(data, league, COORDINATOR, parts[place])
        return bundle(parts)

    try:
        for index in range(6):
            if index == 3:
                league.coordinator.begin(PURPOSE, 0, MODEL)
            outcome = league.exchange(tamper if index == when else None)
    except (QuorumError, TranscriptError):
        return  # the round ends, or the victim's honest reply does not fit what the others were told
    assert outcome is not None
    assert (outcome.total == league.expected(outcome.survivors)).all()


@SETTINGS
@given(st.data())
def test_what_a_hostile_member_signs_is_refused_or_named_or_harmless(data: st.DataObject) -> None:
    league = fixed_league(4, 8)
    liar = data.draw(st.sampled_from(sorted(league.members)))
    when = data.draw(st.integers(0, 5))
    outcome = None
    try:
        for index in range(6):
            if index == 3:
                league.coordinator.begin(PURPOSE, 0, MODEL)
            for name, request in league.coordinator.requests().items():
                reply = answer(
                    league.members[name], over_the_wire(request), league.refused.setdefault(name, []).append
                )
                if name == liar and index == when:
                    parts = unbundle(reply)
                    # what it puts into its own vector is its own affair (see the tests of garbage vectors)
                    lies = [
                        p for p, part in enumerate(parts) if part.kind not in {m.Masked.purpose_name, m.NOTED}
                    ]
                    if lies:
                        place = data.draw(st.sampled_from(lies))
                        parts[place] = mutated_statement(data, league, liar, parts[place])
                    reply = bundle(parts)
                try:
                    league.coordinator.receive(name, over_the_wire(reply))
                except HansaError:
                    assert name == liar
            outcome = league.coordinator.close()
    except (QuorumError, BadShareError, SumOutOfRangeError):
        return
    assert outcome is not None
    assert (outcome.total == league.expected(outcome.survivors)).all()


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_no_line_of_text_crashes_a_reader(raw: bytes) -> None:
    for line in (
        raw.decode(errors="replace"),
        f"secagg.keys member-1 30 {raw.decode(errors='surrogateescape')}",
    ):
        try:
            statement = Statement.parse(line)
            assert statement.line == line
            assert isinstance(statement.value, dict)
        except WireError:
            continue
