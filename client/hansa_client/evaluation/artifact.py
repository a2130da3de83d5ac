"""Scoring the file that would ship on a member's own records: the file as data, in a process behind walls."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hansa.artifact import Limits, run_confined
from hansa.canonical import sha256_hex
from hansa.errors import ModelMismatchError
from hansa.models.tokenizer import trim_padding
from hansa_client.data import Dataset


def score_artifact(
    model: bytes,
    sha256: str,
    dataset: Dataset,
    *,
    classes: int,
    limits: Limits | None = None,
    allow_unprotected: bool = True,
) -> npt.NDArray[np.float32]:
    """Scores of every record.

    Args:
        model: the ONNX file as it came.
        sha256: of the file that the evaluation is about; what is evaluated is what ships.
        dataset: the member's evaluation records.
        classes: of the task.
        limits: of the run.
        allow_unprotected: whether to run where the machine cannot put up every wall; a member's own policy.

    Returns:
        float32 ``[records, classes]``, finite. Private: it never leaves the member, only noised counts of it do.

    Guarantees: the process that runs the file gets inputs alone, no labels, groups, ids, keys, ledger or network.
    Leaks: nothing.

    Raises:
        ModelMismatchError: the file is another one.
        ModelFileError: it holds what is not run.
        ConfinedRunError: no scores within the limits, or a wall is missing that policy asks for: then nothing ran.
    """
    if sha256_hex(model) != sha256:
        raise ModelMismatchError("the file to evaluate is not the one that would ship")
    inputs = dict(dataset.inputs)
    if "attention_mask" in inputs:
        inputs = trim_padding(inputs)
    return run_confined(model, inputs, classes=classes, limits=limits, all_walls=not allow_unprotected).scores
