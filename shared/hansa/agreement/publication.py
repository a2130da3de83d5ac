"""The sections about the finished model: how groups are compared, how it is judged by its members, and when it may ship."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from hansa.agreement.conditions import ConditionTerms
from hansa.agreement.section import Count, Name, Positive, Section, Text, as_tuple
from hansa.canonical import Json
from hansa.quorum import MAX_MEMBERS


class Fairness(Section):
    """What quality is compared by, and what counts as too far apart.

    Attributes:
        metric: the quality that the report leads with.
        max_gap: largest allowed difference between groups of one attribute.
        min_worst_group: smallest allowed quality of any group.
        min_group_size: groups with fewer positives are listed as not assessable.
        exempt: groups (``attribute=value``) that need not be assessable.
    """

    metric: Literal["accuracy", "balanced-accuracy", "auc"] = "accuracy"
    max_gap: Annotated[float, Field(gt=0, le=1)] | None = None
    min_worst_group: Annotated[float, Field(gt=0, le=1)] | None = None
    min_group_size: Count = 200
    exempt: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()


class Publication(Section):
    """What is done to the final model, and what it must satisfy to be signed.

    Attributes:
        compress: steps on the final model, in order. With any the run ends with a publication: what ships is what
            ``onnx`` or ``int8`` gives.
        min_quality: smallest allowed `Fairness.metric`.
        max_quality_loss: largest loss of the compressed model against the uncompressed, in all and in every group.
        conditions: more conditions; all of them must hold, and those that the short keys of this section and of
            `Fairness` state.
        error: probability, at most, that anything passes or fails wrongly; divided by `Evaluation.evaluations`, used
            or not.
        licence: of the published weights, as an SPDX id.
        version: of the published model.
    """

    compress: Annotated[
        tuple[Literal["merge", "prune", "distil", "vocabulary", "onnx", "int8"], ...],
        BeforeValidator(as_tuple),
    ] = ()
    min_quality: Annotated[float, Field(gt=0, le=1)] | None = None
    max_quality_loss: Annotated[float, Field(ge=0, le=1)] | None = None
    conditions: ConditionTerms = ()
    error: Annotated[float, Field(gt=0, lt=1)] = 0.05
    licence: Text | None = None
    version: Name = "1.0.0"

    def tree(self) -> dict[str, Json]:
        """As `Section.tree`, without what came later where it is the default.

        So an agreement without it has the same id as before there was any.
        """
        tree = super().tree()
        for name in ("conditions", "error", "licence", "version"):
            if getattr(self, name) == type(self).model_fields[name].default:
                del tree[name]
        return tree


class Evaluation(Section):
    """How members evaluate a model's file by group, as a release. Without the section there is no such release.

    Rows are counted by `Data.groups`, by `Data.label` and by score. A value outside an attribute's public ones is counted as
    "no value", which every attribute has.

    Attributes:
        groups: sets of attributes whose values are crossed, one table each, ``[["sex", "age"], ["region"]]``. By default
            one table of all where that is not noisier for any attribute, else a table for each.
        bins: of the score, of equal width; an even number, so that one half is an edge.
        compared: what is counted of a second file, the reference: nothing, its decisions, or its score bins. An area under
            the ROC curve is compared by scores.
        max_rows_per_unit: rows of one privacy unit that are counted, at most: the sensitivity of a table.
        max_rows_per_cell: rows of one member in one cell, at most. It bounds what a member that lies can do.
        epsilon: budget of all evaluations of a model together, at `Privacy.delta`.
        evaluations: how many a model may have. The error of its intervals is divided among them, used or not.
        units: which units evaluate. ``held-out``: those that a keyed hash of the unit's id keeps out of training, so that no
            unit is in both and the loss of a unit is the larger of the two. ``own-file``: records of their own at each
            member, which may be of units that train too; the losses add up.
        share: of the units that are held out, as expected; under ``held-out`` alone.
        key: public, of the hash.
        liars: members that may lie within their caps, without a condition passing wrongly.
    """

    groups: Annotated[
        tuple[Annotated[tuple[Name, ...], BeforeValidator(as_tuple)], ...],
        BeforeValidator(as_tuple),
        Field(max_length=20),
    ] = ()
    bins: Annotated[int, Field(ge=2, le=100)] = 10
    compared: Literal["none", "decisions", "scores"] = "none"
    max_rows_per_unit: Count = 1
    max_rows_per_cell: Count
    epsilon: Positive
    evaluations: Annotated[int, Field(ge=1, le=1000)] = 1
    units: Literal["held-out", "own-file"] = "held-out"
    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    key: Annotated[int, Field(ge=0, le=2**53 - 1)] = 0
    liars: Annotated[int, Field(ge=0, le=MAX_MEMBERS)] = 0
