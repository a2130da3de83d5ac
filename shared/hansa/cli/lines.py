"""Names and values as aligned lines, the way that commands answer people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def lines(values: Mapping[str, Any]) -> str:
    """Names and values as aligned lines; what is absent is left out."""
    shown = {name.replace("_", " "): value for name, value in values.items() if value not in (None, [])}
    width = max(map(len, shown))
    return "\n".join(f"  {name:<{width}}  {_said(value, 4 + width)}" for name, value in shown.items())


def _said(value: object, indent: int) -> str:
    """A value in a person's words; sentences of a list stand under each other."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_part(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ("\n" + indent * " " if any(" " in item for item in value) else ", ").join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _part(value: object) -> str:
    """A value among others on one line: a number in four digits, or what else it is."""
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{name} {_part(item)}" for name, item in value.items()) + ")"
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)
