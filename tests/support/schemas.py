"""Agreements that differ in their schema alone."""

from __future__ import annotations

from pathlib import Path

from hansa.agreement import Agreement, parse_agreement

TABLE = """
[data]
label = "outcome"
[[data.features]]
kind = "number"
name = "age"
range = [0, 100]
[[data.features]]
kind = "category"
name = "stage"
values = ["i", "ii", "iii"]
[[data.groups]]
kind = "category"
name = "sex"
values = ["f", "m"]
[model]
kind = "logistic"
"""

TEXT = """
[data]
label = "outcome"
[[data.features]]
kind = "text"
name = "note"
[model]
kind = "encoder"
source = "nowhere"
"""

FILES = """
[simulation.partition]
kind = "files"
files = { a = "a.csv", b = "b.csv", c = "c.csv" }
"""

_HEAD = """
[task]
name = "A test"
labels = ["no", "yes"]
[[members]]
name = "a"
units = 60
[[members]]
name = "b"
units = 40
[[members]]
name = "c"
units = 20
[training]
rounds = 1
[privacy]
mechanism = "local"
epsilon = 1.0
delta = 1e-3
clipping_norm = 1.0
sampling_rate = 0.5
steps = 1
"""


def schema_agreement(
    schema: str = TABLE, simulation: str = "", *, patient: str = "", cap: int = 1
) -> Agreement:
    """Three members, two labels, and the schema that a test is about.

    Args:
        schema: the sections ``data`` and ``model``.
        simulation: sections below ``simulation``.
        patient: the unit column, where the unit is to be a patient.
        cap: records per patient.
    """
    head = _HEAD
    if patient:
        head += f'unit = "patient"\nmax_records_per_unit = {cap}\n'
        schema = schema.replace('label = "outcome"\n', f'label = "outcome"\nunit = "{patient}"\n', 1)
    return parse_agreement(head + schema + simulation)


def written(folder: Path, name: str, text: str) -> Path:
    """A file with `text` in it."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file
