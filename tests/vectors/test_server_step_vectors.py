"""Known answers of the server step, and a second implementation of it that checks them.

The second implementation is in exact rational arithmetic, rounded once per operation, one entry at a time: it
shares neither numpy nor the processor's floating-point unit with the first. Run as a script, this file writes
the vectors from it, so `server_step.json` was never computed by the code that it tests.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rfc8785

from hansa.agreement.rules import SUPPORTED_RULES
from hansa.agreement.terms import ServerRule
from hansa.errors import HansaError
from hansa.server_step import ServerState, initial_state, published_weights, step

VECTORS = Path(__file__).parent / "server_step.json"
FILE = json.loads(VECTORS.read_text()) if VECTORS.exists() else {"cases": [], "refused": []}
CASES = {case["name"]: case for case in FILE["cases"]}
REFUSED = {case["name"]: case for case in FILE["refused"]}


# --- the specification once more, in exact arithmetic -------------------------------------------------------


def _rounded(exact: Fraction, native: float) -> float:
    """The double nearest to `exact`, ties to even; the sign of a zero is the native operation's."""
    value = exact.numerator / exact.denominator  # CPython rounds the quotient of two integers correctly
    return value or native


def add(a: float, b: float) -> float:
    return _rounded(Fraction(a) + Fraction(b), a + b)


def sub(a: float, b: float) -> float:
    return _rounded(Fraction(a) - Fraction(b), a - b)


def mul(a: float, b: float) -> float:
    return _rounded(Fraction(a) * Fraction(b), a * b)


def div(a: float, b: float) -> float:
    return _rounded(Fraction(a) / Fraction(b), a / b)


def sqrt(a: float) -> float:
    if not a:
        return a
    numerator, denominator = a.as_integer_ratio()
    if denominator.bit_length() % 2 == 0:  # an odd power of two has no exact root
        numerator, denominator = 2 * numerator, 2 * denominator
    wide = numerator << 1400  # enough digits for any double, then one more that says whether any were cut off
    root = math.isqrt(wide)
    root = 2 * root + (root * root != wide)
    return root / (math.isqrt(denominator) << 701)


def scheduled(rule: Mapping[str, Any], number: int, rounds: int) -> Fraction:
    """The share of the rate in a round, to 60 digits."""
    warmup, end = rule.get("warmup_rounds", 0), Fraction(rule.get("end_factor", 0))
    if number < warmup:
        return Fraction(number + 1, warmup)
    progress = Fraction(number - warmup, rounds - warmup)
    shape = {
        "constant": lambda: Fraction(1),
        "linear": lambda: 1 - progress,
        "cosine": lambda: (1 + _cosine(_PI * progress)) / 2,
    }[rule.get("schedule", "constant")]()
    return end + (1 - end) * shape


def _arctangent(inverse: int) -> Fraction:
    return sum((Fraction((-1) ** k, (2 * k + 1) * inverse ** (2 * k + 1)) for k in range(60)), Fraction(0))


_PI = 16 * _arctangent(5) - 4 * _arctangent(239)  # Machin's formula


def _cosine(angle: Fraction) -> Fraction:
    angle = angle.limit_denominator(10**60)
    return sum(
        (Fraction((-1) ** k * angle ** (2 * k)) / math.factorial(2 * k) for k in range(40)), Fraction(0)
    )


@dataclass
class Reference:
    """One entry of the model under one rule; `fused` computes a·b + c with one rounding, as it must not."""

    rule: Mapping[str, Any]
    weight: float
    rounds: int
    fused: bool = False
    number: int = 0
    rate: float = 0.0
    first: float = 0.0
    second: float = 0.0
    power_1: float = field(init=False)
    power_2: float = field(init=False)

    def __post_init__(self) -> None:
        self.power_1, self.power_2 = self.rule["beta_1"], self.rule["beta_2"]

    def muladd(self, a: float, b: float, c: float) -> float:
        if self.fused:
            return _rounded(Fraction(a) * Fraction(b) + Fraction(c), a * b + c)
        return add(mul(a, b), c)

    def step(self, update: float) -> None:
        share = scheduled(self.rule, self.number, self.rounds)
        exact = Fraction(self.rule["learning_rate"]) * share
        self.rate = exact.numerator / exact.denominator
        self.number += 1
        getattr(self, self.rule["rule"])(update)

    def fedavg(self, update: float) -> None:
        self.weight = self.muladd(self.rate, update, self.weight)

    def fedavgm(self, update: float) -> None:
        self.first = self.muladd(self.rule["momentum"], self.first, update)
        self.weight = self.muladd(self.rate, self.first, self.weight)

    def fedadam(self, update: float) -> None:
        self.power_1 = mul(self.power_1, self.rule["beta_1"])
        self.power_2 = mul(self.power_2, self.rule["beta_2"])
        rest = mul(sub(1.0, self.rule["beta_2"]), mul(update, update))
        self.second = self.muladd(self.rule["beta_2"], self.second, rest)
        rate = mul(self.rate, sqrt(sub(1.0, self.power_2)))
        self._average(update)
        self._move(div(rate, sub(1.0, self.power_1)), self.first)

    def fedyogi(self, update: float) -> None:
        square = mul(update, update)
        change = mul(sub(1.0, self.rule["beta_2"]), square)
        if self.second > square:
            self.second = sub(self.second, change)
        elif self.second < square:
            self.second = add(self.second, change)
        self._average(update)
        self._move(self.rate, self.first)

    def fedadagrad(self, update: float) -> None:
        self.second = self.muladd(update, update, self.second)
        self._move(self.rate, update)

    def adamw(self, update: float) -> None:
        rest = mul(sub(1.0, self.rule["beta_2"]), mul(update, update))
        self.second = self.muladd(self.rule["beta_2"], self.second, rest)
        self._average(update)
        shrunk = sub(1.0, mul(self.rate, self.rule.get("weight_decay", 0.0)))
        size = add(div(sqrt(self.second), sqrt(sub(1.0, self.power_2))), self.rule["tau"])
        moved = div(mul(div(self.rate, sub(1.0, self.power_1)), self.first), size)
        self.weight = self.muladd(shrunk, self.weight, moved)
        self.power_1 = mul(self.power_1, self.rule["beta_1"])
        self.power_2 = mul(self.power_2, self.rule["beta_2"])

    def _average(self, update: float) -> None:
        rest = mul(sub(1.0, self.rule["beta_1"]), update)
        self.first = self.muladd(self.rule["beta_1"], self.first, rest)

    def _move(self, rate: float, direction: float) -> None:
        moved = div(mul(rate, direction), add(sqrt(self.second), self.rule["tau"]))
        self.weight = add(self.weight, moved)


KEEPS = {
    "fedavg": (),
    "fedavgm": ("first_moment",),
    "fedadam": ("first_moment", "second_moment"),
    "fedyogi": ("first_moment", "second_moment"),
    "fedadagrad": ("second_moment",),
    "adamw": ("first_moment", "second_moment"),
}
POWERS = ("fedadam", "adamw")


def reference_run(case: Mapping[str, Any], *, fused: bool = False) -> list[dict[str, Any]]:
    """Every state of a run, model 0 first, by the reference alone, in the form of the JSON file."""
    rule, rounds = case["rule"], case["rounds"]
    tail = math.ceil(Fraction(case["average_tail"]) * rounds)
    entries = [Reference(rule, float.fromhex(w), rounds, fused) for w in case["weights"]]
    tail_sum: list[float] | None = None
    states = [_state_of(case, entries, 0, tail, tail_sum)]
    for number, update in enumerate(case["mean_updates"], start=1):
        for entry, value in zip(entries, update, strict=True):
            entry.step(float.fromhex(value))
        if number > rounds - tail:
            models = [entry.weight for entry in entries]
            tail_sum = (
                models if tail_sum is None else [add(s, w) for s, w in zip(tail_sum, models, strict=True)]
            )
        states.append(_state_of(case, entries, number, tail, tail_sum))
    return states


def _state_of(
    case: Mapping[str, Any], entries: list[Reference], number: int, tail: int, tail_sum: list[float] | None
) -> dict[str, Any]:
    name = case["rule"]["rule"]
    arrays: dict[str, list[float]] = {"weights": [e.weight for e in entries]}
    if "first_moment" in KEEPS[name]:
        arrays["first_moment"] = [e.first for e in entries]
    if "second_moment" in KEEPS[name]:
        arrays["second_moment"] = [e.second for e in entries]
    if tail_sum is not None:
        arrays["tail_sum"] = tail_sum
    count = max(0, number - (case["rounds"] - tail))
    powers = (entries[0].power_1, entries[0].power_2) if name in POWERS else (None, None)
    header = {
        "version": 1,
        "kind": "server-state",
        "body": {
            "specification": 1,
            "rule_id": hashlib.sha256(rfc8785.dumps(case["rule"])).hexdigest(),
            "round": number,
            "rounds": case["rounds"],
            "tail_rounds": tail,
            "tail_count": count,
            "beta_1_power": powers[0],
            "beta_2_power": powers[1],
        },
        "arrays": {
            key: {
                "dtype": "<f8",
                "shape": [len(values)],
                "sha256": hashlib.sha256(struct.pack(f"<{len(values)}d", *values)).hexdigest(),
            }
            for key, values in arrays.items()
        },
    }
    published = arrays["weights"] if tail_sum is None else [div(s, float(count)) for s in tail_sum]
    return {
        **{key: [value.hex() for value in values] for key, values in arrays.items()},
        "published": [value.hex() for value in published],
        "beta_1_power": None if powers[0] is None else powers[0].hex(),
        "beta_2_power": None if powers[1] is None else powers[1].hex(),
        "tail_count": count,
        "digest": hashlib.sha256(rfc8785.dumps(header)).hexdigest(),
    }


# --- the code under test against the file -------------------------------------------------------------------


def vector(hexadecimal: list[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([float.fromhex(value) for value in hexadecimal])


def as_hex(values: np.ndarray[Any, np.dtype[np.float64]] | None) -> list[str] | None:
    return None if values is None else [float(value).hex() for value in values]


def shown(state: ServerState) -> dict[str, Any]:
    """A state in the form of the JSON file."""
    arrays = {
        "weights": as_hex(state.weights),
        "first_moment": as_hex(state.first_moment),
        "second_moment": as_hex(state.second_moment),
        "tail_sum": as_hex(state.tail_sum),
    }
    return {
        **{name: values for name, values in arrays.items() if values is not None},
        "published": as_hex(published_weights(state)),
        "beta_1_power": None if state.beta_1_power is None else state.beta_1_power.hex(),
        "beta_2_power": None if state.beta_2_power is None else state.beta_2_power.hex(),
        "tail_count": state.tail_count,
        "digest": state.digest(),
    }


def test_the_file_covers_every_rule() -> None:
    assert {case["rule"]["rule"] for case in CASES.values()} == set(SUPPORTED_RULES)
    assert FILE["specification"] == 1
    assert REFUSED


@pytest.mark.parametrize("name", CASES)
def test_every_state_of_a_run_has_the_known_bits(name: str) -> None:
    case = CASES[name]
    rule = ServerRule(**case["rule"])
    state = initial_state(
        rule, vector(case["weights"]), average_tail=float(case["average_tail"]), rounds=case["rounds"]
    )
    assert shown(state) == case["states"][0]
    assert len(case["mean_updates"]) == case["rounds"] == len(case["states"]) - 1
    for update, expected in zip(case["mean_updates"], case["states"][1:], strict=True):
        state = step(rule, state, vector(update))
        assert shown(state) == expected


@pytest.mark.parametrize("name", CASES)
def test_exact_arithmetic_gives_the_known_bits(name: str) -> None:
    assert reference_run(CASES[name]) == CASES[name]["states"]


@pytest.mark.parametrize("name", CASES)
def test_fused_operations_would_be_noticed(name: str) -> None:
    assert reference_run(CASES[name], fused=True)[-1]["digest"] != CASES[name]["states"][-1]["digest"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_must_be_refused_is(name: str) -> None:
    case = REFUSED[name]
    rule = ServerRule(**case["rule"])

    def run() -> None:
        state = initial_state(
            rule, vector(case["weights"]), average_tail=float(case["average_tail"]), rounds=case["rounds"]
        )
        for update in case["mean_updates"]:
            state = step(rule, state, vector(update))

    with pytest.raises(HansaError) as refusal:
        run()
    assert refusal.value.code == case["code"]


@pytest.mark.parametrize(
    ("value", "root"),
    [(2.0, math.sqrt(2.0)), (5e-324, math.sqrt(5e-324)), (1e308, math.sqrt(1e308)), (9.0, 3.0), (0.0, 0.0)],
)
def test_the_reference_root_is_right_at_the_ends_of_the_range(value: float, root: float) -> None:
    assert sqrt(value) == root


# --- writing the file ---------------------------------------------------------------------------------------

DEFAULTS = ServerRule().tree()
SPECIAL_WEIGHTS = [0.0, -0.0, 1e-310, -5e-324, 1e300, -1 / 3, 1e16, math.pi]
SPECIAL_UPDATES = [5e-324, -1e-200, 1e150, -1e-310, 1e290, 0.1, -1.0, 0.0]


def _case(name: str, seed: int, average_tail: str, rounds: int, **rule: Any) -> dict[str, Any]:
    generator = np.random.default_rng(
        seed
    )  # public numbers of every size, with all bits of the fraction in use
    sizes: Callable[[], Any] = lambda: generator.normal(size=8) * 10.0 ** generator.integers(-1, 2, size=8)  # noqa: E731
    weights = [*SPECIAL_WEIGHTS, *sizes()]
    # squares of the special updates must stay finite for the rules that keep a second moment
    special = [min(update, 1e150) for update in SPECIAL_UPDATES]
    updates = [[*np.roll(special, turn), *sizes()] for turn in range(rounds)]
    case: dict[str, Any] = {
        "name": name,
        "rule": {**DEFAULTS, **rule},
        "average_tail": average_tail,
        "rounds": rounds,
        "weights": [float(w).hex() for w in weights],
        "mean_updates": [[float(u).hex() for u in update] for update in updates],
    }
    return {**case, "states": reference_run(case)}


def _refused(
    name: str, code: str, weights: list[str], updates: list[list[str]], **rule: Any
) -> dict[str, Any]:
    return {
        "name": name,
        "code": code,
        "rule": {**DEFAULTS, **rule},
        "average_tail": "0.0",
        "rounds": 2,
        "weights": weights,
        "mean_updates": updates,
    }


def write() -> None:
    """Write the vectors from the reference."""
    one, tenth, huge = (1.0).hex(), (0.1).hex(), (1e200).hex()
    largest = math.ldexp(1.0 - 2.0**-53, 1024).hex()
    cases = [
        _case("fedavg, rate 0.7, no tail", 1, "0.0", 4, rule="fedavg", learning_rate=0.7),
        _case("fedavg, rate 0.3, whole run averaged", 2, "1.0", 4, rule="fedavg", learning_rate=0.3),
        _case("fedavgm, momentum 0.9", 3, "0.5", 5, rule="fedavgm", learning_rate=0.7),
        _case("fedavgm, no momentum", 4, "0.0", 3, rule="fedavgm", learning_rate=0.9, momentum=0.0),
        _case("fedadam, defaults", 5, "0.4", 6, rule="fedadam"),
        _case(
            "fedadam, other betas", 6, "0.0", 4, rule="fedadam", learning_rate=0.01, beta_1=0.6, beta_2=0.95
        ),
        _case("fedyogi, defaults", 7, "0.4", 6, rule="fedyogi"),
        _case("fedyogi, small tau", 8, "0.07", 5, rule="fedyogi", learning_rate=0.03, tau=1e-9),
        _case("fedadagrad, defaults", 9, "0.4", 6, rule="fedadagrad"),
        _case("fedadagrad, rate 0.1", 10, "0.0", 4, rule="fedadagrad", learning_rate=0.1, tau=0.01),
        _case("adamw, no decay", 11, "0.4", 6, rule="adamw", learning_rate=0.1),
        _case(
            "adamw, decay, warm-up, then a cosine", 12, "0.0", 9, rule="adamw", learning_rate=0.03, beta_2=0.999,
            tau=1e-8, weight_decay=0.01, schedule="cosine", warmup_rounds=2, end_factor=0.1,
        ),
        _case(
            "fedavg, warm-up, then linear to nothing", 13, "0.0", 5, rule="fedavg", learning_rate=0.7,
            schedule="linear", warmup_rounds=2,
        ),
    ]  # fmt: skip
    refused = [
        _refused("update is infinite", "HANSA-304", [one, one], [[tenth, "inf"]]),
        _refused("update is not a number", "HANSA-304", [one, one], [["nan", tenth]]),
        _refused("update is too short", "HANSA-304", [one, one], [[tenth]]),
        _refused("update is too long", "HANSA-304", [one], [[tenth, tenth]]),
        _refused("weights are infinite", "HANSA-304", ["-inf"], []),
        _refused("no weights", "HANSA-304", [], []),
        _refused("weights overflow", "HANSA-304", [largest], [[largest]]),
        _refused("second moment overflows", "HANSA-304", [one], [[huge]], rule="fedadagrad"),
        _refused("one round too many", "HANSA-304", [one], [[tenth], [tenth], [tenth]]),
        _refused("warm-up longer than the run", "HANSA-304", [one], [[tenth]], rule="adamw", warmup_rounds=2),
        _refused("rule needs individual updates", "HANSA-303", [one], [], rule="krum"),
        _refused("rule is unknown", "HANSA-303", [one], [], rule="fedsgdr"),
    ]
    source = (
        "exact rational arithmetic of tests/vectors/test_server_step_vectors.py; floats are C99 hexadecimal"
    )
    listed = {
        name: ",\n".join(map(json.dumps, items)) for name, items in (("cases", cases), ("refused", refused))
    }
    VECTORS.write_text(
        f'{{"specification": 1, "source": {json.dumps(source)},\n'
        f'"cases": [\n{listed["cases"]}],\n"refused": [\n{listed["refused"]}]}}\n'
    )


if __name__ == "__main__":
    write()
