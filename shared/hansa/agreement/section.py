"""What every section of an agreement is: a frozen value whose unknown keys are errors, and the types of its keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from hansa.canonical import Json

Name: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Text: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
Sha256: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count: TypeAlias = Annotated[int, Field(ge=1, le=2**31)]


def as_tuple(value: object) -> object:
    """TOML has lists, and frozen sections hold tuples."""
    return tuple(value) if isinstance(value, list) else value


class Section(BaseModel):
    """A section of the agreement: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    def tree(self) -> dict[str, Json]:
        """The section as plain JSON values, defaults included: what is hashed, and what a file holds."""
        return {name: _tree(getattr(self, name)) for name in type(self).model_fields}


def _tree(value: object) -> Json:
    if isinstance(value, Section):
        return value.tree()
    if isinstance(value, Mapping):
        return {str(key): _tree(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_tree(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} is no value of an agreement")
