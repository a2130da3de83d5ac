"""Loaders of one's own: an entry point of the group ``hansa.loaders``, held to the hash of its source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

from hansa.agreement.local import Column, Source
from hansa.canonical import sha256_hex
from hansa.errors import DataSourceError
from hansa_client.data.cells import Cells
from hansa_client.data.records import Raw

GROUP = "hansa.loaders"

Loader: TypeAlias = Callable[[Path], Mapping[str, Iterable[object]]]
"""What an entry point names: path in, columns of equal length by name out; `None` is a missing value."""


def read_custom(path: Path, source: Source, wanted: Iterable[Column]) -> Raw:
    """Read columns through a loader of the member's own.

    The one file that holds the loader is hashed before any of it runs: code that is not the code that was
    agreed on does nothing. What that file imports is covered as far as the member's environment is.

    Raises:
        DataSourceError: no such loader, another hash, a loader that fails, or an answer that is no table.
    """
    point = _entry_point(source.loader)
    code_sha256 = sha256_hex(_source_file(point).read_bytes())
    if source.code_sha256 != code_sha256:
        said = "names no code_sha256" if source.code_sha256 is None else f"expects {source.code_sha256}"
        raise DataSourceError(
            f"loader {point.name!r}: the agreement {said}, the installed source is {code_sha256}",
            remedy="Read the loader's source, then set simulation.source.code_sha256; or install the other version.",
        )
    try:
        load: Loader = point.load()
        columns = {str(name): Cells.of(values) for name, values in load(path).items()}
    except Exception as error:  # the member's own code: whatever it raises, its name must be told
        raise DataSourceError(
            f"loader {point.name!r} failed on {path}: {type(error).__name__}: {error}",
            remedy="It must take a path and return columns by name.",
        ) from error
    lengths = {len(cells) for cells in columns.values()}
    if len(lengths) > 1:
        raise DataSourceError(f"loader {point.name!r} gave columns of different lengths for {path}")
    found: dict[str | int, Cells] = {
        c.column: columns[str(c.column)] for c in wanted if str(c.column) in columns
    }
    return Raw(str(path), max(lengths, default=0), found, tuple(columns))


def _entry_point(name: str | None) -> EntryPoint:
    if name is None:
        raise DataSourceError("format = 'custom' needs a loader", remedy="Set simulation.source.loader.")
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        known = ", ".join(sorted(points)) or "none"
        raise DataSourceError(
            f"no loader {name!r} is installed",
            remedy=f"Installed under {GROUP}: {known}. Install its package.",
        )
    return points[name]


def _source_file(point: EntryPoint) -> Path:
    """The file of a loader's module; its packages are looked through without running their code."""
    search: list[str] | None = None
    spec: ModuleSpec | None = None
    parts = point.module.split(".")
    for depth in range(len(parts)):
        name = ".".join(parts[: depth + 1])
        spec = find_spec(name) if search is None else PathFinder.find_spec(name, search)
        if spec is None:
            break
        search = list(spec.submodule_search_locations or [])
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise DataSourceError(
            f"loader {point.name!r}: module {point.module!r} has no source file to be checked"
        )
    return Path(spec.origin)
