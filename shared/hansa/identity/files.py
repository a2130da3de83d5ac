"""Files that must be whole: written once or replaced in one step, on disk before return; and files of statements."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hansa.errors import OutputExistsError, UsageError, WireError
from hansa.identity.statement import Statement, parse_lines

MAX_FILE_BYTES = 1024 * 1024  # signatures of 100 members take 30 kB; whatever is larger is something else


def write_new(path: Path, data: bytes) -> None:
    """Write a file that is not there yet.

    Raises:
        OutputExistsError: it is there, whatever it holds.
        UsageError: it cannot be written.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        _write(handle, data)
        _flush(path.parent)
    except FileExistsError:
        raise OutputExistsError(f"{path} is already there", remedy="Move it away, or name another.") from None
    except OSError as error:
        raise _cannot(f"write {path}", error) from None


def replace_file(path: Path, data: bytes | Iterable[bytes | memoryview]) -> None:
    """Put new content in a file's place; after a crash either the old content or the new is there, whole.

    Args:
        path: of the file.
        data: its new content, or pieces of it one after the other.

    Raises:
        UsageError: it cannot be written.
    """
    new = path.with_name(path.name + ".new")
    try:
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        _write(handle, data)
        new.replace(path)
        _flush(path.parent)
    except OSError as error:
        raise _cannot(f"write {path}", error) from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other commands from reading and replacing files of a folder at the same time; they wait.

    Raises:
        UsageError: there is no such folder.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _cannot(f"use the folder {folder}", error) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def read_small(path: Path, limit: int = MAX_FILE_BYTES) -> bytes:
    """The bytes of a file that somebody sent.

    Raises:
        UsageError: it cannot be read, or is larger than anything of its kind.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise _cannot(f"read {path}", error) from None
    if len(data) > limit:
        raise UsageError(f"{path} is larger than {limit} bytes", remedy="Name the right file.")
    return data


def read_statements(path: Path) -> tuple[Statement, ...]:
    """The statements of a file, a line each, at least one; nothing is verified.

    Raises:
        UsageError: it cannot be read.
        WireError: it is not lines of statements.
    """
    try:
        statements = parse_lines(read_small(path).decode())
    except UnicodeDecodeError:
        raise WireError(f"{path}: a list of statements is not UTF-8") from None
    except WireError as error:
        raise WireError(f"{path}: {error.cause}") from None
    if not statements:
        raise WireError(f"{path}: holds no statement")
    return statements


def _write(handle: int, data: bytes | Iterable[bytes | memoryview]) -> None:
    with os.fdopen(handle, "wb") as file:
        for piece in (data,) if isinstance(data, bytes) else data:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _cannot(what: str, error: OSError) -> UsageError:
    return UsageError(
        f"cannot {what}: {error.strerror or 'unknown reason'}", remedy="Check path and permissions."
    )
