"""Members whose records a documented generator makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from hansa.agreement import Simulation, Terms
from hansa.errors import AgreementError, DataError, Problem
from hansa_client.data import Raw, Records, canonical, wanted_columns
from hansa_client.data.cells import Cells
from hansa_simulations.notes import admission_notes


def _notes(n: int, member: int, seed: tuple[int, ...]) -> dict[str, Iterable[str]]:
    notes = admission_notes(n, hospital=member, seed=seed)
    return {"text": notes.texts, "class": notes.classes, "language": notes.languages}


GENERATORS: Mapping[str, Callable[[int, int, tuple[int, ...]], Mapping[str, Iterable[str]]]] = {
    "admission-notes": _notes
}
"""By name, as `Source.generator`: records, the member's place in the agreement and a seed in, columns out."""


def generate(terms: Terms, simulation: Simulation, member: int, n: int, seed: tuple[int, ...]) -> Records:
    """Records of one member from the generator that `[simulation]` names.

    Args:
        terms: whose schema names the columns.
        simulation: its generator and column mapping.
        member: place in the agreement.
        n: how many records.
        seed: public.

    Raises:
        AgreementError: the generator is not known, or the source is not a generated one.
        DataError: a mapped column that the generator does not make.
    """
    source = simulation.source
    make = GENERATORS.get(source.generator or "")
    if source.format != "generated" or make is None:
        raise AgreementError(
            "the data cannot be generated",
            [
                Problem(
                    "simulation.source",
                    f"format {source.format!r} with generator {source.generator!r} is none",
                    f"format = 'generated' and generator = one of {', '.join(GENERATORS)}",
                )
            ],
        )
    columns: dict[str | int, Cells] = {
        name: Cells.of(values) for name, values in make(n, member, seed).items()
    }
    raw = Raw(f"generator {source.generator}", n, columns, tuple(str(name) for name in columns))
    records, problems = canonical(raw, terms.data, source, wanted_columns(terms.data, simulation.columns, {}))
    if records is None:
        raise DataError(f"generator {source.generator!r} does not fit the agreement", problems)
    return records
