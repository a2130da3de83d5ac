"""Numbers and names as a person reads them, the same in the terminal and on the page."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal

from hansa.canonical import canonical_json
from hansa.report.part import Interval
from hansa.report.schema import Report

ABSENT = "–"

_METRICS: Mapping[str, str] = {"accuracy": "accuracy", "balanced-accuracy": "balanced accuracy", "auc": "AUC"}
_MECHANISMS: Mapping[str, str] = {
    "local": "local noise, added by each member for itself",
    "distributed": "distributed noise, a share from each member",
    "none": "no privacy mechanism",
}


def metric(name: str) -> str:
    """A metric's name inside a sentence."""
    return _METRICS.get(name, name)


def sentence_start(text: str) -> str:
    """The text with its first letter in upper case; the rest stays as it is."""
    return text[:1].upper() + text[1:]


def mechanism(name: str) -> str:
    """A mechanism in a few words."""
    return _MECHANISMS.get(name, name)


def quality(value: float | None) -> str:
    """A quality with three decimals, or a dash where it could not be measured."""
    return ABSENT if value is None else f"{value:.3f}"


def interval(bounds: Interval | None) -> str:
    """An interval as ``0.779–0.825``."""
    return ABSENT if bounds is None else f"{bounds[0]:.3f}–{bounds[1]:.3f}"


def difference(value: float | None) -> str:
    """A difference of two qualities with its sign; zero has none."""
    if value is None:
        return ABSENT
    rounded = round(value, 3)
    return f"{rounded:+.3f}".replace("-", "−") if rounded else "0.000"


def epsilon(value: float | None) -> str:
    """An ε, rounded up to three decimals, because a smaller number would claim more than was shown."""
    if value is None:
        return "none claimed"
    up = Decimal(repr(round(value, 9))).quantize(Decimal("0.001"), rounding=ROUND_CEILING)
    return f"{up:f}"


def budget(value: float | None) -> str:
    """A budget in ε beside what was released: as a person wrote it, or rounded like `epsilon` where it was computed."""
    if value is None:
        return ABSENT
    return plain(value) if value < 0.001 or round(value, 3) == value else epsilon(value)


def plain(value: float | None) -> str:
    """A number of the agreement as a person would have written it: ``1e-5``, ``0.05``, ``8``."""
    if value is None:
        return ABSENT
    small = 0 < abs(value) < 0.001
    mantissa, mark, exponent = (f"{value:.5e}" if small else f"{value:.6g}").partition("e")
    digits = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{digits}e{int(exponent)}" if mark else digits


def count(value: int) -> str:
    """A count with commas."""
    return f"{value:,}"


def counted(number: int, noun: str, plural: str = "") -> str:
    """A count with its noun: ``1 round``, ``20 rounds``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def amount_bytes(value: int) -> str:
    """Bytes in the largest decimal unit that keeps the number above 1."""
    if value < 1000:
        return f"{value} B"
    size = float(value)
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.5:
            return f"{size:.3g} {unit}"
    return f"{size / 1000:.3g} TB"


def duration(seconds: float) -> str:
    """A wall-clock time: ``3.4 ms``, ``4.2 s``, ``52 s``, ``4 min 12 s``, ``1 h 3 min``."""
    if 0 < seconds < 0.0995:
        return f"{1e3 * seconds:.1f} ms" if seconds < 0.00995 else f"{1e3 * seconds:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def percent(share: float) -> str:
    """A share as a whole percentage, with one decimal below ten."""
    return f"{100 * share:.1f} %" if 0 < share < 0.0995 else f"{100 * share:.0f} %"


def joined(parts: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def short_id(identifier: str) -> str:
    """The first twelve digits of a hash; of a run called ``HASH-SUFFIX`` its suffix too, which tells it from others."""
    if len(identifier) <= 12:
        return identifier
    _, dash, suffix = identifier.partition("-")
    return f"{identifier[:12]}…{dash}{suffix[:12]}"


def clock(created: str) -> str:
    """An ISO 8601 moment as ``2026-03-01 12:00 UTC``; anything else as it stands."""
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return created
    if moment.tzinfo is None:
        return created
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def rounds(report: Report) -> str:
    """How many rounds were finished, and of how many if that was not all: ``14 of 20 rounds``."""
    done, planned = report.rounds, report.rounds_planned
    return counted(done, "round") if done == planned else f"{done:,} of {counted(planned, 'round')}"


def training(report: Report) -> str:
    """What was run, in one line."""
    return f"{rounds(report)}, {counted(report.parameters, 'trained parameter')}, sampling rate {plain(report.sampling_rate)}"


def event(value: Mapping[str, object], unit: str) -> str:
    """A serialised DP event in words; one of an unknown kind stands there as it is."""
    match value:
        case {"type": "Gaussian", "noise_multiplier": int() | float() as sigma}:
            return f"Gaussian noise of {plain(float(sigma))} times the sensitivity"
        case {
            "type": "PoissonSampled",
            "sampling_probability": int() | float() as rate,
            "event": Mapping() as inner,
        }:
            return f"each {unit} drawn with probability {plain(float(rate))}, then {event(inner, unit)}"
        case {
            "type": "TruncatedPoissonSampled",
            "sampling_probability": int() | float() as rate,
            "most_units": int() as units,
            "largest_batch": int() as batch,
            "event": Mapping() as inner,
        }:
            return (
                f"each of at most {counted(units, unit)} drawn with probability {plain(float(rate))}, of more than "
                f"{batch:,} only {batch:,} at random, then {event(inner, unit)}"
            )
        case {"type": "NonPrivate"}:
            return "released without any noise: no privacy"
        case _:
            return canonical_json(value).decode()  # type: ignore[arg-type]  # it came from JSON


def lead(report: Report) -> str:
    """The run in one or two sentences: who trained what, and how good it became."""
    good = report.quality
    text = (
        f"{sentence_start(counted(len(report.members), 'member'))} trained {counted(report.parameters, 'parameter')} in "
        f"{rounds(report)} with {mechanism(report.mechanism)}. "
        f"{sentence_start(metric(good.metric))} is {quality(good.mean_over_members)} as the mean over members"
    )
    first = report.initial_quality
    return f"{text}." if first is None else f"{text}; model 0 had {quality(first.mean_over_members)}."
