"""How a run's publication ended: with a package, or with what stood in its way."""

from __future__ import annotations

from typing import Literal

from hansa.report.part import NonNegativeInt, Part, Sha256


class ConditionReport(Part):
    """One condition of the gate.

    Attributes:
        name: as the federation's log has it.
        verdict: pass, fail or inconclusive.
        holds: whether it let the file through.
        excused: by whom and why, where it is inconclusive and holds all the same.
        sentence: what was found, with numbers.
    """

    name: str
    verdict: Literal["pass", "fail", "inconclusive"]
    holds: bool
    excused: str
    sentence: str


class PublicationReport(Part):
    """What became of the final model.

    Attributes:
        status: ``published``; ``open`` where the gate let it through and no folder for a package was named; ``refused`` by
            the gate; ``failed`` where something on the way did.
        because: why it was not published; empty where it was.
        package: folder of the package, within that of this report; null without one.
        artifact_sha256: of the file that was judged; null where there was none.
        bytes_shipped: its size.
        bytes_uncompressed: of the model before compression, as ONNX.
        gate_sha256: of the gate's entry in the federation's log; null where it did not come to one.
        approved_by: members that recomputed the gate and signed it.
        conditions: all of them.
    """

    status: Literal["published", "open", "refused", "failed"]
    because: str
    package: str | None = None
    artifact_sha256: Sha256 | None = None
    bytes_shipped: NonNegativeInt = 0
    bytes_uncompressed: NonNegativeInt = 0
    gate_sha256: Sha256 | None = None
    approved_by: tuple[str, ...] = ()
    conditions: tuple[ConditionReport, ...] = ()

    @property
    def headline(self) -> str:
        """How it ended, in one sentence."""
        approved = f"{len(self.approved_by)} members recomputed the gate and signed it"
        if self.status == "published":
            return f"Published: {self.package}, {self.bytes_shipped:,} bytes; {approved}."
        if self.status == "open":
            return f"The gate is open; {approved}. No package was written, as no folder was named."
        return f"{'Refused' if self.status == 'refused' else 'Not published'}: {self.because}"
