"""What every value of an audit report is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Count: TypeAlias = Annotated[int, Field(ge=0)]
Json: TypeAlias = Mapping[str, object]


class Value(BaseModel):
    """A part of the report: frozen, closed, and without NaN or infinities, which JSON does not have."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Spot(Value):
    """An entry of a log.

    Attributes:
        log: ``federation``, or ``members/NAME``.
        entry: its place, from 0.
        leaf: its hash in the tree, by which copies of it are found in other logs.
    """

    log: str
    entry: Count
    leaf: str
