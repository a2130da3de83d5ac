"""Running a verified package on rows or texts, with ONNX Runtime alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hansa.artifact import contents
from hansa.artifact.confined import Limits, run_confined
from hansa.artifact.encoding import encode_table, encode_texts, read_rows
from hansa.artifact.verifying import VerifiedPackage


@dataclass(frozen=True)
class Predictions:
    """What a package says of rows.

    Attributes:
        labels: the classes, in the order of the columns.
        probabilities: float64 [rows, classes], each row summing to 1.
        unprotected: walls around the run that this machine could not put up.
    """

    labels: tuple[str, ...]
    probabilities: npt.NDArray[np.float64]
    unprotected: tuple[str, ...]

    @property
    def decisions(self) -> list[str]:
        """The most probable class of each row."""
        return [self.labels[i] for i in self.probabilities.argmax(axis=1)] if len(self.probabilities) else []


def predict(package: VerifiedPackage, source: Path, limits: Limits | None = None) -> Predictions:
    """Score every row of a file.

    Args:
        package: verified; the model's bytes are read again and must still have the hash that was verified.
        source: see `hansa.artifact.encoding.read_rows`.
        limits: of the run.

    Raises:
        PredictionInputError: rows do not fit the agreement.
        PackageError: a file was changed since it was verified.
        ConfinedRunError: no scores within the limits.
    """
    terms = package.agreement.terms
    rows = read_rows(source, terms)
    if package.texts:
        inputs = encode_texts(rows, terms, package.read(contents.TOKENIZER).decode())
    else:
        inputs = {"table": encode_table(rows, terms)}
    found = run_confined(package.read(contents.MODEL), inputs, classes=len(terms.task.labels), limits=limits)
    logits = found.scores.astype(np.float64)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True)) if len(logits) else logits
    total = shifted.sum(axis=1, keepdims=True)
    return Predictions(terms.task.labels, shifted / total if len(logits) else shifted, found.unprotected)
