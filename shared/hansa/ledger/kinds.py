"""The fifteen types of entries, and how one is read.

A member's log holds what it signed, was granted, reserved, released, lost and closed, and attacks on it; the federation's holds
agreements, amendments, aggregates, what adapts to them, evaluations, gates, publications and copies of the members' reservations, releases
and closed runs, byte for byte, so that the coordinator can neither invent a spend nor drop one unnoticed.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError

from hansa.ledger.attacks import AttackMade
from hansa.ledger.errors import EntryError
from hansa.ledger.membership import AgreementSigned, AmendmentMade, Membership
from hansa.ledger.outcomes import Adaptation, Aggregate, Evaluation, Gate, Override, Publication
from hansa.ledger.spends import Abort, BudgetGranted, Release, Reservation, RunClosed

Kind: TypeAlias = Annotated[
    AgreementSigned
    | AmendmentMade
    | Membership
    | BudgetGranted
    | Reservation
    | Release
    | Abort
    | RunClosed
    | Aggregate
    | Evaluation
    | Gate
    | Publication
    | Override
    | AttackMade
    | Adaptation,
    Field(discriminator="type"),
]
_KINDS: TypeAdapter[Kind] = TypeAdapter(Kind)
_JSON: TypeAdapter[Any] = TypeAdapter(Any)
_NESTED = (dict, list)


def parse_entry(data: bytes) -> Kind:
    """Read the JSON of an entry.

    Raises:
        EntryError: it is not canonical JSON of a known type and version; says where.
    """
    try:
        entry = _KINDS.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "the entry"
        raise EntryError(f"an entry cannot be read: {place}: {first['msg']}") from None
    if len(entry.model_fields_set) != len(type(entry).model_fields):
        raise EntryError(f"an entry of type {entry.type!r} does not say all that its type says")
    # What passed has neither floats, nor large integers, nor keys beyond ASCII: for such JSON this is RFC 8785, in a
    # third of the time that writing it takes. Auditors read millions of entries.
    tree = _JSON.validate_json(data)
    if _JSON.dump_json(tree) != data or not _is_sorted(tree):
        raise EntryError(f"an entry of type {entry.type!r} is not in canonical form")
    entry.__dict__["data"] = data
    return entry


def _is_sorted(value: dict[str, Any] | list[Any]) -> bool:
    last = ""
    if isinstance(value, dict):
        for key, item in value.items():
            if key < last or (type(item) in _NESTED and not _is_sorted(item)):
                return False
            last = key
        return True
    return all(_is_sorted(item) for item in value if type(item) in _NESTED)
