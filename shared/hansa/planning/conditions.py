"""What a league can decide about its model, in words and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from hansa.canonical import Json
from hansa.errors import Problem
from hansa.fairness.beforehand import Outlook

WIDTH = 100


def outlook_text(seen: Outlook | None) -> str:
    """Lines of at most 100 columns: each condition, and whether it could pass."""
    if seen is None:
        return "No public number says on how many records members evaluate: pass --records to see what they can decide."
    head = (
        f"What about {seen.records:,.0f} evaluation records can decide, with noise of {seen.noise_multiplier:.3g} rows a cell and "
        f"member, if the model's quality is {seen.quality:g}:"
    )
    lines = textwrap.wrap(head, WIDTH)
    for part in seen.parts:
        mark = "  " if part.decidable else "! "
        lines += textwrap.wrap(f"{mark}{part.sentence}", WIDTH, subsequent_indent="    ")
    open_ones = sum(not part.decidable for part in seen.parts)
    if open_ones:
        lines += textwrap.wrap(
            f"{open_ones} of {len(seen.parts)} could not pass: their evaluation would cost ε and decide nothing. More records, "
            "more ε, fewer cells or a wider limit would help.",
            WIDTH,
        )
    return "\n".join(lines)


def never_text(never: Sequence[Problem]) -> str:
    """Lines of at most 100 columns about conditions that not even the best model could pass."""
    lines = ["The gate of this agreement can never open, and `hansa agreement check` refuses it:"]
    for problem in never:
        lines += textwrap.wrap(f"! {problem.what}", WIDTH, subsequent_indent="    ")
    return "\n".join(lines)


def outlook_dict(seen: Outlook) -> dict[str, Json]:
    """The same as plain JSON values."""
    return {
        "records": seen.records,
        "quality": seen.quality,
        "noise_multiplier": seen.noise_multiplier,
        "parts": [
            {
                "name": part.name,
                "distance": part.distance,
                "half_width": part.half_width,
                "probability": part.probability,
                "decidable": part.decidable,
            }
            for part in seen.parts
        ],
    }
