"""Canonical JSON against the examples of RFC 8785, and the hashes that rest on it."""

from __future__ import annotations

import hashlib
import json
import struct

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from hansa.canonical import canonical_hash, canonical_json, is_plain, sha256_hex

# RFC 8785, appendix B: IEEE 754 bits and the number as it must be written.
NUMBERS = {
    "0000000000000000": "0",
    "8000000000000000": "0",
    "0000000000000001": "5e-324",
    "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308",
    "ffefffffffffffff": "-1.7976931348623157e+308",
    "4340000000000000": "9007199254740992",
    "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000",
    "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23",
    "44b52d02c7e14af7": "1.0000000000000001e+23",
    "444b1ae4d6e2ef4e": "999999999999999700000",
    "444b1ae4d6e2ef4f": "999999999999999900000",
    "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
    "3eb0c6f7a0b5ed8d": "0.000001",
    "41b3de4355555553": "333333333.3333332",
    "41b3de4355555554": "333333333.33333325",
    "41b3de4355555555": "333333333.3333333",
    "41b3de4355555556": "333333333.3333334",
    "41b3de4355555557": "333333333.33333343",
    "becbf647612f3696": "-0.0000033333333333333333",
    "43143ff3c1cb0959": "1424953923781206.2",
}


@pytest.mark.parametrize(("bits", "text"), NUMBERS.items())
def test_numbers_of_appendix_b(bits, text):
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical_json(number) == text.encode()


@pytest.mark.parametrize("bits", ["7fffffffffffffff", "7ff0000000000000", "fff0000000000000"])
def test_what_appendix_b_calls_errors(bits):
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    with pytest.raises(ValueError, match="JCS"):
        canonical_json([number])


def test_the_sample_of_section_3_2_2():
    value = json.loads(
        r'{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],'
        r' "string": "\u20ac$\u000F\u000aA\u0027\u0042\u0022\u005c\\\"\/",'
        r' "literals": [null, true, false]}'
    )
    expected = (
        r'{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        r'"string":"€$\u000f\nA'
        "'"
        r'B\"\\\\\"/"}'
    )
    assert canonical_json(value) == expected.encode()


def test_members_are_sorted_by_utf_16_code_units():
    # section 3.2.3: by code points, the emoji would come last
    keys = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7}
    assert list(json.loads(canonical_json(keys))) == [
        "\r",
        "1",
        "\u0080",
        "\u00f6",
        "\u20ac",
        "\U0001f600",
        "\ufb33",
    ]


@pytest.mark.parametrize("number", [2**53 - 1, -(2**53) + 1, 0, 1, -1])
def test_integers_that_doubles_hold(number):
    assert canonical_json(number) == str(number).encode()


@pytest.mark.parametrize("number", [2**53, -(2**53), 2**64, 10**30])
def test_integers_beyond_are_refused(number):
    with pytest.raises(ValueError, match="domain"):
        canonical_json({"n": number})


def test_an_integer_and_the_same_double_are_the_same_number():
    assert canonical_json({"epsilon": 1}) == canonical_json({"epsilon": 1.0}) == b'{"epsilon":1}'


def test_a_lone_surrogate_has_no_canonical_form():
    with pytest.raises(ValueError, match="non-UTF-8"):
        canonical_json("\ud800")


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
KEYS = st.text(st.characters(max_codepoint=127))
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXT,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(KEYS, inner),
)


@given(PLAIN)
def test_the_fast_path_writes_the_bytes_of_rfc_8785(value):
    assert is_plain(value)
    assert canonical_json(value) == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "value", [0.5, [1, 2.0], {"a": {"b": 1e300}}, {"ü": 1}, 2**53, [-(2**53)], {1: 2}, {"a": b"x"}, {1}]
)
def test_what_the_standard_library_might_write_otherwise_does_not_take_the_fast_path(value):
    assert not is_plain(value)


@pytest.mark.parametrize("value", [{1: 2}, b"x", {1}, object()], ids=["key", "bytes", "set", "object"])
def test_what_is_not_json_is_refused(value):
    with pytest.raises((TypeError, ValueError)):
        canonical_json(value)


def test_tuples_and_lists_are_arrays():
    assert canonical_json({"a": (1, [2])}) == b'{"a":[1,[2]]}'


def test_known_hashes():
    # the empty string and "abc" of FIPS 180-4
    assert sha256_hex(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sha256_hex(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_hash_is_of_the_canonical_bytes():
    assert canonical_hash({"b": 1, "a": "ü"}) == hashlib.sha256('{"a":"ü","b":1}'.encode()).hexdigest()
    assert canonical_hash({"b": 1, "a": "ü"}) == canonical_hash({"a": "ü", "b": 1})
    assert canonical_hash({"a": 1}) != canonical_hash({"a": "1"})
