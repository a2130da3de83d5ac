"""An agreement file: read, checked, hashed, derived, frozen.

`terms_id` is the SHA-256 of the canonical JSON of the terms; `agreement_id` that of the frozen agreement, which
adds what is only known once the model exists and the members have keys. Data paths, column mappings,
`[simulation]` and `[performance]` are in neither.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from hansa.agreement.keys import PublicKey, key_problems
from hansa.agreement.local import Performance, Simulation
from hansa.agreement.mitigation import Mitigation
from hansa.agreement.publication import Evaluation, Fairness, Publication
from hansa.agreement.rules import problems_of
from hansa.agreement.section import Name, Positive, Section, Sha256
from hansa.agreement.terms import (
    Adapter,
    CustomModel,
    Data,
    Encoder,
    LogisticModel,
    Member,
    Privacy,
    SecureSum,
    TabularTransformer,
    Task,
    Terms,
    Training,
)
from hansa.canonical import Json, canonical_hash
from hansa.errors import AgreementError, Problem
from hansa.quorum import MAX_MEMBERS

_LOCAL_SECTIONS: Mapping[str, type[Section]] = {"simulation": Simulation, "performance": Performance}


class FrozenModel(Section):
    """Hashes of what every member must hold before the first round.

    Attributes:
        parameters: length of the flat vector of trained weights.
        initial_sha256: of that vector as little-endian float64.
        frozen_sha256: of the weights that are not trained.
        tokenizer_sha256: of the tokenizer's files; absent for tables.
    """

    parameters: Annotated[int, Field(ge=1, le=2**53 - 1)]
    initial_sha256: Sha256
    frozen_sha256: Sha256
    tokenizer_sha256: Sha256 | None = None


class Frozen(Section):
    """What freezing adds to the terms.

    Attributes:
        terms_id: the terms that were frozen.
        model: hashes of model 0.
        noise_multiplier: calibrated from the terms' ε, δ, rate and steps; absent without a mechanism.
        evaluation_noise_multiplier: of one evaluation, from its ε and the number of them; absent without `[evaluation]`.
        member_keys: public keys by member; empty where parties have no identities of their own (a simulation).
        coordinator_key: the coordinator's public key, absent with `member_keys`.
        auditor_keys: public keys of those who may attest but take part in no sum, by name.
    """

    terms_id: Sha256
    model: FrozenModel
    noise_multiplier: Positive | None = None
    evaluation_noise_multiplier: Positive | None = None
    member_keys: Mapping[Name, PublicKey] = {}
    coordinator_key: PublicKey | None = None
    auditor_keys: Mapping[Name, PublicKey] = {}

    def tree(self) -> dict[str, Json]:
        """As `Section.tree`, without the keys of coordinator and auditors where none are pinned, and without noise that nobody adds.

        So an agreement without them has the same id as before there were any.
        """
        tree = super().tree()
        for name in ("evaluation_noise_multiplier", "coordinator_key", "auditor_keys"):
            if not tree[name]:
                del tree[name]
        return tree


@dataclass(frozen=True)
class Agreement:
    """The terms, what stands beside them, and what was frozen.

    Attributes:
        terms: what every party holds in common.
        simulation: `[simulation]`, if the file has one.
        performance: `[performance]`; never part of a hash.
        frozen: present once `hansa agreement freeze`, or a simulation, has fixed model 0.
        folder: where relative paths of the file start.
    """

    terms: Terms
    simulation: Simulation | None = None
    performance: Performance = field(default_factory=Performance)
    frozen: Frozen | None = None
    folder: Path = Path()

    @cached_property
    def terms_id(self) -> str:
        """SHA-256 of the canonical JSON of the terms."""
        return canonical_hash(self.terms.tree())

    @cached_property
    def agreement_id(self) -> str:
        """SHA-256 of the canonical JSON of the frozen agreement.

        Raises:
            AgreementError: the agreement is not frozen yet.
        """
        frozen = self.require_frozen()
        return canonical_hash({"terms": self.terms.tree(), "frozen": frozen.tree()})

    def require_frozen(self) -> Frozen:
        """What freezing added.

        Raises:
            AgreementError: the agreement is not frozen yet.
        """
        if self.frozen is None:
            raise AgreementError(
                "the agreement is not frozen",
                [Problem("", "it has terms but no agreement id yet", "freeze it")],
            )
        return self.frozen

    def freeze(self, frozen: Frozen) -> Agreement:
        """The same agreement with model 0 fixed.

        Raises:
            AgreementError: `frozen` belongs to other terms, or its noise or keys do not fit them.
        """
        if frozen.terms_id != self.terms_id:
            raise AgreementError(
                "the frozen part belongs to other terms",
                [Problem("frozen.terms_id", f"{frozen.terms_id[:12]}… is not {self.terms_id[:12]}…")],
            )
        if (frozen.noise_multiplier is None) == self.terms.private:
            mechanism = self.terms.privacy.mechanism
            what = "is missing" if self.terms.private else "says noise that nobody adds"
            raise AgreementError(
                "the frozen part does not fit the terms",
                [Problem("frozen.noise_multiplier", f"{what}: privacy.mechanism = {mechanism!r}")],
            )
        if (frozen.evaluation_noise_multiplier is None) != (self.terms.evaluation is None):
            what = "says noise that nobody adds" if self.terms.evaluation is None else "is missing"
            raise AgreementError(
                "the frozen part does not fit the terms",
                [
                    Problem(
                        "frozen.evaluation_noise_multiplier",
                        f"{what}: the terms have {'no' if self.terms.evaluation is None else 'an'} [evaluation]",
                    )
                ],
            )
        keys = frozen.member_keys, frozen.coordinator_key, frozen.auditor_keys
        problems = list(key_problems([member.name for member in self.terms.members], *keys))
        if problems:
            raise AgreementError("the pinned keys are not those of the parties", problems)
        return replace(self, frozen=frozen)

    def derive(self, **changes: Mapping[str, Any] | Sequence[Any] | str | None) -> Agreement:
        """An agreement with some terms changed, under its own id and not frozen.

        Args:
            **changes: section name to the keys that change (``privacy={"mechanism": "none"}``), or what
                stands in the section's place (a list of members, a scalar, `None` to leave it out).

        Raises:
            AgreementError: the changed terms break a rule.
        """
        tree = without_none(self.terms.tree())
        for name, change in changes.items():
            if isinstance(change, Mapping):
                merged = {**tree.get(name, {}), **change}
                tree[name] = {key: value for key, value in merged.items() if value is not None}
            elif change is None:
                tree.pop(name, None)
            else:
                tree[name] = change
        terms, problems, _ = _read_terms(tree)
        if terms is None or problems:
            raise AgreementError("the derived agreement cannot be kept", problems)
        return replace(self, terms=terms, frozen=None)

    def with_performance(self, **changes: Any) -> Agreement:
        """The same agreement on this machine with other performance settings; ids stay."""
        tree = {**self.performance.tree(), **changes}
        try:
            return replace(self, performance=Performance.model_validate(tree))
        except ValidationError as error:
            raise AgreementError("performance settings are wrong", told(error, "performance")) from None


def read_agreement(path: Path) -> Agreement:
    """Read and check an agreement file.

    Args:
        path: a TOML file.

    Raises:
        AgreementError: everything that is wrong with it, each with its place.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise AgreementError(f"cannot read {path}", [Problem(str(path), reason)]) from None
    except UnicodeDecodeError:
        raise AgreementError(f"cannot read {path}", [Problem(str(path), "is not UTF-8 text")]) from None
    return parse_agreement(text, folder=path.parent, name=str(path))


def parse_agreement(text: str, *, folder: Path = Path(), name: str = "the agreement") -> Agreement:
    """Read and check the text of an agreement file; see `read_agreement`."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise AgreementError(f"{name} is not TOML", [Problem(name, str(error))]) from None
    local: dict[str, Any] = {}
    problems: list[Problem] = []
    for section, kind in _LOCAL_SECTIONS.items():
        if section in tree:
            try:
                local[section] = kind.model_validate(tree.pop(section))
            except ValidationError as error:
                problems += told(error, section)
    frozen: Frozen | None = None
    if "frozen" in tree:
        try:
            frozen = Frozen.model_validate(tree.pop("frozen"))
        except ValidationError as error:
            problems += told(error, "frozen")
    terms, wrong, sections = _read_terms(tree)
    members_sound = not any(problem.place.partition(".")[0] == "members" for problem in wrong)
    problems = [
        *wrong,
        *problems,
        *_simulation_problems(sections, local.get("simulation"), members_sound=members_sound),
    ]
    if terms is None or problems:
        raise AgreementError(
            f"{name} has {len(problems)} problem{'s' if len(problems) != 1 else ''}", problems
        )
    agreement = Agreement(terms, folder=folder, **local)
    return agreement if frozen is None else agreement.freeze(frozen)


_MODEL_KINDS: Mapping[str, type[Section]] = {
    "logistic": LogisticModel,
    "tabular-transformer": TabularTransformer,
    "encoder": Encoder,
    "custom": CustomModel,
}
_SECTIONS: Mapping[str, type[Section]] = {
    "task": Task,
    "data": Data,
    "adapter": Adapter,
    "training": Training,
    "privacy": Privacy,
    "secure_sum": SecureSum,
    "fairness": Fairness,
    "publication": Publication,
    "evaluation": Evaluation,
    "mitigation": Mitigation,
}


def _read_terms(tree: Mapping[str, Any]) -> tuple[Terms | None, list[Problem], Mapping[str, Any]]:
    """Read each section on its own, so that one broken section does not hide what is wrong in the others.

    Returns:
        The terms if nothing is wrong, what is wrong, and the sections by name, `None` for an unreadable one.
    """
    sections: dict[str, Any] = {}
    known = Terms.model_fields
    problems = [
        Problem(name, "is not a section of an agreement", f"known are {', '.join(known)}")
        for name in tree
        if name not in known
    ]
    for name, info in known.items():
        if name not in tree:
            if info.is_required():
                problems.append(Problem(name, "the section is missing"))
        elif name == "members":
            sections[name] = _read_members(tree[name], problems)
        elif name == "model":
            sections[name] = _read_model(tree[name], problems)
        elif name in _SECTIONS:
            sections[name] = _read_section(_SECTIONS[name], tree[name], name, problems)
        else:
            sections[name] = tree[name]
    version = sections.get("schema_version", 1)
    if not isinstance(version, int) or isinstance(version, bool) or version != 1:
        problems.append(Problem("schema_version", "is not known to this release", "schema_version = 1"))
    if sections.get("baseline") not in (None, "pooled", "local-only"):
        problems.append(Problem("baseline", "is neither 'pooled' nor 'local-only'"))
    problems += problems_of(sections)
    # every part was validated above, so the whole is put together without building its schema once more
    return (None if problems else Terms.model_construct(**sections)), problems, sections


def _read_section(kind: type[Section], value: Any, place: str, problems: list[Problem]) -> Any:
    """One section, or `None` with its problems told; unknown keys are told and the rest is still read."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        problems += told(error, place)
        unknown = {
            item["loc"][0]
            for item in error.errors()
            if item["type"] == "extra_forbidden" and len(item["loc"]) == 1
        }
        if not unknown or not isinstance(value, Mapping):
            return None
    try:
        return kind.model_validate({key: item for key, item in value.items() if key not in unknown})
    except ValidationError:
        return None


def _read_members(value: Any, problems: list[Problem]) -> tuple[Member, ...] | None:
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= MAX_MEMBERS:
        problems.append(Problem("members", f"must be 1 to {MAX_MEMBERS} tables [[members]]"))
        return None
    read = [_read_section(Member, item, f"members.{i}", problems) for i, item in enumerate(value)]
    return None if None in read else tuple(read)


def _read_model(value: Any, problems: list[Problem]) -> Any:
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if not isinstance(kind, str) or kind not in _MODEL_KINDS:
        problems.append(
            Problem("model.kind", f"{kind!r} is not known", f"use one of {', '.join(_MODEL_KINDS)}")
        )
        return None
    return _read_section(_MODEL_KINDS[kind], value, "model", problems)


def without_none(value: Any) -> Any:
    """A tree without its absent keys, as TOML wants it."""
    if isinstance(value, Mapping):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    return [without_none(item) for item in value] if isinstance(value, list) else value


def told(error: ValidationError, section: str = "") -> list[Problem]:
    """Pydantic's findings as places in the file and plain words; no value of the file is repeated."""
    words = {
        "extra_forbidden": "is not a key of this section",
        "missing": "is missing",
        "union_tag_not_found": "needs a key 'kind'",
    }
    found = []
    for item in error.errors(include_url=False, include_input=False):
        place = ".".join(str(part) for part in (section, *item["loc"]) if part != "")
        found.append(Problem(place, words.get(item["type"], item["msg"].lower())))
    return found


def _simulation_problems(
    sections: Mapping[str, Any], simulation: Simulation | None, *, members_sound: bool
) -> list[Problem]:
    """`[simulation]` must speak of the members and columns that the terms name."""
    if simulation is None:
        return []
    problems: list[Problem] = []
    data: Data | None = sections.get("data")
    if data is not None:
        columns = {data.label, *(f.name for f in data.features), *(g.name for g in data.groups)}
        if data.unit is not None:
            columns.add(data.unit)
        problems += [
            Problem(
                f"simulation.columns.{name}",
                "is no column of the agreement",
                f"known are {', '.join(sorted(columns))}",
            )
            for name in simulation.columns
            if name not in columns
        ]
        planted = simulation.planted
        if planted is not None and planted.value not in {
            value for group in data.groups if group.name == planted.attribute for value in group.values
        }:
            problems.append(
                Problem("simulation.planted", f"{planted.attribute}={planted.value} is no declared group")
            )
    named: set[str] | None = None
    if simulation.partition.kind == "files":
        named = set(simulation.partition.files)
    elif simulation.partition.kind == "column":
        named = set(simulation.partition.values)
    if named is not None and members_sound and sections.get("baseline") is None:
        members = {member.name for member in sections["members"]}
        problems += [
            Problem("simulation.partition", f"{name!r} is no member of the agreement")
            for name in sorted(named - members)
        ]
        problems += [
            Problem("simulation.partition", f"no data are named for member {name!r}")
            for name in sorted(members - named)
        ]
    return problems
