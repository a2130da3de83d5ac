"""What every entry of a log is: canonical JSON without floats, of a known type and version.

An entry is what somebody signs, and signed statements hold no floats (`hansa.identity.statement`). Real numbers are
therefore text, the hexadecimal form of IEEE 754 that Python's `float.hex` writes: exact, and one for each number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from hansa.agreement.section import Name, Sha256
from hansa.canonical import sha256_hex
from hansa.identity.errors import SignatureError
from hansa.identity.keys import load_public
from hansa.identity.roster import COORDINATOR
from hansa.identity.statement import statement_bytes
from hansa.ledger.errors import NoteFormatError
from hansa.ledger.note import SignatureType, VerifierKey
from hansa.privacy.events import EventJson, Spend

PURPOSE = "ledger."  # and the type: the purpose of an entry's signatures
_HEX = re.compile(r"-?0x[01]\.[0-9a-f]+p[+-][0-9]+")
_TIME_FORM = "%Y-%m-%dT%H:%M:%SZ"
_MAX_DEPTH = 8  # of an event; those of `dp_accounting` nest two or three deep


def real(value: float) -> str:
    """A real number as entries hold it.

    Raises:
        ValueError: it is infinite or no number.
    """
    if not math.isfinite(value):
        raise ValueError("an entry holds finite numbers")
    return float(value).hex()


@lru_cache(maxsize=4096)  # a run has one noise multiplier and a million entries that name it
def real_value(text: str) -> float:
    """The number that an entry holds as text.

    Raises:
        ValueError: it is not in the one form of any finite number.
    """
    try:
        value = float.fromhex(text) if _HEX.fullmatch(text) else math.nan
    except OverflowError:
        value = math.inf
    if not math.isfinite(value) or value.hex() != text:
        raise ValueError("is not a finite number in hexadecimal, as float.hex writes it")
    return value


def utc(at: datetime) -> str:
    """A time as entries hold it: UTC, to the second."""
    return at.astimezone(UTC).strftime(_TIME_FORM)


def officer_of(member: str) -> str:
    """Under which name the privacy officer of a member signs; no member can have it."""
    return f"{member}#privacy-officer"


def _real(text: str) -> str:
    real_value(text)
    return text


def _positive(text: str) -> str:
    if not real_value(text) > 0:
        raise ValueError("is not above 0")
    return text


def _time(text: str) -> str:
    datetime.fromisoformat(text)
    return text


def _p256(text: str) -> str:
    try:
        load_public(text)
    except SignatureError as error:
        raise ValueError(error.cause) from None
    return text


def _vkey(kind: SignatureType, text: str) -> str:
    try:
        found = VerifierKey.parse(text).kind
    except NoteFormatError as error:
        raise ValueError(error.cause) from None
    if found is not kind:
        raise ValueError(f"is no key of a {kind.name.lower()}")
    return text


Real: TypeAlias = Annotated[str, AfterValidator(_real)]
PositiveReal: TypeAlias = Annotated[str, AfterValidator(_positive)]
Time: TypeAlias = Annotated[
    str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$"), AfterValidator(_time)
]
P256: TypeAlias = Annotated[str, AfterValidator(_p256)]
LogKey: TypeAlias = Annotated[str, AfterValidator(lambda text: _vkey(SignatureType.LOG, text))]
WitnessKey: TypeAlias = Annotated[str, AfterValidator(lambda text: _vkey(SignatureType.WITNESS, text))]
Signature: TypeAlias = Annotated[str, StringConstraints(pattern=r"^(?:[0-9a-f]{2}){8,72}$")]
DatasetId: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Counter: TypeAlias = Annotated[int, Field(ge=0, lt=2**53)]
Ordinal: TypeAlias = Annotated[int, Field(ge=1, lt=2**53)]
Version: TypeAlias = Annotated[int, Field(ge=1, le=1)]  # a literal 1 would take true for it
Names: TypeAlias = Annotated[tuple[Name, ...], Field(max_length=100)]
Short: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Reason: TypeAlias = Annotated[str, StringConstraints(max_length=2000)]
Purpose: TypeAlias = Literal["training", "evaluation", "compression"]
Unit: TypeAlias = Literal["record", "patient"]
Adjacency: TypeAlias = Literal["add-or-remove-one"]


class Part(BaseModel):
    """A part of an entry: frozen, strict, and closed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _event(value: dict[str, JsonValue], depth: int = 0) -> dict[str, JsonValue]:
    if depth == _MAX_DEPTH or not isinstance(value.get("type"), str):
        raise ValueError("is no DP event: an object with a type")
    for key, item in value.items():
        for one in item if isinstance(item, list) else [item]:
            if isinstance(one, dict):
                _event(one, depth + 1)
            elif isinstance(one, str) and key != "type":
                real_value(one)
            elif isinstance(one, float | list) or (isinstance(one, int) and not -(2**53) < one < 2**53):
                raise ValueError(f"{key} holds what no entry holds: real numbers are text")
        if not key.isascii():
            raise ValueError("a DP event has a name that is not ASCII")
    return value


EventText: TypeAlias = Annotated[dict[str, JsonValue], AfterValidator(_event)]


class Spending(Part):
    """DP events that were, or may be, released: `hansa.privacy.events` with its numbers as text.

    Attributes:
        event: a serialised `dp_accounting` event.
        count: how often.
    """

    event: EventText
    count: Ordinal

    @classmethod
    def of(cls, spend: Spend) -> Spending:
        """As an entry holds it."""
        return cls(event=event_text(spend.event), count=spend.count)

    @property
    def spend(self) -> Spend:
        """As the accountant takes it; an event that it does not know is refused there."""
        return Spend(event_value(self.event), self.count)


Spendings: TypeAlias = Annotated[tuple[Spending, ...], Field(max_length=100)]


def event_text(event: EventJson) -> dict[str, JsonValue]:
    """An event as entries hold it: its numbers as text.

    Raises:
        ValueError: a number is infinite or none.
    """
    text: dict[str, JsonValue] = _written(event)
    return text


def event_value(text: Mapping[str, JsonValue]) -> EventJson:
    """The event that an entry holds; the inverse of `event_text`."""
    event: EventJson = _read(text)
    return event


def _written(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _written(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_written(item) for item in value]
    return real(value) if isinstance(value, float) else value


def _read(value: Any, key: str = "") -> Any:
    if isinstance(value, Mapping):
        return {name: _read(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_read(item, key) for item in value]
    return real_value(value) if isinstance(value, str) and key != "type" else value


class Entry(Part):
    """What every entry says.

    Attributes:
        type: what it is.
        version: of its form; a reader refuses one that it does not know.
        at: when its writer's clock said it was written. Order is that of the log, never that of clocks.
    """

    approved: ClassVar[bool] = False  # whether a quorum of members must have signed beside its writer

    type: str
    version: Version = 1
    at: Time

    @property
    def writer(self) -> str:
        """Who must have signed it, by the name in the roster."""
        return COORDINATOR

    @cached_property
    def data(self) -> bytes:
        """Its bytes: RFC 8785."""
        return statement_bytes(self.model_dump(mode="json"))

    @property
    def sha256(self) -> str:
        """SHA-256 of its bytes, by which other entries name it."""
        return sha256_hex(self.data)


class OfAgreement(Entry):
    """An entry under one agreement.

    Attributes:
        agreement_id: of the frozen agreement; its roster says whose signature counts.
    """

    agreement_id: Sha256


class OfRun(OfAgreement):
    """An entry of one run of an agreement.

    Attributes:
        run: its name.
    """

    # whether a member's entries of this type come to the federation's log by themselves, in the order of its own log
    in_turn: ClassVar[bool] = True

    run: Name
