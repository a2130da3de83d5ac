"""Errors of published packages and of running a model's file. HANSA-82x."""

from __future__ import annotations

from hansa.errors import ExitStatus, HansaError, ProblemsError


class PackageError(ProblemsError):
    """A package is not what its signature, its entry in the log and its documents say together."""

    code = "HANSA-821"
    exit_status = ExitStatus.VERIFICATION_FAILED
    remedy = "Do not use the package. Get it again from its publisher, and compare."


class ModelFileError(HansaError):
    """An ONNX file holds what Hansa does not run: an unknown operator, external data, a loop, too many bytes."""

    code = "HANSA-822"
    exit_status = ExitStatus.REFUSED
    remedy = "Run files only that Hansa's own export wrote; docs/publication.md lists the operators."


class ConfinedRunError(HansaError):
    """A model's file did not give scores within its limits of time and memory."""

    code = "HANSA-823"
    remedy = "Raise the limits if the model is known to be large; otherwise do not use it."


class PredictionInputError(ProblemsError):
    """Rows or texts to predict on do not fit the agreement's schema."""

    code = "HANSA-824"
    remedy = "A table is a CSV with a header of the agreement's features; texts stand one a line."


class PublicationExistsError(HansaError):
    """There is a publication already; none is replaced."""

    code = "HANSA-825"
    exit_status = ExitStatus.REFUSED
    remedy = "Name a new folder. A published package is never written over."


class ExportError(HansaError):
    """A model, or one of its operators, has no ONNX form, or its ONNX form computes something else."""

    code = "HANSA-826"
    remedy = "Replace the operator that is named in the model, or leave [evaluation] out: members judge an ONNX file."


class UnchargedStepError(HansaError):
    """A step of compression would touch private data, and nothing is charged for it; it was not run."""

    code = "HANSA-827"
    exit_status = ExitStatus.REFUSED
    remedy = "Use public data for it, or run it as a release that each member's budget pays for."


class StepError(HansaError):
    """A step of compression does not fit the model, or steps stand in an order that makes no sense."""

    code = "HANSA-828"
    exit_status = ExitStatus.BAD_INPUT
    remedy = "Correct publication.compress in the agreement: merge, prune, distil, vocabulary, onnx, int8, in this order."
