"""The terms of an agreement as frozen values: what every party must hold in common.

Each section of the TOML file is one class here. Privacy settings and performance settings never share a
section: `Performance` is local to a machine and outside every hash. Rules between sections live in
`hansa.agreement.rules`; this module checks what one section can say about itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from hansa.agreement.mitigation import Mitigation
from hansa.agreement.publication import Evaluation, Fairness, Publication
from hansa.agreement.section import Count, Name, NonNegative, Positive, Section, Sha256, Text, as_tuple
from hansa.canonical import Json
from hansa.quorum import MAX_MEMBERS, smallest_sum

SHARED_NOISE_OPTIONS = (
    "rotation",
    "noise_in_parts",
)  # of `Privacy`; they mean something under ``distributed`` alone


# --- what is learned, and by whom -------------------------------------------------------------------------


class Task(Section):
    """What the model is for.

    Attributes:
        name: a short title.
        purpose: what the model may be used for, in words that an ethics board reads.
        labels: the classes, in the order of the model's outputs.
    """

    name: Text
    purpose: str = ""
    labels: Annotated[tuple[Name, ...], BeforeValidator(as_tuple), Field(min_length=2, max_length=1000)]


class Member(Section):
    """One member of the league, by its public facts.

    Attributes:
        name: unique in the agreement.
        units: the public number of privacy units that the member trains on, rounded and declared. It is the
            divisor of every mean, so that no divisor depends on data.
        weight: the member's share in the average, by default proportional to `units`.
    """

    name: Name
    units: Count
    weight: Positive | None = None

    @property
    def public_weight(self) -> float:
        """The weight used in the sum; never a row count."""
        return float(self.units) if self.weight is None else self.weight


# --- the schema of the data ------------------------------------------------------------------------------


class NumberFeature(Section):
    """A number, scaled from its public range to [-1, 1] and clipped to it.

    Attributes:
        missing: ``drop`` leaves the row out; a number stands in for what is missing.
    """

    kind: Literal["number"]
    name: Name
    range: Annotated[tuple[float, float], BeforeValidator(as_tuple)]
    missing: Literal["drop"] | float = "drop"

    @property
    def width(self) -> int:
        """Inputs that the feature takes in an encoded row."""
        return 1


class CategoryFeature(Section):
    """A category of a public vocabulary, one input per value.

    Attributes:
        values: the vocabulary; what is outside it counts as missing.
        missing: ``drop`` leaves the row out, ``own`` adds one input for it, a value of the vocabulary stands in.
        baseline: a value that gets no input of its own (all zeros).
    """

    kind: Literal["category"]
    name: Name
    values: Annotated[tuple[Name, ...], BeforeValidator(as_tuple), Field(min_length=2, max_length=10_000)]
    missing: Name = "drop"
    baseline: Name | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """The values that get an input each, in order; with ``missing = "own"`` the last is ``missing``."""
        own = ("missing",) if self.missing == "own" else ()
        return (*(value for value in self.values if value != self.baseline), *own)

    @property
    def width(self) -> int:
        """Inputs that the feature takes in an encoded row."""
        return len(self.inputs)


class TextFeature(Section):
    """A text, cut into tokens by the model's tokenizer."""

    kind: Literal["text"]
    name: Name
    missing: Literal["drop", "empty"] = "drop"


Feature: TypeAlias = Annotated[NumberFeature | CategoryFeature | TextFeature, Field(discriminator="kind")]


class CategoryGroup(Section):
    """A group attribute with public values; records without one belong to no group of it."""

    kind: Literal["category"]
    name: Name
    values: Annotated[tuple[Name, ...], BeforeValidator(as_tuple), Field(min_length=2, max_length=100)]


class BandGroup(Section):
    """A group attribute cut from a number by public edges: below the first, between, from the last on."""

    kind: Literal["bands"]
    name: Name
    edges: Annotated[tuple[float, ...], BeforeValidator(as_tuple), Field(min_length=1, max_length=100)]

    @property
    def values(self) -> tuple[str, ...]:
        """The bands' names, for example ``<45``, ``45-60``, ``>=60``."""
        edges = [f"{e:g}" for e in self.edges]
        middle = [f"{a}-{b}" for a, b in itertools.pairwise(edges)]
        return (f"<{edges[0]}", *middle, f">={edges[-1]}")


Group: TypeAlias = Annotated[CategoryGroup | BandGroup, Field(discriminator="kind")]


class Data(Section):
    """The public schema that every member's data are read by.

    Attributes:
        label: the name of the label column; its values are `Task.labels`.
        unit: the name of the column that says to which patient or client a record belongs.
        features: what the model sees.
        groups: attributes by which quality is compared; the model sees one only if it is a feature too.
    """

    label: Name
    unit: Name | None = None
    features: Annotated[
        tuple[Feature, ...], BeforeValidator(as_tuple), Field(min_length=1, max_length=10_000)
    ]
    groups: Annotated[tuple[Group, ...], BeforeValidator(as_tuple), Field(max_length=20)] = ()


# --- the model -------------------------------------------------------------------------------------------


class LogisticModel(Section):
    """Multinomial logistic regression on the encoded table, zeros at the start."""

    kind: Literal["logistic"]


class TabularTransformer(Section):
    """A small transformer over one token per feature (FT-Transformer, arXiv 2106.11959)."""

    kind: Literal["tabular-transformer"]
    width: Annotated[int, Field(ge=4, le=1024)] = 32
    layers: Annotated[int, Field(ge=1, le=24)] = 2
    heads: Annotated[int, Field(ge=1, le=64)] = 4
    seed: Annotated[int, Field(ge=0, le=2**53 - 1)] = 0


class Encoder(Section):
    """A Hugging Face sequence classifier.

    Attributes:
        source: a local folder, an installed package that carries one (``package:NAME``), or a hub id. Absent
            when the model is built from `config`.
        config: the keys of a `transformers` config, ``model_type`` among them, for a model from random weights.
        vocabulary: a public generated vocabulary by name, for a model from `config`.
        max_tokens: texts are cut here.
        pooling: ``native`` is the architecture's own classification head; ``mean`` is the mean of the last
            hidden states under one linear layer.
        freeze_positions: leave position embeddings as they are.
        warm_start: steps of non-private training on public generated data before anything private.
        seed: public seed of what starts at random.
    """

    kind: Literal["encoder"]
    source: str | None = None
    config: Mapping[str, bool | int | float | str] | None = None
    vocabulary: Name | None = None
    max_tokens: Annotated[int, Field(ge=4, le=8192)] = 128
    pooling: Literal["native", "mean"] = "native"
    freeze_positions: bool = False
    warm_start: Annotated[int, Field(ge=0, le=100_000)] = 0
    seed: Annotated[int, Field(ge=0, le=2**53 - 1)] = 0


class CustomModel(Section):
    """A model of one's own, registered under the entry point group ``hansa.models``.

    Attributes:
        entry_point: its name there.
        code_sha256: the hash of the source that every member must have.
        options: passed to it.
    """

    kind: Literal["custom"]
    entry_point: Name
    code_sha256: Sha256
    options: Mapping[str, bool | int | float | str] = Field(default_factory=dict)


Model: TypeAlias = Annotated[
    LogisticModel | TabularTransformer | Encoder | CustomModel, Field(discriminator="kind")
]


class Adapter(Section):
    """Which weights are trained.

    Attributes:
        kind: ``none`` trains all; ``ffa-lora`` trains B of W + BA with A from a public seed (arXiv 2403.12313);
            ``lora`` trains both; ``head`` trains the classification head alone.
        rank, alpha: of LoRA.
        targets: names of linear layers that get one; by default the attention's query and value.
        train_head: whether the classification head is trained too.
    """

    kind: Literal["none", "lora", "ffa-lora", "head"] = "none"
    rank: Annotated[int, Field(ge=1, le=1024)] = 8
    alpha: Positive = 16.0
    targets: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()
    train_head: bool = True
    seed: Annotated[int, Field(ge=0, le=2**53 - 1)] = 0


# --- training --------------------------------------------------------------------------------------------


class ServerRule(Section):
    """The server optimiser, a function of the mean update alone.

    Attributes:
        rule: the names of the literature (FedOpt: arXiv 2003.00295; AdamW: arXiv 1711.05101). Rules that need
            individual updates are refused by name.
        learning_rate: the server's, at its highest.
        momentum: of FedAvgM.
        beta_1, beta_2, tau: of the adaptive rules; tau is what other libraries call epsilon.
        weight_decay: of AdamW: each round shrinks the weights by this times the learning rate.
        schedule: how the learning rate goes on after the warm-up: ``constant``, ``linear`` or ``cosine``.
        warmup_rounds: over which it rises in equal parts to its highest, which the last of them has.
        end_factor: the share of it that ``linear`` and ``cosine`` come down to, right after the last round.
    """

    rule: str = "fedavg"
    learning_rate: Positive = 1.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta_1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta_2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    tau: Positive = 1e-3
    weight_decay: NonNegative = 0.0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_rounds: Annotated[int, Field(ge=0, le=100_000)] = 0
    end_factor: Annotated[float, Field(ge=0, le=1)] = 0.0

    def tree(self) -> dict[str, Json]:
        """As `Section.tree`, without decay and schedule where there is none.

        So an agreement without them has the same id as before there were any.
        """
        tree = super().tree()
        for name in ("weight_decay", "schedule", "warmup_rounds", "end_factor"):
            if tree[name] == type(self).model_fields[name].default:
                del tree[name]
        return tree


class Training(Section):
    """How the model is trained.

    Attributes:
        rounds: exchanges with the coordinator; each takes `Privacy.steps` / `rounds` local steps.
        learning_rate: of the members' local SGD.
        server: what the coordinator does with the mean update.
        average_tail: the share of the last rounds over which the published weights are averaged; 0 for none.
        deadline_s: how long a round waits for members.
    """

    rounds: Annotated[int, Field(ge=1, le=100_000)]
    learning_rate: Positive = 0.1
    server: ServerRule = ServerRule()
    average_tail: Annotated[float, Field(ge=0, le=1)] = 0.0
    deadline_s: Positive = 600.0


class Privacy(Section):
    """What is promised to the people in the data.

    Attributes:
        mechanism: ``local`` (each member's own full noise), ``distributed`` (shares under the secure sum) or
            ``none`` (no privacy; for comparison only).
        epsilon, delta: the budget that the whole run may use, per unit, add-or-remove-one.
        unit: what one unit is.
        max_records_per_unit: the cap of records that one unit contributes.
        clipping: how a unit's gradient is bounded: ``flat`` (all weights by one norm), ``per-layer`` (each layer by
            its part of it) or ``automatic`` (every gradient is brought close to the norm, also a short one).
        clipping_norm: L2 bound of one unit's gradient.
        sampling: how a step draws its units. ``poisson``: each by itself with probability `sampling_rate`.
            ``truncated-poisson``: the same, and of a sample above `max_batch_units` a uniformly random part stays.
            ``fixed-batches``: epochs of 1 / `sampling_rate` steps, each unit in one of them by a keyed hash of its id;
            charged without any gain from sampling.
        sampling_rate: the public share of the units that a step is expected to draw.
        max_batch_units: the largest batch of ``truncated-poisson``, at every member. With it the largest declared
            `Member.units` becomes a cap: a member that holds more takes no part.
        steps: noisy optimiser steps over the whole run.
        colluding: how many other members may pool what they know under ``distributed``.
        rotation: under ``distributed``, how a member's sum is turned before it meets the grid. ``randomized-hadamard`` spreads
            what one coordinate holds over all, so that large sums of large models fit the ring.
        noise_in_parts: under ``distributed``, whether members draw their shares in parts and open the surplus once they know
            who contributed. The mean is less noisy; against everyone a member keeps less noise of its own.
    """

    mechanism: Literal["local", "distributed", "none"]
    epsilon: float | None = None
    delta: float | None = None
    unit: Literal["record", "patient"] = "record"
    max_records_per_unit: Count = 1
    clipping: Literal["flat", "per-layer", "automatic"] = "flat"
    clipping_norm: Positive
    sampling: Literal["poisson", "truncated-poisson", "fixed-batches"] = "poisson"
    sampling_rate: float
    max_batch_units: Count | None = None
    steps: Annotated[int, Field(ge=1, le=10_000_000)]
    colluding: Annotated[int, Field(ge=0, le=99)] = 1
    rotation: Literal["none", "randomized-hadamard"] = "none"
    noise_in_parts: bool = False

    def tree(self) -> dict[str, Json]:
        """As `Section.tree`, without options of distributed noise that are not taken.

        So an agreement without them has the same id as before there were any.
        """
        tree = super().tree()
        for name in SHARED_NOISE_OPTIONS:
            if tree[name] == type(self).model_fields[name].default:
                del tree[name]
        return tree


class SecureSum(Section):
    """The secure sum (Bonawitz double masking).

    Attributes:
        min_members: a member takes part in no sum over fewer.
        retries: failed rounds of a run that may be summed again. Each is paid for like any other, so the noise is
            calibrated to `Privacy.steps` and these.
        threat_model: what the coordinator may do.
        post_quantum: hybrid ML-KEM-768 with X25519.
    """

    min_members: Annotated[int, Field(ge=3, le=100)] = 3
    retries: Annotated[int, Field(ge=0, le=1000)] = 0
    threat_model: Literal["malicious", "honest-but-curious"] = "malicious"
    post_quantum: bool = False


class Terms(Section):
    """All that the parties agree on; `hansa.agreement.Agreement.terms_id` is its hash.

    Attributes:
        schema_version: of this file's form.
        baseline: set in derived agreements of a simulation only: the same training on pooled data, or at each
            member alone.
    """

    schema_version: Literal[1] = 1
    task: Task
    members: Annotated[
        tuple[Member, ...], BeforeValidator(as_tuple), Field(min_length=1, max_length=MAX_MEMBERS)
    ]
    data: Data
    model: Model
    adapter: Adapter = Adapter()
    training: Training
    privacy: Privacy
    secure_sum: SecureSum = SecureSum()
    fairness: Fairness = Fairness()
    publication: Publication = Publication()
    evaluation: Evaluation | None = None
    mitigation: Mitigation | None = None
    baseline: Literal["pooled", "local-only"] | None = None

    def tree(self) -> dict[str, Json]:
        """As `Section.tree`, without mitigation where there is none.

        So an agreement without it has the same id as before there was any.
        """
        tree = super().tree()
        if self.mitigation is None:
            del tree["mitigation"]
        return tree

    @property
    def local_steps(self) -> int:
        """Noisy steps that each member takes in a round."""
        return self.privacy.steps // self.training.rounds

    @property
    def charged_steps(self) -> int:
        """Noisy steps that the whole run may take, allowed retries included: what is calibrated and reserved."""
        return self.privacy.steps + self.secure_sum.retries * self.local_steps

    @property
    def charged_evaluations(self) -> int:
        """Tables that a member may release, allowed retries included; 0 where nothing is evaluated."""
        return 0 if self.evaluation is None else self.evaluation.evaluations + self.secure_sum.retries

    @property
    def smallest_sum(self) -> int:
        """No sum is over fewer members: max(t, `SecureSum.min_members`)."""
        return smallest_sum(len(self.members), self.secure_sum.min_members)

    @property
    def private(self) -> bool:
        """Whether any guarantee is claimed."""
        return self.privacy.mechanism != "none"

    @property
    def published(self) -> bool:
        """Whether a run ends with a publication, or with what stood in its way."""
        return bool(self.publication.compress)
