"""The server's learning rate in each round: warm-up, then constant, linear or along half a cosine.

A schedule is a rational number between 0 and 1 for each round, found with whole numbers alone. The rate is the product
of that number and the agreed rate, taken exactly and rounded once to float64. No library's cosine is asked, since the
last bits of those differ between machines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction

from hansa.agreement.terms import ServerRule
from hansa.errors import ServerStateError

_BITS = 128
_ONE = 1 << _BITS
_PI = 0x3243F6A8885A308D313198A2E03707344  # ⌊π · 2^128⌋


def learning_rate(rule: ServerRule, number: int, rounds: int) -> float:
    """The rate of one round, the same bits on every machine.

    Args:
        rule: the agreement's server rule.
        number: of the round, from 0.
        rounds: of the whole run.

    Raises:
        ServerStateError: the run has no such round, or its warm-up has no end.
    """
    return float(Fraction(rule.learning_rate) * factor(rule, number, rounds))


def factor(rule: ServerRule, number: int, rounds: int) -> Fraction:
    """By what the agreed rate is multiplied in a round, in (0, 1]; as `learning_rate`."""
    warmup = rule.warmup_rounds
    if not 0 <= number < rounds or warmup >= rounds:
        raise ServerStateError(
            f"a schedule of {rounds} rounds, {warmup} of them to warm up, has no round {number}"
        )
    if number < warmup:
        return Fraction(number + 1, warmup)
    end = Fraction(rule.end_factor)
    return end + (1 - end) * _SHAPES[rule.schedule](number - warmup, rounds - warmup)


def _constant(_number: int, _rounds: int) -> Fraction:
    return Fraction(1)


def _linear(number: int, rounds: int) -> Fraction:
    return Fraction(rounds - number, rounds)


def _half_cosine(number: int, rounds: int) -> Fraction:
    """(1 + cos(π · number / rounds)) / 2, by way of ⌊cosines⌋ of the first quarter in units of 2^-128."""
    if 2 * number > rounds:
        return Fraction(_ONE - _cosine(rounds - number, rounds), 2 * _ONE)
    return Fraction(_ONE + _cosine(number, rounds), 2 * _ONE)


def _cosine(number: int, rounds: int) -> int:
    """cos(π · number / rounds) · 2^128 for an angle of at most a quarter, by Taylor's series, to about 2^-122.

    All terms are whole numbers above 0 and each division is rounded down, so that there is one answer.
    """
    angle = _PI * number // rounds
    square = (angle * angle) >> _BITS
    total, term, order = 0, _ONE, 0
    while term:
        total += term if order % 4 == 0 else -term
        term = ((term * square) >> _BITS) // ((order + 1) * (order + 2))
        order += 2
    return total


_SHAPES: Mapping[str, Callable[[int, int], Fraction]] = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _half_cosine,
}
