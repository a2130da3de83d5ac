"""Where a pretrained model comes from: a local folder, an installed package that carries one, or a hub id.

Each ends as a local folder with a config and safetensors weights. What is loaded is data, not code: pickled
weights are refused, and so are folders that ask for code of their own.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
from pathlib import Path
from typing import Any

from hansa.errors import ModelError

PACKAGE = "package:"
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?", re.ASCII)
_HUB_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def model_folder(source: str, folder: Path) -> Path:
    """The local folder of a pretrained model.

    Args:
        source: a path relative to `folder`, ``package:NAME``, or a hub id (``name``, ``owner/name``, either with
            ``@revision``). An existing folder goes before a hub id of the same name.
        folder: where relative paths start: the folder of the agreement.

    Raises:
        ModelError: there is no such folder, package or hub model, or it lacks a config or safetensors weights.
    """
    if source.startswith(PACKAGE):
        found = _package_folder(source.removeprefix(PACKAGE))
    else:
        path = folder / Path(source).expanduser()
        if path.is_dir():
            found = path
        elif _HUB_ID.fullmatch(source) and not source.startswith("."):
            found = _hub_folder(source, path)
        else:
            raise ModelError(
                f"there is no folder {path}",
                remedy="Give model.source a folder relative to the agreement, package:NAME, or a hub id.",
            )
    _check(found)
    return found


def _package_folder(name: str) -> Path:
    try:
        distribution = importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        raise ModelError(
            f"no installed package is called {name!r}", remedy=f"Install it with `pip install {name}`."
        ) from None
    configs = [
        Path(str(distribution.locate_file(f))) for f in distribution.files or () if f.name == "config.json"
    ]
    folders = sorted(path.parent for path in configs if path.is_file() and "model_type" in _json(path))
    if len(folders) != 1:
        what = "no folder" if not folders else f"{len(folders)} folders"
        raise ModelError(
            f"the package {name!r} carries {what} with a model's config.json",
            remedy="Give model.source the path of the model's folder.",
        )
    return folders[0]


def _hub_folder(source: str, path: Path) -> Path:
    """A snapshot of a hub model in the local cache, downloaded if it may be."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    name, _, revision = source.partition("@")
    try:
        # Files in subfolders are other exports of the same weights, or of other models.
        found = snapshot_download(
            name, revision=revision or None, allow_patterns=_HUB_FILES, ignore_patterns=["*/*"]
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        if constants.HF_HUB_OFFLINE:
            reason = "HF_HUB_OFFLINE is set and the local cache does not have it"
            remedy = f"Unset HF_HUB_OFFLINE, or fetch the model first with `hf download {name}`."
        else:
            reason = f"the hub answered: {_first_line(error)}"
            remedy = "Check the id, the connection and, for a gated model, your access (`hf auth login`)."
        raise ModelError(
            f"there is no folder {path}, and the hub model {source!r} cannot be had: {reason}", remedy=remedy
        ) from None
    return Path(found)


def _check(folder: Path) -> None:
    """Refuse a folder that is not a complete model made of data alone."""
    config = folder / "config.json"
    if not config.is_file():
        raise ModelError(
            f"{folder} has no config.json",
            remedy="Point model.source at a folder written by `save_pretrained`.",
        )
    if "model_type" not in _json(config):
        raise ModelError(f"{config} does not say which model_type it is")
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            f"{folder} holds an adapter, not a model",
            remedy="Merge it into its base model, and give the merged model's folder.",
        )
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
        if pickles:
            raise ModelError(
                f"{folder} has its weights only as {', '.join(pickles)}: loading a pickle runs the code in it",
                remedy="Convert the weights to safetensors on a machine where that code may run.",
            )
        raise ModelError(
            f"{folder} has no weights (*.safetensors)", remedy="Complete the folder, or its download."
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise ModelError(f"{path} is not readable JSON") from None
    return value if isinstance(value, dict) else {}


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
