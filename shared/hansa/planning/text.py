"""A plan as a person reads it, within 100 columns."""

from __future__ import annotations

import textwrap

from hansa.planning.advice import Advice
from hansa.planning.options import Option, Plan

WIDTH = 100
_COLUMNS = (
    ("mechanism", 11), ("steps", 6), ("rate", 7), ("sums", 6), ("z", 6), ("noise sd", 9), ("S/N step", 9),
    ("S/N run", 8), ("ε all", 7), ("ε few", 7), ("up/member", 10), ("up all", 9),
)  # fmt: skip
_TIME = ("time", 8)

_LEGEND = (
    "z: noise multiplier, of one member's own noise (local) or of the shares promised in every sum (distributed). "
    "noise sd: of the noise in one coordinate of the mean gradient of one step, all members in it.",
    "S/N step: clipping norm / (noise sd · √dimension), the longest mean gradient that clipping allows over the length of "
    "the noise. Gradients are shorter than that, so a step's real signal is below it. S/N run: times √steps. Use them to "
    "compare rows. They do not say how accurate a model gets, nor whether so few steps suffice to learn.",
    "ε all: of the run against everyone together. ε few: against at most {colluding} of the other members and everyone outside.",
    "up: bytes that members send in secure sums over the run.",
)


def plan_text(plan: Plan, advice: Advice) -> str:
    """The table, what its columns mean, and the recommendation; lines of at most 100 columns."""
    timed = any(one.seconds is not None for one in plan.options)
    columns = (*_COLUMNS[:-1], _TIME) if timed else _COLUMNS  # 100 columns hold no more
    head = (
        f"{plan.members} members, {plan.units:,} units, {plan.dimension:,} trained weights; ε = {plan.epsilon:g} at "
        f"δ = {plan.delta:g}; every sum is over {plan.smallest_sum} members or more, {plan.colluding} of them may collude"
    )
    lines = [*textwrap.wrap(head, WIDTH), ""]
    lines.append("  " + "".join(_cell(name, width) for name, width in columns))
    told: dict[str, int] = {}
    for option in plan.options:
        mark = "→ " if option == advice.option else "= " if _agreed(option, plan) else "  "
        cells = _cells(option, timed=timed)
        row = "".join(_cell(value, width) for value, (_, width) in zip(cells, columns, strict=False))
        if option.unreachable is not None:
            row += f"  not possible [{told.setdefault(option.unreachable, len(told) + 1)}]"
        lines.append(mark + row)
    lines.append("")
    for reason, note in told.items():
        lines += textwrap.wrap(f"[{note}] {reason}", WIDTH, subsequent_indent="    ")
    if told:
        lines.append("")
    word = "Recommended" if advice.option is not None else "Nothing to recommend"
    lines += textwrap.wrap(f"→ {word}: {advice.reason}", WIDTH, subsequent_indent="  ")
    lines.append(
        "= As agreed now, where that is another row." if advice.option is not None else "= As agreed now."
    )
    lines.append("")
    for sentence in _LEGEND:
        lines += textwrap.wrap(sentence.format(colluding=plan.colluding), WIDTH, subsequent_indent="  ")
    if timed:
        lines.append(
            "time: of the run's secure sums as measured here, all parties in one process, without gradients."
        )
    return "\n".join(line.rstrip() for line in lines)


def _agreed(option: Option, plan: Plan) -> bool:
    return (option.mechanism, option.steps, option.sampling_rate) == plan.agreed


def _cell(value: str, width: int) -> str:
    return value.ljust(width) if width == _COLUMNS[0][1] else value.rjust(width)


def _cells(option: Option, *, timed: bool) -> list[str]:
    cells = [option.mechanism, str(option.steps), f"{option.sampling_rate:.3g}", str(option.sums)]
    if option.unreachable is not None:
        return cells
    cells += [
        _number(option.noise_multiplier), _number(option.noise_sd), _number(option.signal_to_noise),
        _number(option.run_signal_to_noise), _number(option.epsilon_any), _number(option.epsilon_colluding),
        _bytes(option.upload_bytes_per_member), _bytes(option.upload_bytes),
    ]  # fmt: skip
    return [*cells[:-1], _time(option.seconds)] if timed else cells


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{float(f'{value:.3g}'):.0f}" if 1000 <= value < 1e6 else f"{value:.3g}"


def _bytes(value: int | None) -> str:
    if value is None:
        return ""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value} B"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.3g} s" if seconds < 600 else f"{seconds / 60:.3g} min"
