"""Files that commands write for people: nothing that is there is replaced unless asked."""

from __future__ import annotations

from pathlib import Path

from hansa.errors import OutputExistsError, UsageError


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Make a folder, and those above it, where it is not there yet.

    Raises:
        UsageError: it cannot be made, or is no folder.
    """
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or "it cannot be made"
        raise UsageError(f"cannot make the folder {folder}: {reason}", remedy="Name another one.") from None


def refuse_existing(target: Path, *, force: bool | None) -> None:
    """Tell before any work what would otherwise be told when its result is written.

    Args:
        target: of the file.
        force: whether it is replaced; `None` where the command replaces nothing, so that no --force is offered.

    Raises:
        UsageError: there is no folder for it.
        OutputExistsError: it is there, and `force` is not given.
    """
    if not target.parent.is_dir():
        raise UsageError(f"there is no folder {target.parent}", remedy="Make it first, or name another file.")
    if target.exists() and not force:
        raise OutputExistsError(
            f"{target} is already there",
            remedy="Name another file."
            if force is None
            else "Name another file, or pass --force to replace it.",
        )


def write_text(target: Path, text: str, *, force: bool) -> None:
    """Write a whole file; whoever else created it in the meantime is not overwritten without `force`.

    Raises:
        UsageError: it cannot be written.
        OutputExistsError: see `refuse_existing`.
    """
    refuse_existing(target, force=force)
    try:
        with target.open("w" if force else "x", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
    except OSError as error:
        reason = error.strerror or "it cannot be written"
        raise UsageError(f"cannot write {target}: {reason}", remedy="Name another file.") from None
