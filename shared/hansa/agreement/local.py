"""What stands beside the terms and is in no hash: how one machine reads data and how fast it goes.

`[simulation]` says where a simulator finds each member's data; a real member says the same in its `node.toml`.
`[performance]` may change how long a run takes and never what it promises.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from hansa.agreement.section import Name, Positive, Section


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _measured(value: object) -> object:
    """What is found by measuring is a number that is not known yet."""
    if isinstance(value, str) and value != "auto":
        raise ValueError("is neither 'auto' nor a whole number above 0")
    return None if value == "auto" else value


Seed: TypeAlias = Annotated[int, Field(ge=0, le=2**32 - 1)]  # scikit-learn takes no larger one
Strings: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]


class Column(Section):
    """Where a named column of the agreement is found in a file, and how its codes are spelled there.

    Attributes:
        column: header name, zero-based index, or for XML a path (``Answer``, ``Question/@qtype``).
        values: code in the file to value in the agreement; codes not listed stay as they are.
    """

    column: str | int
    values: Mapping[str, str] = Field(default_factory=dict)


class Source(Section):
    """How files are read.

    Attributes:
        format: ``csv``, ``parquet``, ``xml`` (records in XML files, also inside a tar archive), ``generated``
            (by `generator`), or ``custom`` (an entry point of ``hansa.loaders``).
        header: whether a CSV's first line names its columns.
        delimiter, encoding: of a CSV.
        decimal: what separates a number's fraction in text, a point or a comma.
        missing: what stands for a missing value.
        record: the XML element that is one record.
        generator: the name of a documented generator.
        loader: the entry point's name.
        code_sha256: hash of a custom loader's source.
    """

    format: Literal["csv", "parquet", "xml", "generated", "custom"] = "csv"
    header: bool = True
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    encoding: str = "utf-8"
    decimal: Literal[".", ","] = "."
    missing: Strings = ("",)
    record: str | None = None
    generator: Name | None = None
    loader: Name | None = None
    code_sha256: str | None = None


class FilePartition(Section):
    """Each member is a file or folder (or a folder inside an archive) under the data directory."""

    kind: Literal["files"]
    files: Mapping[str, str]
    archive: str | None = None


class ColumnPartition(Section):
    """Members by the value of one column of one file: ``member = [codes]``."""

    kind: Literal["column"]
    file: str
    column: str | int
    values: Mapping[str, Strings]


class DirichletPartition(Section):
    """Members by Dirichlet shares of each label (arXiv 1909.06335); a small `alpha` is a strong skew."""

    kind: Literal["dirichlet"]
    file: str
    alpha: Positive
    seed: Seed = 0


class GeneratedPartition(Section):
    """Members made by the generator named in `Source`, as many records each as the member declares units."""

    kind: Literal["generated"]
    seed: Seed = 0
    test_records: Annotated[int, Field(ge=1)] = 400


Partition: TypeAlias = Annotated[
    FilePartition | ColumnPartition | DirichletPartition | GeneratedPartition, Field(discriminator="kind")
]


class TestSplit(Section):
    """Which records the simulator keeps back to measure quality.

    Attributes:
        share: of the records.
        rule: ``unit-hash`` decides by a public PRF of each unit alone; ``stratified`` is FLamby's split, which
            looks at all records at once and is for simulators only.
    """

    __test__ = False  # not a test class, whatever its name

    share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    rule: Literal["unit-hash", "stratified"] = "unit-hash"
    seed: Seed = 0


class PlantedNoise(Section):
    """Label noise in one group: an experiment on what a gate makes of a model that serves the group badly.

    Attributes:
        attribute, value: which group of `Data.groups`.
        share: of the group's records whose label is turned into another, at every member.
        where: in ``all`` records: what trains, what evaluates, and what the simulator keeps back; or in ``training`` alone:
            the records that are judged by have the labels that they should.
    """

    attribute: Name
    value: str
    share: Annotated[float, Field(gt=0, le=1)]
    where: Literal["all", "training"] = "all"
    seed: Seed = 0


class Simulation(Section):
    """`[simulation]`: data for every member of a simulated federation; in no hash."""

    source: Source = Source()
    columns: Mapping[str, Column | str | int] = Field(default_factory=dict)
    partition: Partition
    test: TestSplit = TestSplit()
    planted: PlantedNoise | None = None

    def column(self, name: str) -> Column:
        """The mapping of an agreement's column; by default a column of the same name."""
        entry = self.columns.get(name, name)
        return entry if isinstance(entry, Column) else Column(column=entry)


class Performance(Section):
    """`[performance]`: may change time and memory, never what is promised; in no hash.

    Simulations and members' nodes read the same section of the agreement's file.

    Attributes:
        physical_batch_size: records in one forward pass, or ``auto`` (here `None`): the size that was fastest on
            public inputs where privacy is claimed, and 64 in a run without it.
        keep_activations: what frozen layers below the first trained one give for a record is computed once and kept:
            ``off``; in ``memory``; on ``disk``, in an unnamed file in the folder of temporary files (`TMPDIR`); or
            ``auto``: in memory, where privacy is claimed, there is something to keep, and all that one process keeps
            takes at most a quarter of the memory that was free at first, divided by `processes`.
        precision: of passes, ``float32`` or ``bfloat16`` (autocast; weights, norms, clipped sums and noise are what
            they are without it).
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        processes: members trained at the same time on one machine.
        evaluate_every: rounds between two measurements of quality by the simulator; 0 for only the last.

    Guarantees: noise, sensitivity, sampling and events come from the terms alone. A microbatch is of whole units, and
        what is kept is what a pass would compute, so both move a clipped sum by float rounding at most, for which clipping
        leaves the margin η. Passes in bfloat16 round more and are clipped to C(1 − η) with a larger η: the sum's
        sensitivity, to which the noise was calibrated, stays s·C + √d.
    Assumes: as `hansa_client.training.clipping.ClippedSum`, that η covers what float arithmetic errs.
    Leaks: time, which depends on how many records a step meets for the first time where activations are kept.
        In a run without privacy the bits of the model follow from these settings and the seed; ``auto`` measures nothing there.
    """

    physical_batch_size: Annotated[
        Annotated[int, Field(ge=1, le=1_000_000)] | None, BeforeValidator(_measured)
    ] = None
    keep_activations: Literal["off", "memory", "disk", "auto"] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"
    processes: Annotated[int, Field(ge=1, le=1024)] = 1
    evaluate_every: Annotated[int, Field(ge=0)] = 0
