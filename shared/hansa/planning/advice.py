"""One recommendation out of a plan, and why."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hansa.planning.options import Option, Plan

WORTHWHILE = 0.9  # of the best signal that a cheaper or more familiar option must reach to be preferred


@dataclass(frozen=True)
class Advice:
    """What a plan comes to.

    Attributes:
        option: what to agree on; `None` where nothing is within reach.
        reason: in sentences.
    """

    option: Option | None
    reason: str


def advise(plan: Plan, *, epsilon_any: float | None = None) -> Advice:
    """The option to agree on.

    Of all options that draw each unit no more often than agreed, the one that is nearest to the agreed steps and rate and keeps
    at least 90 % of the best signal-to-noise of a run; of two as near, the one with fewer bytes.

    Args:
        epsilon_any: the most that may be spent against everyone, where members set a limit to that too.
    """
    reachable = [one for one in plan.options if one.unreachable is None]
    if not reachable:
        told = plan.options[0].unreachable
        return Advice(None, f"No combination can be agreed. The first one: {told}.")
    allowed = [one for one in reachable if epsilon_any is None or (one.epsilon_any or 0.0) <= epsilon_any]
    if not allowed:
        least = min(one.epsilon_any or math.inf for one in reachable)
        return Advice(
            None,
            f"No option keeps ε against everyone at {epsilon_any:g}; the least is {least:.3g}.",
        )
    _, steps, rate = plan.agreed
    epochs = max(steps * rate, min(one.epochs for one in allowed)) * (1 + 1e-9)
    candidates = [one for one in allowed if one.epochs <= epochs]
    best = max(_signal(one) for one in candidates)
    chosen = min(
        (one for one in candidates if _signal(one) >= WORTHWHILE * best),
        key=lambda one: (_distance(one, steps, rate), one.upload_bytes, -_signal(one)),
    )
    return Advice(chosen, " ".join(_reasons(plan, chosen, reachable, epsilon_any)))


def _signal(option: Option) -> float:
    return option.run_signal_to_noise or 0.0


def _distance(option: Option, steps: int, rate: float) -> float:
    return round(abs(math.log(option.steps / steps)) + abs(math.log(option.sampling_rate / rate)), 9)


def _reasons(plan: Plan, chosen: Option, reachable: list[Option], epsilon_any: float | None) -> list[str]:
    where = f"{chosen.mechanism} noise, {chosen.steps} steps at rate {chosen.sampling_rate:g}"
    told = [f"{where}: its run has a signal-to-noise of {_signal(chosen):.3g}"]
    other = next(
        (
            one
            for one in reachable
            if (one.mechanism != chosen.mechanism)
            and (one.steps, one.sampling_rate) == (chosen.steps, chosen.sampling_rate)
        ),
        None,
    )
    if other is None:
        told[0] += "; the other mechanism cannot be agreed here."
    else:
        ratio = _signal(chosen) / _signal(other)
        told[0] += f", {ratio:.2f} times that of {other.mechanism} noise with the same steps and rate."
    agreed = next(
        (one for one in reachable if (one.mechanism, one.steps, one.sampling_rate) == plan.agreed), None
    )
    if agreed is not None and agreed not in (chosen, other):
        told.append(f"As agreed now it is {_signal(agreed):.3g}.")
    if chosen.mechanism == "distributed":
        sums = f"each step is a secure sum, {chosen.sums} of them"
        if other is not None and other.sums != chosen.sums:
            sums += f" where {other.mechanism} noise takes {other.sums}"
        told.append(
            f"The price: {sums}; and ε = {plan.epsilon:g} holds while at most {plan.colluding} of the other members "
            f"collude, while against everyone together it is {chosen.epsilon_any:.3g}."
        )
    elif epsilon_any is not None:
        told.append(
            f"It keeps ε against everyone at {chosen.epsilon_any:.3g}, which is within {epsilon_any:g}."
        )
    return told
