"""Messages: what is bound by the header, and what is refused before anything acts on it."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from hansa import wire
from hansa.canonical import canonical_json
from hansa.errors import WireError
from hansa.wire import DTYPES, PROTOCOL_VERSION, Message, array_sha256, from_bytes, in_place, parse, to_bytes


def message(**arrays):
    return Message("update", {"round": 3, "run": "r-1"}, arrays or {"sum": np.arange(4, dtype="<u4")})


def header_of(value, **changes):
    """The header of a message with members replaced, canonical again."""
    return canonical_json({**json.loads(value.header), **changes})


def test_a_message_arrives_as_it_was_sent():
    sent = message(sum=np.array([1, 2**32 - 1], dtype="<u4"), weights=np.array([[0.5, -0.0]], dtype="<f8"))
    received = parse(sent.header, sent.arrays)
    assert received == sent
    assert received.header == sent.header
    assert (received.kind, received.body) == ("update", {"round": 3, "run": "r-1"})
    assert received.arrays["weights"].tobytes() == np.array([[0.5, -0.0]], dtype="<f8").tobytes()


def test_the_header_is_canonical_json_that_names_hashes():
    array = np.array([1, 2], dtype="<u4")
    digest = hashlib.sha256(b"\x01\x00\x00\x00\x02\x00\x00\x00").hexdigest()
    assert (
        message(sum=array).header
        == (
            f'{{"arrays":{{"sum":{{"dtype":"<u4","sha256":"{digest}","shape":[2]}}}},'
            f'"body":{{"round":3,"run":"r-1"}},"kind":"update","version":{PROTOCOL_VERSION}}}'
        ).encode()
    )


@pytest.mark.parametrize("number", [2.0**53, -(2.0**53), 1e16, 123456789012345678.0, 1e20, 1e21, 1e300, 0.1])
def test_doubles_that_canonical_json_writes_like_integers_arrive(number):
    sent = Message("update", {"bound": number})
    assert parse(sent.header, {}).body["bound"] == number


def test_an_integer_that_no_double_holds_cannot_be_sent():
    with pytest.raises(ValueError, match="domain"):
        _ = Message("update", {"round": 2**53}).header


def test_equal_messages_are_equal_and_others_are_not():
    assert message() == message()
    assert hash(message()) == hash(message())
    assert message() != message(sum=np.arange(1, 5, dtype="<u4"))
    assert message() != "update"


def test_a_hash_that_the_sender_vouches_for_is_not_computed_again(monkeypatch):
    array = np.arange(4, dtype="<u4")
    plain = message(sum=array)
    digest = array_sha256(array)
    monkeypatch.setattr(wire, "array_sha256", lambda _: pytest.fail("the array was hashed again"))
    vouched = Message(plain.kind, plain.body, {"sum": array}, {"sum": digest})
    assert vouched.array_hashes == {"sum": digest}
    assert digest not in repr(vouched)
    monkeypatch.undo()
    assert vouched.header == plain.header
    assert vouched == plain


def test_an_array_without_a_word_about_it_is_hashed_beside_one_that_is_vouched_for():
    a, b = np.arange(4, dtype="<u4"), np.arange(5, dtype="<u4")
    sent = Message("update", {}, {"a": a, "b": b}, {"a": array_sha256(a)})
    assert sent.array_hashes == {"a": array_sha256(a), "b": array_sha256(b)}


def test_what_arrives_is_hashed_whatever_the_sender_vouched_for():
    array = np.arange(4, dtype="<u4")
    lying = Message("update", {}, {"sum": array}, {"sum": "0" * 64})
    with pytest.raises(WireError, match="not those that were sent"):
        parse(lying.header, lying.arrays)


def test_arrays_of_a_message_cannot_be_written():
    source = np.arange(4, dtype="<u4")
    held = message(sum=source).arrays["sum"]
    with pytest.raises(ValueError, match="read-only"):
        held[0] = 7
    assert source.flags.writeable


def test_an_array_is_hashed_by_its_row_major_bytes():
    matrix = np.arange(6, dtype="<f4").reshape(2, 3)
    assert array_sha256(np.asfortranarray(matrix)) == hashlib.sha256(matrix.tobytes()).hexdigest()
    assert array_sha256(np.empty(0, dtype="<f8")) == hashlib.sha256(b"").hexdigest()
    sent = message(sum=np.arange(10, dtype="<i8")[::2])
    assert parse(sent.header, sent.arrays).array("sum", "<i8", 5).tolist() == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_every_dtype_of_the_wire_travels(dtype):
    sent = message(a=np.array([0, 1, 2], dtype=dtype))
    assert parse(sent.header, sent.arrays).arrays["a"].dtype.str == dtype


@pytest.mark.parametrize(
    "array",
    [
        np.arange(3, dtype=">u4"),
        np.arange(3, dtype="<u8"),
        np.zeros(3, dtype="<f2"),
        np.zeros(3, dtype=bool),
        np.zeros(3, dtype=complex),
        np.array(["a"], dtype=object),
        np.array(["a"]),
        [1, 2, 3],
        b"abc",
        None,
    ],
    ids=repr,
)
def test_what_the_wire_does_not_carry_is_refused_by_sender_and_receiver(array):
    with pytest.raises(WireError, match="does not carry"):
        message(sum=array)
    with pytest.raises(WireError, match="does not carry"):
        parse(message().header, {"sum": array})


# --- what a network, or someone in it, may do to a message ----------------------------------------------------

RIGHT = message()
OTHER = np.array([0, 1, 2, 4], dtype="<u4")


def without(name):
    return canonical_json({key: value for key, value in json.loads(RIGHT.header).items() if key != name})


def described(**changes):
    value = json.loads(RIGHT.header)
    value["arrays"]["sum"].update(changes)
    return canonical_json(value)


TAMPERED = {
    "another body": (
        header_of(RIGHT, body={"round": 4, "run": "r-1"}),
        {"sum": OTHER},
        "not those that were sent",
    ),
    "another array": (RIGHT.header, {"sum": OTHER}, "not those that were sent"),
    "another dtype of the same bytes": (RIGHT.header, {"sum": OTHER.view("<i4")}, "not those that were sent"),
    "another shape of the same bytes": (
        RIGHT.header,
        {"sum": RIGHT.arrays["sum"].reshape(2, 2)},
        "not those that were sent",
    ),
    "a dtype that is not the array's": (described(dtype="<i4"), RIGHT.arrays, "not those that were sent"),
    "a hash that is not the array's": (described(sha256="0" * 64), RIGHT.arrays, "not those that were sent"),
    "more about an array": (described(note="x"), RIGHT.arrays, "not those that were sent"),
    "an array missing": (RIGHT.header, {}, "not those that its header names"),
    "an array too many": (RIGHT.header, {**RIGHT.arrays, "extra": OTHER}, "not those that its header names"),
    "an array renamed": (RIGHT.header, {"total": RIGHT.arrays["sum"]}, "not those that its header names"),
    "no kind": (without("kind"), RIGHT.arrays, "four members"),
    "a fifth member": (header_of(RIGHT, note="x"), RIGHT.arrays, "four members"),
    "an older version": (header_of(RIGHT, version=0), RIGHT.arrays, "another protocol version"),
    "a newer version": (header_of(RIGHT, version=2), RIGHT.arrays, "another protocol version"),
    "a version that only equals 1": (header_of(RIGHT, version=True), RIGHT.arrays, "not canonical"),
    "a kind that is no string": (header_of(RIGHT, kind=["update"]), RIGHT.arrays, "wrong types"),
    "a body that is a list": (header_of(RIGHT, body=[1]), RIGHT.arrays, "wrong types"),
    "arrays that are a list": (header_of(RIGHT, arrays=["sum"]), RIGHT.arrays, "wrong types"),
    "spaces": (RIGHT.header.replace(b":", b": "), RIGHT.arrays, "not canonical"),
    "a trailing newline": (RIGHT.header + b"\n", RIGHT.arrays, "not canonical"),
    "members out of order": (
        json.dumps(dict(reversed(json.loads(RIGHT.header).items())), separators=(",", ":")).encode(),
        RIGHT.arrays,
        "not canonical",
    ),
    "a member twice": (
        RIGHT.header[:-1] + b',"version":1}',
        RIGHT.arrays,
        "not canonical",
    ),
    "a number written otherwise": (
        RIGHT.header.replace(b'"round":3', b'"round":3.0'),
        RIGHT.arrays,
        "not canonical",
    ),
    "UTF-16": (RIGHT.header.decode().encode("utf-16"), RIGHT.arrays, "not canonical"),
    "NaN": (RIGHT.header.replace(b'"round":3', b'"round":NaN'), RIGHT.arrays, "cannot express"),
    "an integer between two doubles": (
        RIGHT.header.replace(b'"round":3', b'"round":9007199254740993'),
        RIGHT.arrays,
        "not canonical",
    ),
    "a lone surrogate": (RIGHT.header.replace(b"r-1", rb"\ud800"), RIGHT.arrays, "cannot express"),
    "an integer of 5000 digits": (
        RIGHT.header.replace(b'"round":3', b'"round":' + b"3" * 5000),
        RIGHT.arrays,
        "cannot express",
    ),
    "not JSON": (b"update", RIGHT.arrays, "not JSON"),
    "nothing": (b"", RIGHT.arrays, "not JSON"),
    "cut off": (RIGHT.header[:-1], RIGHT.arrays, "not JSON"),
    "not UTF-8": (b"\xff" + RIGHT.header, RIGHT.arrays, "not JSON"),
    "100,000 brackets": (b"[" * 100_000, RIGHT.arrays, "not JSON"),
    "a list": (b"[]", RIGHT.arrays, "four members"),
    "null": (b"null", RIGHT.arrays, "four members"),
}


@pytest.mark.parametrize(("header", "arrays", "told"), TAMPERED.values(), ids=TAMPERED)
def test_a_tampered_message_is_refused(header, arrays, told):
    with pytest.raises(WireError, match=told):
        parse(header, arrays)


def test_two_arrays_cannot_change_places():
    sent = message(a=np.array([1.0], dtype="<f8"), b=np.array([2.0], dtype="<f8"))
    with pytest.raises(WireError, match="not those that were sent"):
        parse(sent.header, {"a": sent.arrays["b"], "b": sent.arrays["a"]})


def test_another_version_says_which_one_is_spoken():
    with pytest.raises(WireError) as caught:
        parse(header_of(RIGHT, version=2), RIGHT.arrays)
    assert f"version {PROTOCOL_VERSION}" in caught.value.what_to_do


def test_no_error_repeats_what_arrived():
    secret = "patient-4711"
    for header in (b'{"' + secret.encode() + b'":1}', secret.encode(), header_of(RIGHT, kind=[secret])):
        with pytest.raises(WireError) as caught:
            parse(header, RIGHT.arrays)
        assert secret not in caught.value.diagnostics()


# --- limits --------------------------------------------------------------------------------------------------


def test_a_header_at_the_limit_passes_and_one_byte_more_does_not(monkeypatch):
    size = len(RIGHT.header)
    monkeypatch.setattr(wire, "MAX_HEADER_BYTES", size)
    assert parse(RIGHT.header, RIGHT.arrays) == RIGHT
    longer = Message("update", {"round": 3, "run": "r-12"}, RIGHT.arrays)
    with pytest.raises(WireError, match=f"{size + 1} bytes"):
        _ = longer.header
    with pytest.raises(WireError, match=f"{size + 1} bytes"):
        parse(RIGHT.header + b" ", RIGHT.arrays)


def written(shape, data=bytes(16)):
    """The bytes of a message whose header says this shape of its array, without arrays that were ever made."""
    header = described(shape=shape, sha256=hashlib.sha256(data).hexdigest())
    return len(header).to_bytes(8, "big") + header + data


def test_an_array_has_so_many_dimensions_and_no_more():
    most = (4, *[1] * (wire.MAX_DIMENSIONS - 1))
    sent = message(sum=np.arange(4, dtype="<u4").reshape(most))
    assert from_bytes(to_bytes(sent)) == sent
    assert from_bytes(written(list(most))).arrays["sum"].shape == most
    with pytest.raises(WireError, match="dimensions"):
        message(sum=np.arange(4, dtype="<u4").reshape(*most, 1))
    with pytest.raises(WireError, match="no array of the wire"):
        from_bytes(written([*most, 1]))


@pytest.mark.parametrize(
    "shape",
    [[2**52] * 200_000, [1] * 1000 + [4], [4.5], [True, 4], [-4], "4", {"4": 4}, None, [[4]], ["4"]],
    ids=lambda shape: repr(shape)[:30],
)
def test_what_is_no_shape_is_refused_before_it_is_multiplied(shape):
    with pytest.raises(WireError, match="no array of the wire"):
        from_bytes(written(shape))


@pytest.mark.parametrize("shape", [[5], [2**53 - 1], [2**52] * 32, [2, 3]])
def test_an_array_is_no_longer_than_what_came(shape):
    with pytest.raises(WireError, match="over the limit of 16 bytes"):
        from_bytes(written(shape))


@pytest.mark.parametrize("shape", [[0], [0, 2**40], [2**40, 0]])
def test_a_length_of_zero_makes_an_array_empty_wherever_it_stands(shape):
    assert from_bytes(written(shape, b"")).arrays["sum"].shape == tuple(shape)


def test_a_header_over_the_limit_is_refused_before_it_is_read():
    with pytest.raises(WireError, match="over the limit"):
        parse(b"x" * (wire.MAX_HEADER_BYTES + 1), {})


def test_arrays_at_the_limit_pass_and_one_byte_more_does_not(monkeypatch):
    sent = message(sum=np.arange(4, dtype="<u4"), flags=np.zeros(1, dtype="|u1"))
    monkeypatch.setattr(wire, "MAX_ARRAY_BYTES", 17)
    assert parse(sent.header, sent.arrays) == sent
    monkeypatch.setattr(wire, "MAX_ARRAY_BYTES", 16)
    with pytest.raises(WireError, match="over the limit of 16 bytes"):
        parse(sent.header, sent.arrays)


def test_the_number_of_arrays_is_limited():
    arrays = {f"a{i}": np.zeros(1, dtype="<f4") for i in range(wire.MAX_ARRAYS)}
    assert len(Message("update", {}, arrays).arrays) == wire.MAX_ARRAYS
    with pytest.raises(WireError, match=f"at most {wire.MAX_ARRAYS}"):
        Message("update", {}, {**arrays, "more": np.zeros(1, dtype="<f4")})


# --- reading a body ------------------------------------------------------------------------------------------


def test_text_and_integers_are_read_by_type():
    sent = Message("train", {"run": "r-1", "round": 0, "none": None, "yes": True, "half": 0.5, "less": -1})
    assert sent.text("run") == "r-1"
    assert sent.integer("round") == 0
    for key in ("round", "none", "absent"):
        with pytest.raises(WireError, match=f"'train': '{key}' must be a string"):
            sent.text(key)
    for key in ("run", "none", "absent", "yes", "half", "less"):
        with pytest.raises(WireError, match=f"'train': '{key}' must be a non-negative integer"):
            sent.integer(key)


def test_an_array_is_read_by_dtype_and_length():
    sent = message(sum=np.arange(4, dtype="<u4"), square=np.zeros((2, 2), dtype="<u4"))
    assert sent.array("sum", "<u4", 4).tolist() == [0, 1, 2, 3]
    for name, dtype, length in (
        ("sum", "<i4", 4),
        ("sum", "<u4", 3),
        ("square", "<u4", 4),
        ("total", "<u4", 4),
    ):
        with pytest.raises(WireError, match=f"array '{name}' must be {dtype}"):
            sent.array(name, dtype, length)


def test_payload_is_header_and_arrays():
    sent = message(a=np.zeros(5, dtype="<f8"), b=np.zeros(3, dtype="|u1"))
    assert sent.payload_bytes == len(sent.header) + 43


def test_arrays_found_in_bytes_of_their_own_message_are_not_hashed_again(monkeypatch):
    arrays = {
        "b": np.arange(5, dtype="<u4"),
        "a": np.linspace(0, 1, 3).reshape(1, 3),
        "none": np.zeros(0, dtype="<f4"),
    }
    message = Message("update", {"run": "r"}, arrays)
    data = memoryview(to_bytes(message))
    monkeypatch.setattr("hansa.wire.array_sha256", None)
    got = in_place(message, data)
    assert got == message
    for name, array in arrays.items():
        assert np.array_equal(got.arrays[name], array)
        assert got.arrays[name].shape == array.shape
    assert np.shares_memory(got.arrays["b"], np.frombuffer(data, np.uint8))
