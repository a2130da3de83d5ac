"""Models handed to `simulate` as objects, held to the same rule as those from entry points."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path

import torch

from hansa.agreement import Terms
from hansa.agreement.terms import CustomModel
from hansa.errors import ModelError
from hansa.models import BuiltModel, checked_model, table_probe


def built_from(module: torch.nn.Module, terms: Terms, device: str) -> BuiltModel:
    """Take a module as the agreement's model.

    Raises:
        ModelError: the agreement's model is not ``custom``, or names another source than the file that defines the
            module's class.
    """
    if not isinstance(terms.model, CustomModel):
        raise ModelError(
            f"the agreement's model is {terms.model.kind}, and another was handed over",
            remedy='Write kind = "custom" and the code_sha256 of the file that defines it.',
        )
    source = inspect.getsourcefile(type(module))
    if source is None:
        raise ModelError(
            f"the source of {type(module).__name__} cannot be found", remedy="Define it in a file."
        )
    found = hashlib.sha256(Path(source).read_bytes()).hexdigest()
    if found != terms.model.code_sha256:
        raise ModelError(
            f"{Path(source).name} has the SHA-256 {found}, and the agreement names {terms.model.code_sha256}",
            remedy="Agree on this source, or use the one that was agreed on.",
        )
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    return checked_model(module.train().to(where), terms, table_probe(terms))
