"""Which evaluation a manifest asks for, and whether the agreement allows it: from messages and public terms alone."""

from __future__ import annotations

from collections.abc import Mapping

from hansa.agreement.terms import Terms
from hansa.canonical import sha256_hex
from hansa.errors import BudgetRefusedError, ModelMismatchError, WireError
from hansa.secagg import Manifest
from hansa.wire import Array


def evaluation_number(terms: Terms, manifest: Manifest) -> int:
    """Which of the model's evaluations a manifest asks for, from 1.

    Its step follows those of training: the model is finished before it is judged.

    Raises:
        BudgetRefusedError: the agreement allows fewer.
        WireError: the agreement has none, or the manifest is of a step of training.
    """
    evaluation = terms.evaluation
    if evaluation is None:
        raise WireError("the agreement has no private evaluation")
    number = manifest.step - terms.training.rounds + 1
    if number < 1:
        raise WireError(f"step {manifest.step} is one of training, and no evaluation")
    if number > evaluation.evaluations:
        raise BudgetRefusedError(
            f"evaluation {number} is asked for, and the agreement allows a model {evaluation.evaluations}",
            remedy="What was not agreed before training needs a new agreement.",
        )
    return number


def files_of(terms: Terms, manifest: Manifest, files: Mapping[str, Array]) -> dict[str, bytes]:
    """The files that a manifest names, by their SHA-256, each hashed again here.

    Raises:
        WireError: it names none, or a second one where the agreement compares nothing, or the other way round.
        ModelMismatchError: one of them did not come, or is another one.
    """
    compared = terms.evaluation is not None and terms.evaluation.compared != "none"
    if len(manifest.artifacts) != 1 + compared:
        raise WireError(
            f"the manifest names {len(manifest.artifacts)} files, and an evaluation is of {1 + compared}"
        )
    found = dict[str, bytes]()
    for name in manifest.artifacts:
        data = files[name].tobytes() if name in files else b""
        if sha256_hex(data) != name:
            raise ModelMismatchError(
                "a file to evaluate is missing, or is not the one that the manifest names"
            )
        found[name] = data
    return found
