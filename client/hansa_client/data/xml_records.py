"""Records out of XML files: one file, a folder of them, or a tar archive that is read as a stream.

An archive is never extracted to disk. Documents with a document type declaration are refused, so that no
entity is ever expanded and nothing outside the file is read.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import tarfile
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import IO, cast

import numpy as np

from hansa.agreement.local import Column
from hansa.errors import DataSourceError
from hansa_client.data.cells import Cells
from hansa_client.data.records import Raw

_SHOWN = 5  # names of broken documents in one message
_COMPRESSIONS: Mapping[bytes, ModuleType] = {b"\x1f\x8b": gzip, b"BZh": bz2, b"\xfd7zXZ\x00": lzma}
_END_OF_ARCHIVE_BYTES = 1024  # two blocks of zeros, by POSIX.1-2017 (pax)
_PATH = re.compile(
    r"""
    /?                                      # from the document's root
    (?P<steps>(?:\.|STEP)(?:/STEP)*)?       # elements, or the record itself
    (?:/?@(?P<attribute>[^/@\[\]\s]+))?     # an attribute
    """.replace("STEP", r"(?:\{[^{}]*\})?[^/@\[\]{}\s]+"),
    re.VERBOSE,
)


class _NoDoctype(ET.TreeBuilder):
    """Builds elements and refuses a document type declaration before anything in it is read."""

    def doctype(self, _name: str, _public_id: str | None, _system: str | None) -> None:
        """Called by the parser at the start of a declaration, before its entities."""
        raise _DoctypeError


class _DoctypeError(Exception):
    pass


def read_xml(path: Path, record: str, wanted: Sequence[Column], folders: Mapping[str, str]) -> dict[str, Raw]:
    """Read the records of several members in one pass.

    Args:
        path: an XML file, a folder, or a tar archive, compressed or not.
        record: the element that is one record, at any depth.
        wanted: columns by path from the record: ``Answer``, ``Question/@qtype``, ``@id``, ``.``; a path that
            starts with ``/`` begins at the document's root element (``/Focus``, ``/@id``).
        folders: member to folder inside `path`; ``"."`` is all of it.

    Returns:
        Member to what was found. Documents are taken in the order of their names, so that an archive and the
        folder it was made from give the same records.

    Raises:
        DataSourceError: nothing is there, the archive is broken, or documents are not well-formed XML, all of
            them told in one message.
    """
    documents: dict[str, list[tuple[str, list[list[str | None]]]]] = {member: [] for member in folders}
    broken: list[str] = []
    for name, content in _documents(path):
        members = [member for member, folder in folders.items() if _inside(name, folder)]
        if not members:
            continue
        try:
            rows = _rows(content, record, wanted)
        except _DoctypeError:
            broken.append(f"{name} (has a DOCTYPE, which is refused)")
        except ET.ParseError as error:
            broken.append(f"{name} ({error})")
        else:
            for member in members:
                documents[member].append((name, rows))
    if broken:
        more = f" and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
        raise DataSourceError(
            f"{path}: {len(broken)} documents cannot be read: {'; '.join(broken[:_SHOWN])}{more}",
            remedy="Repair or remove them.",
        )
    return {member: _raw(path, folders[member], record, wanted, found) for member, found in documents.items()}


def _raw(
    path: Path,
    folder: str,
    record: str,
    wanted: Sequence[Column],
    documents: list[tuple[str, list[list[str | None]]]],
) -> Raw:
    rows = [row for _, found in sorted(documents, key=lambda document: document[0]) for row in found]
    place = str(path) if folder == "." else f"{path}:{folder}"
    columns: dict[str | int, Cells] = {}
    for i, column in enumerate(wanted):
        cells = Cells.of(row[i] for row in rows)
        if not rows or not np.all(cells.missing):  # a path that no record has is no column
            columns[column.column] = cells
    return Raw(place, len(rows), columns, (f"records <{record}> and what is in them",))


def _inside(name: str, folder: str) -> bool:
    wanted = PurePosixPath(folder).parts
    return PurePosixPath(name).parts[: len(wanted)] == wanted


def _documents(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each XML document below a path."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.suffix.lower() == ".xml" and file.is_file():
                yield file.relative_to(path).as_posix(), file.read_bytes()
    elif not path.is_file():
        raise DataSourceError(f"{path} does not exist", remedy="Check the path of the data.")
    elif path.suffix.lower() == ".xml":
        yield path.name, path.read_bytes()
    else:
        yield from _archived(path)


def _archived(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with _decompressed(path) as content, tarfile.open(fileobj=content, mode="r|") as archive:
            for entry in archive:
                if not entry.isfile() or not entry.name.lower().endswith(".xml"):
                    continue
                stream = archive.extractfile(entry)
                if stream is not None:
                    yield str(PurePosixPath(entry.name)), stream.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise DataSourceError(
            f"{path} is truncated or not a tar archive: {error}",
            remedy="Copy the archive again, or name an XML file or a folder of them.",
        ) from None


def _decompressed(path: Path) -> IO[bytes]:
    """The bytes of a tar archive. tarfile's own decompression takes a truncated stream for its end."""
    with path.open("rb") as file:
        start = file.read(6)
        for magic, module in _COMPRESSIONS.items():
            if start.startswith(magic):
                return cast("IO[bytes]", module.open(path, "rb"))
        file.seek(max(0, path.stat().st_size - _END_OF_ARCHIVE_BYTES))
        if any(file.read()):
            raise tarfile.ReadError("it lacks the end of an archive")
    return path.open("rb")


def _rows(content: bytes, record: str, wanted: Iterable[Column]) -> list[list[str | None]]:
    parser = ET.XMLParser(target=_NoDoctype())  # noqa: S314  # entities need a DOCTYPE, which it refuses
    root = ET.fromstring(content, parser=parser)  # noqa: S314
    paths = [str(column.column) for column in wanted]
    return [[_value(element, root, path) for path in paths] for element in root.iter(record)]


def _value(element: ET.Element, root: ET.Element, path: str) -> str | None:
    """The text at a path with white space collapsed, or `None` where there is none."""
    parts = _PATH.fullmatch(path)
    if parts is None or path in ("", "/"):
        raise DataSourceError(
            f"{path!r} is not a path to part of an XML record",
            remedy="Write for example Answer, Question/@qtype, @id or /Focus.",
        )
    found = (root if path.startswith("/") else element).find(parts["steps"] or ".")
    if found is None:
        return None
    text = found.get(parts["attribute"]) if parts["attribute"] else "".join(found.itertext())
    return None if text is None else " ".join(text.split())
