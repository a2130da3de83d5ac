"""What members send has the same form whatever they hold: no count of rows, and nothing whose size follows one.

Flower's clients return `num-examples` beside their weights, and its strategies divide by the sum of them. Here a member's
weight is a public number of the agreement. A federation runs twice, with data sets of different sizes, and every message is
compared: kinds, keys, numbers, lengths of texts, dtypes and shapes of arrays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import pytest

from hansa.wire import Message, to_bytes
from hansa_client.data import Dataset
from hansa_client.training import TrainerFactory, engine_for
from hansa_flower import to_records
from support.federations import Federation
from support.leagues import frozen_league, table

AGREEMENT, BUILT = frozen_league()
NAMES = ("a", "b", "c")
Form: TypeAlias = Any
Answer: TypeAlias = Callable[[Message], Message]
Tampering: TypeAlias = Callable[[Message, Dataset], Message]


# An ECDSA signature in DER as hexadecimal: its length is random by itself, for leading zeros are left out.
SIGNATURE = re.compile(r"30(?:3|4)[0-9a-f]02(?:1|2)[0-9a-f][0-9a-f]{116,134}(?![0-9a-f])")


def length(text: str) -> int:
    """Of a text without its signatures."""
    return len(SIGNATURE.sub("", text))


def form(value: Any) -> Form:
    """Of a JSON value: texts by length (they hold hashes, keys, signatures and times), all else as it is."""
    if isinstance(value, Mapping):
        return {key: form(item) for key, item in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [form(item) for item in value]
    return f"text of {length(value)}" if isinstance(value, str) else value


def form_of(message: Message) -> Form:
    """Of a message as Flower carries it: the bytes of its header, which are JSON, and of its arrays."""
    records = to_records(message)
    assert set(records) == {"message"}  # no array is so large that it travels beside the rest
    assert not records.metric_records
    assert dict(records.config_records["message"]) == {"bytes": to_bytes(message)}
    header = json.loads(message.header)
    arrays = {}
    for name, array in message.arrays.items():
        said = header["arrays"].pop(name)
        assert (tuple(said["shape"]), said["dtype"]) == (array.shape, array.dtype.str)
        text = (
            array.tobytes().decode("latin-1") if name == "log.entries" else None
        )  # lines of JSON and signatures
        arrays[name] = (said["dtype"], array.shape if text is None else length(text))
    return {"kind": message.kind, "arrays": arrays, "header": form(header)}


def honest(reply: Message, _data: Dataset) -> Message:
    return reply


def sent(sizes: Mapping[str, int], tampering: Tampering = honest) -> list[tuple[str, Form]]:
    """What members with so many records each send in a whole run, in order."""
    data = {name: table(size, seed) for seed, (name, size) in enumerate(sizes.items())}
    replies: list[tuple[str, Form]] = []

    def between(name: str, request: Message, answer: Answer) -> Message:
        reply = tampering(answer(request), data[name])
        replies.append((name, form_of(reply)))
        return reply

    updates = dict.fromkeys(NAMES, np.zeros_like)
    federation = Federation(AGREEMENT, BUILT.initial_vector(), updates, between)
    factory = TrainerFactory(engine_for(BUILT, AGREEMENT.performance), AGREEMENT)
    for name in NAMES:
        federation.trainings[name] = factory.trainer(name, data[name])  # type: ignore[assignment]
        federation.restart(name)
    outcome = federation.run()
    assert outcome.stopped_because is None
    assert [one.present for one in outcome.rounds] == [NAMES] * AGREEMENT.terms.training.rounds
    return replies


USUAL = {"a": 61, "b": 38, "c": 20}


@pytest.mark.parametrize("other", [{"a": 1, "b": 38, "c": 20}, {"a": 0, "b": 381, "c": 1001}])
def test_every_message_has_the_same_form_whatever_members_hold(other: dict[str, int]) -> None:
    usual, changed = sent(USUAL), sent(other)
    assert len(usual) >= 3 * 3 * AGREEMENT.terms.training.rounds
    assert any(one["arrays"] for _, one in usual)
    assert changed == usual


def counted(reply: Message, data: Dataset) -> Message:
    """As Flower's clients do it."""
    return Message(reply.kind, {**reply.body, "num-examples": len(data)}, reply.arrays)


def padded(reply: Message, data: Dataset) -> Message:
    """A text whose length says it."""
    return Message(reply.kind, {**reply.body, "note": "x" * len(data)}, reply.arrays)


def shaped(reply: Message, data: Dataset) -> Message:
    """An array with a row for each record."""
    return Message(reply.kind, reply.body, {**reply.arrays, "log.losses": np.zeros(len(data))})


@pytest.mark.parametrize("tampering", [counted, padded, shaped])
def test_a_member_that_tells_its_count_is_found(tampering: Tampering) -> None:
    message = Message("word", {"run": "r"})
    few, many = (tampering(message, table(size, 1)) for size in (3, 40))
    assert form_of(few) != form_of(many)
    assert form_of(honest(message, table(3, 1))) == form_of(honest(message, table(40, 1)))


def test_the_weights_of_the_sum_are_those_of_the_agreement() -> None:
    """Twice the records, the same weight: it comes from the declared units alone."""
    weights = [member.public_weight for member in AGREEMENT.terms.members]
    assert weights == [60.0, 40.0, 20.0]
    assert set(USUAL.values()).isdisjoint({60, 40})
