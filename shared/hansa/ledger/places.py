"""What a person names as a log: told apart from other files before any of it is read as one.

A path that was mistyped is bad input and nothing worse; only what is a log, and is not as its checkpoint says, is damaged.
"""

from __future__ import annotations

from pathlib import Path

from hansa.errors import UsageError
from hansa.ledger.store import LOG_LAYOUT
from hansa.ledger.tiles import CHECKPOINT_NAME

_MAGIC = b"SQLite format 3\x00"
_ID_AT = (
    68  # of the application id, four bytes, big-endian: https://www.sqlite.org/fileformat.html, section 1.3
)
_HEADER_BYTES = 100


def require_log_file(path: Path) -> None:
    """See that a file is a log in SQLite, by its header.

    Raises:
        UsageError: there is none, it cannot be read, or it is something else.
    """
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except IsADirectoryError:
        raise _no_log(f"{path} is a folder, and a log's file was asked for") from None
    except FileNotFoundError:
        raise _no_log(f"there is no log at {path}") from None
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}", remedy="Check path and permissions."
        ) from None
    found = int.from_bytes(header[_ID_AT : _ID_AT + 4], "big")
    if not header.startswith(_MAGIC) or found != LOG_LAYOUT.application_id:
        raise _no_log(f"{path} is no log of Hansa")


def require_tiles(folder: Path) -> None:
    """See that a folder is one of tiles, by its checkpoint.

    Raises:
        UsageError: there is no such folder, or it holds none.
    """
    if not folder.is_dir():
        raise _no_log(f"there is no folder {folder}")
    if not (folder / CHECKPOINT_NAME).is_file():
        raise _no_log(f"{folder} is no folder of tiles: it holds no file named {CHECKPOINT_NAME!r}")


def _no_log(what: str) -> UsageError:
    return UsageError(what, remedy="Name the .sqlite file of a log, or a folder that a log was exported to.")
