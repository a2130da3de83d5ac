"""A model of one's own from the entry point group ``hansa.models``, admitted by the hash of its source."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from hansa.agreement.terms import CustomModel
from hansa.errors import ModelError

if TYPE_CHECKING:
    from hansa.agreement.terms import Terms

MODELS = "hansa.models"  # entry point group: (options, terms) -> torch.nn.Module


def load_custom(spec: CustomModel, terms: Terms) -> nn.Module:
    """Call the entry point, after its source was found to be the one agreed on.

    The hash is of the one file that holds the entry point, read before any of it runs; what that file imports is
    covered as far as the member's environment is. torch's generator is seeded for the call, so weights that it
    draws are the same on machines with one release of torch.

    Raises:
        ModelError: no such entry point, another source, or no `torch.nn.Module` comes of it.
    """
    points = importlib.metadata.entry_points(group=MODELS)
    if spec.entry_point not in points.names:
        raise ModelError(
            f"no model is called {spec.entry_point!r}",
            remedy=f"Installed ones: {', '.join(sorted(points.names)) or 'none'}. "
            f"A package adds one by an entry point in the group {MODELS!r}.",
        )
    point = points[spec.entry_point]
    source = _source_file(point.module)
    found = hashlib.sha256(source.read_bytes()).hexdigest()
    if found != spec.code_sha256:
        raise ModelError(
            f"{source} has the SHA-256 {found}, and the agreement names {spec.code_sha256}",
            remedy="Install the version that the members agreed on, or agree on this one.",
        )
    torch.manual_seed(0)
    try:
        module = point.load()(dict(spec.options), terms)
    except Exception as error:  # the member's own code: whatever it raises, its name must be told
        raise ModelError(f"the model {spec.entry_point!r} failed: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"the model {spec.entry_point!r} is a {type(module).__name__}, not a torch.nn.Module"
        )
    return module


def _source_file(module: str) -> Path:
    """The file of a module, found without importing its parents: `find_spec` would run their code."""
    first, *rest = module.split(".")
    spec: ModuleSpec | None = importlib.util.find_spec(first)
    for i in range(len(rest)):
        if spec is None or spec.submodule_search_locations is None:
            break
        spec = PathFinder.find_spec(".".join([first, *rest[: i + 1]]), list(spec.submodule_search_locations))
    if spec is None or spec.origin is None or spec.name != module or not spec.origin.endswith(".py"):
        raise ModelError(f"the source of {module!r} cannot be found", remedy="Install it as a Python file.")
    return Path(spec.origin)
