"""From rows of a CSV, or lines of text, to a model's inputs, with the standard library and numpy.

The same rules by which a member encodes its data (`hansa_client.data.encoding`; a property test compares the two), for
people who have neither pandas nor the client.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hansa.agreement.terms import CategoryFeature, NumberFeature, Terms, TextFeature
from hansa.artifact.errors import PredictionInputError
from hansa.errors import Problem

MAX_INPUT_BYTES = 256 * 1024 * 1024
_MOST_TOLD = 10
_WHOLE_NUMBER = re.compile(r"(?:\+(?=\d))?(-?\d+)(?:\.0*)?")

Rows = Sequence[Mapping[str, str]]


def read_rows(path: Path, terms: Terms) -> Rows:
    """Rows to predict on.

    Args:
        path: a CSV in UTF-8 with a header that names the features; or, for a model of one text, any other file with a
            text a line.
        terms: the agreement's.

    Raises:
        PredictionInputError: it cannot be read, or lacks columns.
    """
    try:
        if path.stat().st_size > MAX_INPUT_BYTES:
            raise PredictionInputError(
                f"cannot read {path}", [Problem(path.name, f"has more than {MAX_INPUT_BYTES:,} bytes")]
            )
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8"
        raise PredictionInputError(f"cannot read {path}", [Problem(path.name, reason)]) from None
    names = [feature.name for feature in terms.data.features]
    texts = [feature.name for feature in terms.data.features if isinstance(feature, TextFeature)]
    if len(names) == len(texts) == 1 and path.suffix.lower() != ".csv":
        return [{names[0]: line} for line in content.splitlines() if line.strip()]
    reader = csv.DictReader(io.StringIO(content, newline=""), strict=True)
    try:
        header = reader.fieldnames or ()
        missing = [Problem(name, "is no column of the file") for name in names if name not in header]
        if missing or len(set(header)) != len(header):
            raise PredictionInputError(
                f"{path} does not fit the agreement", missing or [Problem(path.name, "names a column twice")]
            )
        rows = [{name: (row[name] or "").strip() for name in names} for row in reader]
    except csv.Error as error:
        raise PredictionInputError(
            f"{path} is no CSV", [Problem(f"line {reader.line_num}", str(error))]
        ) from None
    return rows


def encode_table(rows: Rows, terms: Terms) -> npt.NDArray[np.float32]:
    """Rows as the model's table, float32 ``[rows, width]``, every entry finite.

    Raises:
        PredictionInputError: a value is missing or not valid where the feature's rule would leave the row out: nobody
            gets a score for a row that training would not have read. Says which rows, not their values.
    """
    parts: list[npt.NDArray[np.float32]] = []
    problems: list[Problem] = []
    for feature in terms.data.features:
        cells = [row[feature.name] for row in rows]
        if isinstance(feature, NumberFeature):
            parts.append(_numbers(cells, feature, problems))
        elif isinstance(feature, CategoryFeature):
            parts.append(_categories(cells, feature, problems))
    if problems:
        more = len(problems) - _MOST_TOLD
        told = [*problems[:_MOST_TOLD], *([Problem("", f"and {more} more")] if more > 0 else [])]
        raise PredictionInputError("some rows cannot be predicted on", told)
    return (
        np.concatenate(parts, axis=1) if rows else np.zeros((0, sum(p.shape[1] for p in parts)), np.float32)
    )


def encode_texts(rows: Rows, terms: Terms, tokenizer: str) -> dict[str, npt.NDArray[Any]]:
    """Texts as token ids, cut to the longest of them: ``input_ids`` and ``attention_mask``, int64 ``[rows, length]``.

    Args:
        rows: see `read_rows`.
        terms: with one text feature.
        tokenizer: the package's ``tokenizer.json``, truncation and padding in it.

    Raises:
        PredictionInputError: a text is empty where the feature's rule would leave the row out.
    """
    from tokenizers import Tokenizer

    feature = next(f for f in terms.data.features if isinstance(f, TextFeature))
    texts = [row[feature.name] for row in rows]
    if feature.missing == "drop":
        empty = [f"row {i}" for i, text in enumerate(texts, 1) if not text.strip()]
        if empty:
            raise PredictionInputError(
                "some rows cannot be predicted on",
                [Problem(place, f"{feature.name} is empty") for place in empty[:_MOST_TOLD]],
            )
    encoded = Tokenizer.from_str(tokenizer).encode_batch(texts)
    shape = (len(encoded), len(encoded[0].ids) if encoded else 1)
    ids = np.array([e.ids for e in encoded], dtype=np.int64).reshape(shape)
    mask = np.array([e.attention_mask for e in encoded], dtype=np.int64).reshape(shape)
    mask[:, :1] = 1
    longest = max(1, int(mask.sum(axis=1).max())) if len(encoded) else 1
    return {"input_ids": ids[:, :longest], "attention_mask": mask[:, :longest]}


def _numbers(
    cells: Sequence[str], feature: NumberFeature, problems: list[Problem]
) -> npt.NDArray[np.float32]:
    low, high = feature.range
    values = np.array([_number(cell) for cell in cells], dtype=np.float64)
    absent = np.isnan(values)
    if feature.missing == "drop":
        problems += [Problem(f"row {i + 1}", f"{feature.name} is no number") for i in np.flatnonzero(absent)]
    else:
        values = np.where(absent, float(feature.missing), values)
    share = (np.clip(values, low, high) / 2 - low / 2) / (high / 2 - low / 2)
    encoded: npt.NDArray[np.float32] = (2 * share - 1).astype(np.float32)[:, None]
    return encoded


def _number(cell: str) -> float:
    """A finite number, or NaN."""
    try:
        value = float(cell) if "_" not in cell else math.nan
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def _categories(
    cells: Sequence[str], feature: CategoryFeature, problems: list[Problem]
) -> npt.NDArray[np.float32]:
    exact = set(feature.values)
    plain = {_plain(value): value for value in feature.values}
    place = {value: i for i, value in enumerate(feature.inputs)}
    encoded = np.zeros((len(cells), feature.width), dtype=np.float32)
    for i, cell in enumerate(cells):
        value = cell if cell in exact else plain.get(_plain(cell))
        if value is None and feature.missing == "drop":
            problems.append(Problem(f"row {i + 1}", f"{feature.name} is no declared value"))
            continue
        if value is None:
            at = len(feature.inputs) - 1 if feature.missing == "own" else place.get(feature.missing, -1)
        else:
            at = place.get(value, -1)
        if at >= 0:
            encoded[i, at] = 1.0
    return encoded


def _plain(text: str) -> str:
    """A code in the one spelling that codes are compared in: ``1.0`` and ``+1`` are ``1``."""
    whole = _WHOLE_NUMBER.fullmatch(text)
    return whole.group(1) if whole else text
