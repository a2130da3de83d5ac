"""The steps that an agreement names, with what it does not name set here."""

from __future__ import annotations

from hansa.agreement.terms import Terms
from hansa.artifact.errors import StepError
from hansa_server.publication.compress.corpus import PublicCorpus
from hansa_server.publication.compress.distillation import Distil
from hansa_server.publication.compress.merging import MergeAdapter
from hansa_server.publication.compress.onnx_export import ExportOnnx
from hansa_server.publication.compress.pruning import PruneStructure
from hansa_server.publication.compress.quantisation import DynamicInt8
from hansa_server.publication.compress.step import Step
from hansa_server.publication.compress.vocabulary import PruneVocabulary

ORDER = ("merge", "prune", "distil", "vocabulary", "onnx", "int8")


def agreed_steps(terms: Terms, corpus: PublicCorpus | None = None) -> tuple[Step, ...]:
    """The steps of `publication.compress`.

    Args:
        terms: the agreement's.
        corpus: public texts, for steps that read texts.

    Raises:
        StepError: they stand in another order than makes sense, stand twice, or one lacks its public texts.
    """
    names = terms.publication.compress
    places = [ORDER.index(name) for name in names]
    if places != sorted(set(places)):
        raise StepError(f"publication.compress: {', '.join(names)} is not in order, or names a step twice")
    if "int8" in names and "onnx" not in names:
        raise StepError("publication.compress: 'int8' needs 'onnx' before it")
    found: list[Step] = []
    for name in names:
        if name == "merge":
            found.append(MergeAdapter())
        elif name == "prune":
            found.append(PruneStructure())
        elif name == "distil":
            found.append(Distil(corpus))
        elif name == "vocabulary":
            if corpus is None:
                raise StepError("publication.compress: 'vocabulary' needs public texts")
            found.append(PruneVocabulary(corpus))
        else:
            found.append(ExportOnnx() if name == "onnx" else DynamicInt8())
    return tuple(found)
