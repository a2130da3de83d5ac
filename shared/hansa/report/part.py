"""What all parts of a report have in common."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Interval: TypeAlias = tuple[float, float]
NonNegativeInt: TypeAlias = Annotated[int, Field(ge=0)]
NonNegative: TypeAlias = Annotated[float, Field(ge=0)]
Sha256: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Part(BaseModel):
    """A part of the report: frozen, closed, and without NaN or infinities, which JSON does not have."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, json_schema_serialization_defaults_required=True
    )
