"""The arithmetic of each server rule: float64, one rounding per operation, in the order written.

Each operation is one numpy ufunc over a vector, or over a block of it: sum, difference, product, quotient or square root.
Ufuncs round every entry on its own, to nearest even, and never fuse a product with a sum, so the bits of an
entry depend on nothing but its own inputs. There is no power function, no sum over entries, no linear algebra
here: their bits differ between machines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from hansa.agreement.rules import INDIVIDUAL_UPDATE_RULES, SUPPORTED_RULES
from hansa.agreement.terms import ServerRule
from hansa.errors import UnsupportedRuleError
from hansa.vectors import Vector


@dataclass(frozen=True)
class Moving:
    """What a rule reads and writes: the model and the rule's own part of the state.

    Attributes:
        weights: float64 `[d]`.
        first_moment, second_moment: float64 `[d]` where the rule keeps them.
        beta_1_power, beta_2_power: of FedAdam and AdamW.
    """

    weights: Vector
    first_moment: Vector | None = None
    second_moment: Vector | None = None
    beta_1_power: float | None = None
    beta_2_power: float | None = None


def _fedavg(_rule: ServerRule, rate: float, now: Moving, update: Vector) -> Moving:
    return Moving(now.weights + rate * update)


def _fedavgm(rule: ServerRule, rate: float, now: Moving, update: Vector) -> Moving:
    velocity = rule.momentum * _kept(now.first_moment) + update
    return Moving(now.weights + rate * velocity, first_moment=velocity)


def _fedadam(rule: ServerRule, rate: float, now: Moving, update: Vector) -> Moving:
    power_1 = _kept_power(now.beta_1_power) * rule.beta_1
    power_2 = _kept_power(now.beta_2_power) * rule.beta_2
    first = _first_moment(rule, now, update)
    second = rule.beta_2 * _kept(now.second_moment) + (1.0 - rule.beta_2) * (update * update)
    corrected = rate * math.sqrt(1.0 - power_2) / (1.0 - power_1)
    return Moving(_adapted(rule, corrected, now.weights, first, second), first, second, power_1, power_2)


def _fedyogi(rule: ServerRule, rate: float, now: Moving, update: Vector) -> Moving:
    square = update * update
    first = _first_moment(rule, now, update)
    before = _kept(now.second_moment)
    # the sign is exactly -1, 0 or 1 and so is never rounded
    second = before - ((1.0 - rule.beta_2) * square) * np.sign(before - square)
    return Moving(_adapted(rule, rate, now.weights, first, second), first, second)


def _fedadagrad(rule: ServerRule, rate: float, now: Moving, update: Vector) -> Moving:
    second = _kept(now.second_moment) + update * update
    return Moving(_adapted(rule, rate, now.weights, update, second), second_moment=second)


def _adamw(rule: ServerRule, rate: float, now: Moving, update: Vector) -> Moving:
    power_1, power_2 = _kept_power(now.beta_1_power), _kept_power(now.beta_2_power)
    first = _first_moment(rule, now, update)
    second = rule.beta_2 * _kept(now.second_moment) + (1.0 - rule.beta_2) * (update * update)
    kept = (1.0 - rate * rule.weight_decay) * now.weights
    size = np.sqrt(second) / math.sqrt(1.0 - power_2) + rule.tau
    weights: Vector = kept + (rate / (1.0 - power_1) * first) / size
    return Moving(weights, first, second, power_1 * rule.beta_1, power_2 * rule.beta_2)


def _first_moment(rule: ServerRule, now: Moving, update: Vector) -> Vector:
    moment: Vector = rule.beta_1 * _kept(now.first_moment) + (1.0 - rule.beta_1) * update
    return moment


def _adapted(rule: ServerRule, rate: float, weights: Vector, direction: Vector, second: Vector) -> Vector:
    moved: Vector = weights + (rate * direction) / (np.sqrt(second) + rule.tau)
    return moved


@dataclass(frozen=True)
class Arithmetic:
    """One rule: what it keeps between rounds, and its step.

    Attributes:
        first_moment, second_moment, beta_powers: whether the state holds them.
        move: `(rule, this round's learning rate, before, mean update) -> after`.
    """

    move: Callable[[ServerRule, float, Moving, Vector], Moving]
    first_moment: bool = False
    second_moment: bool = False
    beta_powers: bool = False


ARITHMETIC: Mapping[str, Arithmetic] = {
    "fedavg": Arithmetic(_fedavg),
    "fedavgm": Arithmetic(_fedavgm, first_moment=True),
    "fedadam": Arithmetic(_fedadam, first_moment=True, second_moment=True, beta_powers=True),
    "fedyogi": Arithmetic(_fedyogi, first_moment=True, second_moment=True),
    "fedadagrad": Arithmetic(_fedadagrad, second_moment=True),
    "adamw": Arithmetic(_adamw, first_moment=True, second_moment=True, beta_powers=True),
}


def refuse_if_unsupported(rule_name: str) -> None:
    """Refuse a rule that the mean update alone cannot serve.

    Raises:
        UnsupportedRuleError: the rule reads individual updates, or is not known.
    """
    if rule_name in SUPPORTED_RULES:
        return
    remedy = f"Use one of {', '.join(SUPPORTED_RULES)}."
    if rule_name in INDIVIDUAL_UPDATE_RULES:
        raise UnsupportedRuleError(
            f"{rule_name!r} reads every member's own update, which a sum over members never shows",
            remedy=remedy,
        )
    raise UnsupportedRuleError(f"{rule_name!r} is not a server rule that this release knows", remedy=remedy)


def _kept(moment: Vector | None) -> Vector:
    if moment is None:
        raise TypeError("a state without the moment that its rule keeps")  # `step` has checked
    return moment


def _kept_power(power: float | None) -> float:
    if power is None:
        raise TypeError("a state without the power that its rule keeps")  # `step` has checked
    return power
