"""The two files that members judge: the one that would ship, and the uncompressed model that it is compared with."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hansa.agreement.terms import Terms
from hansa.artifact.errors import StepError
from hansa.models import BuiltModel
from hansa.models.flat import Vector
from hansa_server.publication.compress import (
    Candidate,
    ExportOnnx,
    MergeAdapter,
    PublicCorpus,
    Step,
    agreed_steps,
    compress,
)


@dataclass(frozen=True)
class ToJudge:
    """A run's final model on its way to its members' judgement.

    Attributes:
        candidate: after all agreed steps; its ONNX file is what would ship.
        reference: the model as it was trained, exported and nothing more; absent where the agreement compares nothing.
    """

    candidate: Candidate
    reference: bytes | None

    @property
    def judged(self) -> bytes:
        """The file that would ship."""
        if self.candidate.onnx is None:
            raise StepError("the agreed steps make no file that could be judged")
        return self.candidate.onnx


def files_to_judge(
    terms: Terms, built: BuiltModel, weights: Vector, corpus: PublicCorpus | None = None
) -> ToJudge:
    """The ONNX files of a run's final model.

    Args:
        terms: of the agreement, with an `[evaluation]`.
        built: model 0; its module is left as it is.
        weights: float64 [d], that are published.
        corpus: public texts, for steps that read texts.

    Raises:
        StepError: a step does not fit, or the agreement compares and no step makes another file.
        ExportError: the model has no ONNX form.
    """
    candidate = Candidate.of(terms, built, weights)
    steps = agreed_steps(terms, corpus)
    names = [step.name for step in steps]
    exported: Step = ExportOnnx()
    compressed = compress(candidate, steps if "onnx" in names else (*steps, exported))
    if terms.evaluation is None or terms.evaluation.compared == "none":
        return ToJudge(compressed, None)
    if not {*names} - {"merge", "onnx"}:
        raise StepError(
            "the agreement compares two files, and no step of publication.compress makes another one",
        )
    return ToJudge(compressed, _uncompressed(replace(candidate, told=())).onnx)


def require_exportable(terms: Terms, built: BuiltModel) -> None:
    """Look before a run at what would only fail after it, with every ε spent: whether the model has an ONNX form.

    Args:
        terms: of the agreement; without an `[evaluation]` nothing is exported.
        built: model 0, which has the operators of the final one.

    Raises:
        ExportError: it has none; the operator is named.
    """
    if terms.evaluation is not None:
        _uncompressed(Candidate.of(terms, built, built.initial_vector()))


def _uncompressed(candidate: Candidate) -> Candidate:
    lora = candidate.terms.adapter.kind in {"lora", "ffa-lora"}
    return compress(candidate, (MergeAdapter(), ExportOnnx()) if lora else (ExportOnnx(),))
