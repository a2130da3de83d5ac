"""Which of a member's units evaluate: held out of training by a public rule of each unit alone, or of a file of their own.

A record's row in its source is no name for it here: a row that comes or goes moves those after it, and with them half of what
trains. So where the unit is the record, its name is what it holds, and a number among records that hold the same: which of
these has which number is nothing that anybody could see.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hansa.agreement.terms import Terms
from hansa_client.data import Dataset

_DOMAIN = b"hansa evaluation units v1|"
_LOG = logging.getLogger("hansa.node")


def held_out(unit_ids: Sequence[str], key: int, share: float) -> npt.NDArray[np.bool_]:
    """Which units evaluate and do not train: bool [units].

    A unit is held out if the first 53 bits of HMAC-SHA-256 of its id (RFC 2104) under the public key, as a number in [0, 1),
    are below the share.

    Guarantees: what becomes of a unit follows from its own id alone, so that no unit is in both parts, and adding or
        removing one moves no other.
    """
    secret = _DOMAIN + str(key).encode()
    limit = int(share * 2.0**53)
    found = (hmac.digest(secret, unit.encode(), "sha256") for unit in unit_ids)
    return np.array([int.from_bytes(mac[:7], "big") >> 3 < limit for mac in found], dtype=np.bool_)


def record_names(records: Dataset) -> list[str]:
    """A name for each record by what it holds, in their order: inputs without padding, label, groups, and its number among equals.

    Guarantees: the set of names with one record more is the set without it and one name more, wherever it stands.
    """
    masks = records.inputs.get("attention_mask")
    held = Counter[bytes]()
    names = []
    for i in range(len(records)):
        tokens = None if masks is None else int(np.max(np.flatnonzero(masks[i]), initial=-1)) + 1
        told = hashlib.sha256(str(int(records.labels[i])).encode())
        for kind, columns in ((b"input", records.inputs), (b"group", records.groups)):
            for name in sorted(columns):
                value = columns[name][i]
                data = (value if tokens is None or kind == b"group" else value[:tokens]).tobytes()
                told.update(b"|%s|%s|%d|" % (kind, name.encode(), len(data)) + data)
        digest = told.digest()
        held[digest] += 1
        names.append(f"{digest.hex()}:{held[digest]}")
    return names


@dataclass(frozen=True, eq=False)
class Parts:
    """A member's records by what they are for. Never leaves the member.

    Attributes:
        training: what it trains on.
        evaluation: what it evaluates on; `None` where the agreement asks for none, or the member has no such records.
        overlap: units that are in both; 0 under ``held-out``.
    """

    training: Dataset
    evaluation: Dataset | None
    overlap: int = 0


def parted(terms: Terms, records: Dataset, own_file: Dataset | None = None) -> Parts:
    """Share out a member's records.

    Args:
        terms: of the agreement.
        records: what the member has for training.
        own_file: what it has for evaluations alone, under ``own-file``.

    Guarantees: under ``held-out`` no unit is in both, and with one unit more or less no other changes sides. Under ``own-file`` units may be, which the member's own log is told;
        what is charged does not follow from whether they are.
    Assumes: under ``own-file`` ids of the two files mean the same people where they are equal. Where the unit is the record,
        an id is a place in a file and says nothing: the overlap is then not known.
    Leaks: nothing; the count of the overlap goes to the member's local log.
    """
    evaluation = terms.evaluation
    if evaluation is None:
        return Parts(records, None)
    if evaluation.units == "own-file":
        if own_file is None:
            return Parts(records, None)
        if terms.privacy.unit == "record":
            _LOG.warning(
                "records have no ids by which the evaluation's could be found among those of training"
            )
            return Parts(records, own_file)
        both = len(set(records.unit_ids) & set(own_file.unit_ids))
        if both:
            _LOG.warning(
                "%d of %d units of the evaluation also train: what they lose adds up, and was charged so",
                both,
                own_file.number_of_units,
            )
        return Parts(records, own_file, both)
    share = evaluation.share or 0.0
    if terms.privacy.unit == "record":
        out = held_out(record_names(records), evaluation.key, share)
    else:
        out = held_out(records.unit_ids, evaluation.key, share)[records.units]
    return Parts(records.take(np.flatnonzero(~out)), records.take(np.flatnonzero(out)))
