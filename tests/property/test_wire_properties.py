"""Messages under arbitrary contents and arbitrary damage."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from hansa.errors import WireError
from hansa.wire import DTYPES, Message, parse

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4)
)
arrays = st.sampled_from(sorted(DTYPES)).flatmap(
    lambda dtype: st_numpy.arrays(
        dtype, st_numpy.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5)
    )
)
messages = st.builds(
    Message, text, st.dictionaries(text, values, max_size=4), st.dictionaries(text, arrays, max_size=3)
)


@given(messages)
def test_a_message_survives_the_way(sent):
    received = parse(sent.header, {name: array.copy() for name, array in sent.arrays.items()})
    assert received.header == sent.header
    assert received.kind == sent.kind
    assert set(received.arrays) == set(sent.arrays)
    for name, array in sent.arrays.items():
        assert received.arrays[name].dtype == array.dtype
        assert received.arrays[name].shape == array.shape
        assert received.arrays[name].tobytes() == array.tobytes()  # NaN payloads and -0.0 included


@given(messages)
def test_a_body_is_read_back_with_the_same_values(sent):
    assert parse(sent.header, sent.arrays).body == sent.body


MESSAGE = Message(
    "update",
    {"round": 3, "run": "r-1"},
    {"a": np.arange(4, dtype="<u4"), "b": np.array([1.5, -0.0], dtype="<f8")},
)


@given(st.data())
def test_a_changed_byte_of_a_header_is_refused(data):
    position = data.draw(st.integers(0, len(MESSAGE.header) - 1))
    value = data.draw(st.integers(0, 255))
    damaged = bytearray(MESSAGE.header)
    damaged[position] = value
    try:
        received = parse(bytes(damaged), MESSAGE.arrays)
    except WireError:
        return
    # what still parses is another message, whose own bytes these are: a signature tells the two apart
    assert received.header == bytes(damaged)
    assert set(received.arrays) == set(MESSAGE.arrays)


@given(st.sampled_from(["a", "b"]), st.data())
def test_a_changed_bit_of_an_array_is_refused(name, data):
    raw = bytearray(MESSAGE.arrays[name].tobytes())
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[bit // 8] ^= 1 << bit % 8
    damaged = np.frombuffer(bytes(raw), dtype=MESSAGE.arrays[name].dtype)
    try:
        parse(MESSAGE.header, {**MESSAGE.arrays, name: damaged})
    except WireError:
        return
    raise AssertionError(f"bit {bit} of {name} changed and nobody saw it")


@given(st.binary(max_size=200))
@example(b"[" * 200)
@example(b"null")
@example(b'{"version":1,"kind":"x","body":{},"arrays":{}}')
def test_arbitrary_bytes_are_a_wire_error_or_canonical(header):
    try:
        received = parse(header, {})
    except WireError:
        return
    assert received.header == header


@given(values, values)
def test_arbitrary_members_are_a_wire_error_or_a_message(body, described):
    header = json.dumps({"version": 1, "kind": "x", "body": body, "arrays": described}).encode()
    try:
        received = parse(header, {})
    except WireError:
        return
    assert received.header == header
