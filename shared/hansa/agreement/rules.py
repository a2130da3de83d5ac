"""Rules between the sections of an agreement: what types alone cannot say.

Each rule adds to one list, so that a person sees everything at once. Sections that could not be read are
`None`, and the rules that need them are passed over: their own errors are told already.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hansa.agreement.evaluating import evaluation_problems
from hansa.agreement.keys import COORDINATOR
from hansa.agreement.mitigation import mitigation_problems
from hansa.agreement.publication import Fairness, Publication
from hansa.agreement.publication_rules import publication_problems
from hansa.agreement.section import Section
from hansa.agreement.terms import (
    SHARED_NOISE_OPTIONS,
    Adapter,
    BandGroup,
    CategoryFeature,
    CategoryGroup,
    Data,
    Encoder,
    Member,
    Model,
    NumberFeature,
    Privacy,
    SecureSum,
    ServerRule,
    Task,
    TextFeature,
    Training,
)
from hansa.errors import Problem
from hansa.privacy.clipping import LEAST_NORM, MOST_NORM
from hansa.quorum import members_for, smallest_sum, threshold

RESERVED_NAMES = frozenset({COORDINATOR, "simulation-verifier"})  # signers beside the members
MAX_INTEGER = 2**53 - 1  # RFC 8785 writes numbers as IEEE 754 doubles
SUPPORTED_RULES = ("fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad", "adamw")
INDIVIDUAL_UPDATE_RULES = {
    "krum", "multikrum", "bulyan", "fedmedian", "fedtrimmedavg", "qfedavg", "fedprox-server", "trimmed-mean",
    "median",
}  # fmt: skip


def problems_of(sections: Mapping[str, Any]) -> list[Problem]:
    """Every broken rule, for sections by their names; sections that are missing or unreadable are `None`."""
    found: list[Problem] = []
    task: Task | None = sections.get("task")
    members: tuple[Member, ...] | None = sections.get("members")
    data: Data | None = sections.get("data")
    model: Model | None = sections.get("model")
    adapter: Adapter = sections.get("adapter") or Adapter()
    training: Training | None = sections.get("training")
    privacy: Privacy | None = sections.get("privacy")
    baseline = sections.get("baseline")
    if task is not None:
        found += _repeated("task.labels", task.labels)
    if members is not None:
        found += _repeated("members", [member.name for member in members])
    if data is not None:
        found += _data(data)
    if privacy is not None:
        found += _privacy(privacy, members, data)
        found += _sampling(privacy, members if baseline is None else None, training)
    if privacy is not None and training is not None and privacy.steps % training.rounds:
        found.append(
            Problem(
                "training.rounds",
                f"{training.rounds} rounds do not divide privacy.steps = {privacy.steps}",
                "every round takes the same number of steps",
            )
        )
    if training is not None:
        found += _server_rule(training.server)
        found += _schedule(training)
    if model is not None and data is not None:
        found += _model(model, adapter, data)
    if privacy is not None and privacy.mechanism != "distributed":
        found += _unshared(privacy)
    if privacy is not None and privacy.mechanism == "distributed" and baseline is None:
        found += _distributed(privacy, training, members, sections.get("secure_sum") or SecureSum())
    if members is not None and baseline is None:
        found += _sum(sections.get("secure_sum") or SecureSum(), members)
    fairness: Fairness = sections.get("fairness") or Fairness()
    if data is not None:
        found += _fairness(fairness, data)
    if sections.get("evaluation") is not None:
        found += evaluation_problems(sections)
    if sections.get("mitigation") is not None:
        found += mitigation_problems(sections)
    publication: Publication | None = sections.get("publication")
    if publication is not None and baseline is None:
        found += publication_problems(publication, sections.get("evaluation"), fairness, privacy, task, data)
    told = {problem.place for problem in found}
    for name, section in sections.items():
        found += [problem for problem in _expressible(name, section) if problem.place not in told]
    return found


def _expressible(place: str, value: object) -> Iterator[Problem]:
    """Numbers that canonical JSON cannot say would leave the terms without an id."""
    if isinstance(value, Section):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _expressible(f"{place}.{name}", item)
    elif isinstance(value, tuple | list):
        for i, item in enumerate(value):
            yield from _expressible(f"{place}.{i}", item)
    elif isinstance(value, float) and not math.isfinite(value):
        yield Problem(place, f"{value:g} is not a finite number")
    elif isinstance(value, int) and abs(value) > MAX_INTEGER:
        yield Problem(place, f"{value} is beyond what JSON numbers hold exactly", "at most 2^53 - 1")


def _repeated(place: str, names: Iterable[str]) -> Iterator[Problem]:
    for name, count in Counter(names).items():
        if count > 1:
            yield Problem(place, f"{name!r} is named {count} times", "names must differ")


def _data(data: Data) -> Iterator[Problem]:
    yield from _repeated("data.features", [feature.name for feature in data.features])
    yield from _repeated("data.groups", [group.name for group in data.groups])
    if data.unit == data.label:
        yield Problem("data.unit", "is the label", "name the column that says to whom a record belongs")
    for place, feature in ((f"data.features.{f.name}", f) for f in data.features):
        if feature.name == data.label:
            yield Problem(place, "the label is also a feature", "the model would see the answer")
        if isinstance(feature, NumberFeature):
            low, high = feature.range
            if not low < high:
                yield Problem(f"{place}.range", f"{low:g} is not below {high:g}", "write range = [low, high]")
            elif isinstance(feature.missing, float | int) and not low <= feature.missing <= high:
                yield Problem(f"{place}.missing", f"{feature.missing:g} is outside the public range")
        if isinstance(feature, CategoryFeature):
            yield from _repeated(f"{place}.values", feature.values)
            for word in sorted({"drop", "own"}.intersection(feature.values)):
                yield Problem(
                    f"{place}.values", f"{word!r} is a word of `missing`", "name the value otherwise"
                )
            if feature.missing not in ("drop", "own", *feature.values):
                yield Problem(
                    f"{place}.missing", f"{feature.missing!r} is not a value", "use drop, own or a value"
                )
            if feature.baseline is not None and feature.baseline not in feature.values:
                yield Problem(f"{place}.baseline", f"{feature.baseline!r} is not one of the values")
    for group in data.groups:
        place = f"data.groups.{group.name}"
        if isinstance(group, CategoryGroup):
            yield from _repeated(f"{place}.values", group.values)
        if isinstance(group, BandGroup) and list(group.edges) != sorted(set(group.edges)):
            yield Problem(f"{place}.edges", "edges must increase")
        elif isinstance(group, BandGroup):
            yield from _repeated(f"{place}.edges", group.values)


def _privacy(privacy: Privacy, members: tuple[Member, ...] | None, data: Data | None) -> Iterator[Problem]:
    if not 0 < privacy.sampling_rate <= 1:
        yield Problem(
            "privacy.sampling_rate", f"{privacy.sampling_rate:g} is outside (0, 1]", "a share of the units"
        )
    if privacy.mechanism != "none":
        if privacy.epsilon is None or not 0 < privacy.epsilon < float("inf"):
            shown = "missing" if privacy.epsilon is None else f"{privacy.epsilon:g}"
            yield Problem("privacy.epsilon", f"is {shown}", "a finite number above 0")
        if not LEAST_NORM <= privacy.clipping_norm <= MOST_NORM:
            yield Problem(
                "privacy.clipping_norm",
                f"{privacy.clipping_norm:g} is outside [{LEAST_NORM:g}, {MOST_NORM:g}]",
                "scale the inputs",
            )
        if privacy.delta is None:
            yield Problem("privacy.delta", "is missing", "a number below 1 / units of every member")
        elif not 0 < privacy.delta < 1:
            yield Problem("privacy.delta", f"{privacy.delta:g} is outside (0, 1)")
        elif members:
            largest = max(member.units for member in members)
            if privacy.delta >= 1 / largest:
                yield Problem(
                    "privacy.delta",
                    f"{privacy.delta:g} is not below 1 / {largest} = {1 / largest:.2g}, "
                    "and would allow to publish a whole record",
                    "choose a much smaller one",
                )
    if privacy.unit == "patient" and data is not None and data.unit is None:
        yield Problem("data.unit", "is missing", "unit = 'patient' needs the column that names the patient")
    if privacy.unit == "record" and privacy.max_records_per_unit != 1:
        yield Problem("privacy.max_records_per_unit", "must be 1 when the unit is a record")


def _sampling(
    privacy: Privacy, members: tuple[Member, ...] | None, training: Training | None
) -> Iterator[Problem]:
    """How batches are drawn; `members` are `None` in a baseline, where other sizes than the agreed ones are seen."""
    if not 0 < privacy.sampling_rate <= 1:
        return  # told already
    place = "privacy.max_batch_units"
    if privacy.sampling == "truncated-poisson":
        if privacy.sampling_rate == 1:
            yield Problem("privacy.sampling_rate", "is 1, and every batch would be cut", "below 1")
        elif privacy.max_batch_units is None:
            yield Problem(place, "is missing", "sampling = 'truncated-poisson' needs the largest batch")
        elif members:
            yield from _largest_batch(privacy, privacy.max_batch_units, max(m.units for m in members))
    elif privacy.max_batch_units is not None:
        yield Problem(
            place, f"means nothing under sampling = {privacy.sampling!r}", "use 'truncated-poisson'"
        )
    if privacy.sampling == "fixed-batches":
        yield from _epochs(privacy, training)


def _largest_batch(privacy: Privacy, batch: int, units: int) -> Iterator[Problem]:
    expected = privacy.sampling_rate * units
    if batch >= units:
        yield Problem(
            "privacy.max_batch_units",
            f"{batch} is not below the {units} units of the largest member, and nothing would ever be cut",
            "use sampling = 'poisson'",
        )
    elif batch <= expected:
        yield Problem(
            "privacy.max_batch_units",
            f"{batch} is not above the {expected:g} units that the largest member draws on average",
            "every second batch would be cut, and each cut costs privacy: allow some standard deviations more",
        )


def _epochs(privacy: Privacy, training: Training | None) -> Iterator[Problem]:
    batches = round(1 / privacy.sampling_rate)
    if not math.isclose(batches * privacy.sampling_rate, 1, rel_tol=1e-9):
        yield Problem(
            "privacy.sampling_rate",
            f"{privacy.sampling_rate:g} is not 1 divided by a whole number",
            "fixed batches share an epoch out in equal parts",
        )
    elif training is not None and (privacy.steps // training.rounds) % batches:
        yield Problem(
            "privacy.steps",
            f"{privacy.steps // training.rounds} steps in a round are no whole epochs of {batches} fixed batches",
            "every round takes whole epochs: an epoch that is cut short costs as much as a whole one",
        )
    if privacy.mechanism == "distributed":
        yield Problem(
            "privacy.sampling",
            "fixed batches do not go with distributed noise, whose steps are rounds of their own",
            "use 'poisson'",
        )


def _distributed(
    privacy: Privacy, training: Training | None, members: tuple[Member, ...] | None, secure_sum: SecureSum
) -> Iterator[Problem]:
    """Noise in shares: each step is a secure sum of its own, and somebody honest is in each."""
    if training is not None and privacy.steps != training.rounds:
        yield Problem(
            "training.rounds",
            f"{training.rounds} rounds for {privacy.steps} steps: under 'distributed' each step is a round, a secure sum of its own",
            "write training.rounds = privacy.steps",
        )
    if privacy.colluding < 1:
        yield Problem(
            "privacy.colluding",
            "is 0, and every member knows its own share of the noise: against a member no promise would hold",
            "at least 1",
        )
    if privacy.noise_in_parts:
        yield from _noise_in_parts(privacy, members, secure_sum)
    if not members:
        return
    for i, member in enumerate(members):
        if member.weight is not None:
            yield Problem(
                f"members.{i}.weight",
                "is set by hand, and under 'distributed' every unit counts the same, whoever holds it",
                "leave it out",
            )
    smallest = smallest_sum(len(members), secure_sum.min_members)
    if smallest - privacy.colluding < 1:
        enough = members_for(1, privacy.colluding, secure_sum.min_members)
        yield Problem(
            "privacy.colluding",
            f"{privacy.colluding} of the {smallest} members of the smallest sum may subtract their shares, which leaves no noise",
            f"{enough} members would do, or a smaller number",
        )


def _noise_in_parts(
    privacy: Privacy, members: tuple[Member, ...] | None, secure_sum: SecureSum
) -> Iterator[Problem]:
    """Parts are opened for one set of survivors, which needs members that agree on one."""
    if secure_sum.threat_model != "malicious":
        yield Problem(
            "privacy.noise_in_parts",
            "opens noise for the survivors that members have signed, and under threat_model = 'honest-but-curious' they sign none",
            "use threat_model = 'malicious', or leave it out",
        )
    if members and privacy.colluding >= 2 * threshold(len(members)) - len(members):
        most = 2 * threshold(len(members)) - len(members) - 1
        yield Problem(
            "privacy.noise_in_parts",
            f"{privacy.colluding} of {len(members)} members that collude could have two sets of survivors signed, and more "
            "noise opened than either allows",
            f"at most privacy.colluding = {most}, or leave it out",
        )


def _unshared(privacy: Privacy) -> Iterator[Problem]:
    for name in SHARED_NOISE_OPTIONS:
        if getattr(privacy, name) != Privacy.model_fields[name].default:
            yield Problem(
                f"privacy.{name}",
                f"means nothing under mechanism = {privacy.mechanism!r}, where members share no noise",
                "use mechanism = 'distributed', or leave it out",
            )


def _server_rule(server: ServerRule) -> Iterator[Problem]:
    rule = server.rule
    if rule in SUPPORTED_RULES:
        return
    if rule in INDIVIDUAL_UPDATE_RULES:
        yield Problem(
            "training.server.rule",
            f"{rule!r} reads every member's own update, which a secure sum never shows",
            f"use one of {', '.join(SUPPORTED_RULES)}",
        )
    else:
        yield Problem(
            "training.server.rule", f"{rule!r} is not known", f"use one of {', '.join(SUPPORTED_RULES)}"
        )


def _schedule(training: Training) -> Iterator[Problem]:
    """The server's learning rate over the rounds, and how fast it lets weights decay."""
    server = training.server
    if server.weight_decay and server.rule != "adamw":
        yield Problem(
            "training.server.weight_decay",
            f"means nothing under rule = {server.rule!r}",
            "use rule = 'adamw', or leave it out",
        )
    elif server.weight_decay * server.learning_rate >= 1:
        yield Problem(
            "training.server.weight_decay",
            f"{server.weight_decay:g} times the learning rate {server.learning_rate:g} is not below 1",
            "each round would erase the weights: choose a smaller one, 0.01 is usual",
        )
    if server.warmup_rounds >= training.rounds:
        yield Problem(
            "training.server.warmup_rounds",
            f"{server.warmup_rounds} is not below training.rounds = {training.rounds}",
            "the warm-up would not end",
        )
    if server.end_factor and server.schedule == "constant":
        yield Problem(
            "training.server.end_factor",
            "means nothing under schedule = 'constant'",
            "use schedule = 'linear' or 'cosine', or leave it out",
        )


def _model(model: Model, adapter: Adapter, data: Data) -> Iterator[Problem]:
    texts = [feature.name for feature in data.features if isinstance(feature, TextFeature)]
    if isinstance(model, Encoder):
        if len(texts) != 1 or len(data.features) != 1:
            yield Problem(
                "data.features", "an encoder reads exactly one text feature", "leave the others out"
            )
        if (model.source is None) == (model.config is None):
            yield Problem(
                "model", "name either a source or a config", "a source has weights, a config has none"
            )
        if model.config is not None and "model_type" not in model.config:
            yield Problem("model.config.model_type", "is missing", "for example model_type = 'bert'")
        if model.config is not None and model.vocabulary is None:
            yield Problem("model.vocabulary", "is missing", "a model from a config needs a public vocabulary")
        if model.pooling == "mean" and adapter.kind == "head" and not adapter.train_head:
            yield Problem("adapter.train_head", "nothing would be trained")
    elif model.kind != "custom":
        if texts:
            yield Problem(
                "data.features", f"{model.kind} cannot read the text {texts[0]!r}", "use kind = 'encoder'"
            )
        if adapter.kind != "none":
            yield Problem("adapter.kind", f"{adapter.kind} needs an encoder", "leave the section out")
        if model.kind == "tabular-transformer" and model.width % model.heads:
            yield Problem("model.heads", f"{model.heads} heads do not divide a width of {model.width}")


def _sum(secure_sum: SecureSum, members: tuple[Member, ...]) -> Iterator[Problem]:
    for i, member in enumerate(members):
        if member.name in RESERVED_NAMES:
            yield Problem(
                f"members.{i}.name", f"{member.name!r} signs for somebody else", "choose another name"
            )
    if len(members) < secure_sum.min_members:
        yield Problem(
            "members",
            f"{len(members)} members are fewer than secure_sum.min_members = {secure_sum.min_members}",
            "a sum over fewer would show single contributions",
        )


def _fairness(fairness: Fairness, data: Data) -> Iterator[Problem]:
    known = {f"{group.name}={value}" for group in data.groups for value in group.values}
    for name in fairness.exempt:
        if name not in known:
            yield Problem("fairness.exempt", f"{name!r} is no declared group", "write attribute=value")
