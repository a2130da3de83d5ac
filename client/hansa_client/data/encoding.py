"""From records to a model's inputs, by the agreement's public ranges and vocabularies alone.

Whether a record is used, and what it becomes, depends on that record (and on its unit, for the cap) and on
nothing else: adding or removing a unit changes no other unit's records, which is what the accounting assumes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hansa.agreement.terms import (
    BandGroup,
    CategoryFeature,
    Feature,
    Group,
    NumberFeature,
    Terms,
    TextFeature,
)
from hansa_client.data.cells import Cells, Integers, Mask, codes, numbers, plain_code
from hansa_client.data.dataset import Dataset
from hansa_client.data.records import Records

Tokenize: TypeAlias = Callable[[Sequence[str]], Mapping[str, npt.NDArray[Any]]]
"""Texts in, arrays by name out, first axis = texts; ``input_ids`` and ``attention_mask`` among them."""

_log = logging.getLogger(__name__)


def encode(records: Records, terms: Terms, tokenize: Tokenize | None) -> Dataset:
    """Encode records for a model.

    A number is scaled from its public range to [-1, 1] and clipped to it. A category becomes one input for each
    of `CategoryFeature.inputs`. What is missing, no finite number, or outside a vocabulary follows the
    feature's missing rule. Records without a declared label, and under ``unit = "patient"`` without a unit, are
    left out; so are a unit's records after the first `Privacy.max_records_per_unit` that can be used, in the
    order of the source.

    Args:
        records: of one member.
        terms: the agreement's.
        tokenize: needed for text features.

    Returns:
        The dataset, with what was left out counted for the member alone. Every input is finite.

    Guarantees: no statistic of the data enters an encoded value; each unit is treated by itself.
    Assumes: `records` hold each of a patient's records under one unit id.
    Leaks: nothing; counts go to the member's local log.

    Raises:
        ValueError: a text feature and no tokenizer, or a tokenizer whose arrays do not fit the texts.
    """
    usable = usable_records(records, terms)
    kept = records.take(usable.rows)
    ids, units = _units(kept, terms)
    within = _within_cap(units, terms.privacy.max_records_per_unit)
    left_out = dict(usable.left_out)
    if not within.all():
        left_out["over the cap of records per unit"] = int((~within).sum())
    for reason, count in left_out.items():
        _log.info("%d of %d records left out: %s", count, len(records), reason)
    kept, units = kept.take(within), units[within]
    return Dataset(
        inputs=_inputs(kept, terms, tokenize),
        labels=codes(kept.columns[terms.data.label], terms.task.labels).values,
        units=units,
        unit_ids=ids,
        groups={group.name: group_codes(kept.columns[group.name], group) for group in terms.data.groups},
        left_out=left_out,
    )


@dataclass(frozen=True, eq=False)
class Usable:
    """Which records can be used.

    Attributes:
        rows: [n] bool.
        left_out: reason to the number of records that it concerns; a record may have several reasons.
    """

    rows: Mask
    left_out: Mapping[str, int]


def usable_records(records: Records, terms: Terms) -> Usable:
    """Decide for each record by itself whether it can be used; see `encode`."""
    reasons: dict[str, Mask] = {}
    label = records.columns[terms.data.label]
    reasons[f"{terms.data.label} is missing"] = label.missing
    reasons[f"{terms.data.label} is not declared"] = codes(label, terms.task.labels).undeclared
    if terms.privacy.unit == "patient" and terms.data.unit is not None:
        reasons[f"{terms.data.unit} is missing"] = records.columns[terms.data.unit].missing
    for feature in terms.data.features:
        if feature.missing == "drop":
            reasons[f"{feature.name} is missing or not valid"] = ~has_value(
                records.columns[feature.name], feature
            )
    rows = ~np.any(np.stack(list(reasons.values())), axis=0)
    return Usable(rows, {reason: int(mask.sum()) for reason, mask in reasons.items() if mask.any()})


def has_value(cells: Cells, feature: Feature) -> Mask:
    """Which cells hold something that a feature can take: a finite number, a declared code, a text."""
    if isinstance(feature, NumberFeature):
        return np.isfinite(numbers(cells).values)
    if isinstance(feature, CategoryFeature):
        return codes(cells, feature.values).values >= 0
    return ~cells.missing & np.array([bool(text.strip()) for text in cells.values], dtype=np.bool_)


def unit_names(records: Records, terms: Terms) -> list[str]:
    """Each record's privacy unit by id: its patient, or its row where the unit is the record."""
    if terms.privacy.unit == "record" or terms.data.unit is None:
        return [str(position) for position in records.positions.tolist()]
    return [plain_code(value) for value in records.columns[terms.data.unit].as_text().values]


def _units(records: Records, terms: Terms) -> tuple[tuple[str, ...], Integers]:
    """Unit ids in order of appearance, and each record's unit as a place among them."""
    names = unit_names(records, terms)
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return tuple(places), np.array([places[name] for name in names], dtype=np.int64)


def _within_cap(units: Integers, cap: int) -> Mask:
    """The first `cap` records of each unit, in order."""
    order = np.argsort(units, kind="stable")
    ranked = units[order]
    starts = np.searchsorted(ranked, ranked, side="left")
    within = np.empty(len(units), dtype=np.bool_)
    within[order] = np.arange(len(units)) - starts < cap
    return within


def group_codes(cells: Cells, group: Group) -> npt.NDArray[np.int16]:
    """Each record's place among a group's values, -1 where it belongs to none."""
    if not isinstance(group, BandGroup):
        return codes(cells, group.values).values.astype(np.int16)
    values = numbers(cells).values
    bands = np.searchsorted(np.array(group.edges, dtype=np.float64), values, side="right")
    return np.where(np.isfinite(values), bands, -1).astype(np.int16)


def _inputs(records: Records, terms: Terms, tokenize: Tokenize | None) -> dict[str, npt.NDArray[Any]]:
    parts: list[npt.NDArray[np.float32]] = []
    inputs: dict[str, npt.NDArray[Any]] = {}
    for feature in terms.data.features:
        cells = records.columns[feature.name]
        if isinstance(feature, NumberFeature):
            parts.append(_scaled(cells, feature))
        elif isinstance(feature, CategoryFeature):
            parts.append(_one_hot(cells, feature))
        else:
            inputs |= _tokens(cells, feature, tokenize)
    if parts:
        table = np.ascontiguousarray(np.concatenate(parts, axis=1), dtype=np.float32)
        if not np.isfinite(table).all():
            raise ValueError("an encoded value is not finite")
        inputs["table"] = table
    return inputs


def _scaled(cells: Cells, feature: NumberFeature) -> npt.NDArray[np.float32]:
    low, high = feature.range
    values = numbers(cells).values
    if feature.missing != "drop":
        values = np.where(np.isnan(values), float(feature.missing), values)
    # halves, because high - low may overflow where both are finite
    share = (np.clip(values, low, high) / 2 - low / 2) / (high / 2 - low / 2)
    return (2 * share - 1).astype(np.float32)[:, None]


def _one_hot(cells: Cells, feature: CategoryFeature) -> npt.NDArray[np.float32]:
    place = {value: i for i, value in enumerate(feature.inputs)}
    absent = len(feature.inputs) - 1 if feature.missing == "own" else place.get(feature.missing, -1)
    # the last entry serves the code -1; a baseline has no input and stays all zeros
    targets = np.array([*(place.get(value, -1) for value in feature.values), absent], dtype=np.int64)
    target = targets[codes(cells, feature.values).values]
    encoded = np.zeros((len(cells), feature.width), dtype=np.float32)
    rows = np.flatnonzero(target >= 0)
    encoded[rows, target[rows]] = 1.0
    return encoded


def _tokens(cells: Cells, feature: TextFeature, tokenize: Tokenize | None) -> dict[str, npt.NDArray[Any]]:
    if tokenize is None:
        raise ValueError(f"the text feature {feature.name!r} needs a tokenizer")
    texts = ["" if missing else text for text, missing in zip(cells.values, cells.missing, strict=True)]
    arrays = tokenize(texts)
    tokens: dict[str, npt.NDArray[Any]] = {}
    for name, array in arrays.items():
        if array.ndim != 2 or len(array) != len(texts) or not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"the tokenizer gave {name!r} of dtype {array.dtype} and shape {array.shape}")
        tokens[name] = array.astype(np.int8 if name == "attention_mask" else np.int32)
    return tokens
