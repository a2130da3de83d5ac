"""Checking a package: with public keys and the folder, no torch, no network."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from hansa.agreement import Agreement, parse_agreement
from hansa.agreement.terms import TextFeature
from hansa.artifact import contents
from hansa.artifact.contents import FairnessTable, GateEvidence, Part, PrivacyStatement
from hansa.artifact.errors import ModelFileError, PackageError
from hansa.artifact.graph import MAX_MODEL_BYTES, Graph, read_graph
from hansa.artifact.judged import recompute, same_table
from hansa.artifact.signing import SIGNATURE, read_signature
from hansa.canonical import sha256_hex
from hansa.errors import HansaError, Problem, UsageError
from hansa.fairness.evaluated import Evaluated
from hansa.ledger import Publication, SignedEntry, TlogProof, TrustedKeys

MAX_FILES = 64
_MAX_BYTES = 64 * 1024 * 1024  # of a file other than the model's
_SAME_EPSILON = 1e-3  # two releases of the accountant's libraries may differ in the last digits

_Part = TypeVar("_Part", bound=Part)


@dataclass(frozen=True)
class VerifiedPackage:
    """A package that is what it says.

    Attributes:
        folder: of it.
        name: of the model.
        agreement: under which it was trained.
        entry: of its publication.
        graph: of its model.
        privacy, fairness: what it says of itself.
        evaluated: the private evaluation that it was judged by.
        approved_by: members that approved the publication.
        cosigned_by: witnesses of the checkpoint.
        keys: by whose word.
        keys_of_package: whether the keys came out of the package itself, so that they prove nothing about who.
    """

    folder: Path
    name: str
    agreement: Agreement
    entry: Publication
    graph: Graph
    privacy: PrivacyStatement
    fairness: FairnessTable
    evaluated: Evaluated
    approved_by: tuple[str, ...]
    cosigned_by: tuple[str, ...]
    keys: TrustedKeys
    keys_of_package: bool

    @property
    def texts(self) -> bool:
        """Whether the model reads texts; otherwise tables."""
        return any(isinstance(feature, TextFeature) for feature in self.agreement.terms.data.features)

    def read(self, file: str) -> bytes:
        """The bytes of a file of the package, as they were verified.

        Raises:
            PackageError: they are others by now.
        """
        data = (self.folder / file).read_bytes()
        if sha256_hex(data) != self.entry.files[file]:
            raise PackageError(
                "the package was changed while it was used", [Problem(file, "has other bytes")]
            )
        return data


def verify_package(folder: Path, keys: TrustedKeys | None = None) -> VerifiedPackage:
    """Check everything in a package.

    In order: which files there are; the signature over all of them by the coordinator's pinned key; each file's hash;
    the publication's entry, its approvals by a quorum of members, and that it names these files; its place in the
    federation's log under a checkpoint that enough members cosigned; then what the documents say: the agreement's id,
    the model's operators, the weights' metadata, ε recomputed from the events, that the evaluated file is the one here.

    Args:
        folder: of the package.
        keys: that came another way. Without them those in the package are used, and only a fingerprint that people
            compare says whose they are.

    Guarantees: a byte that was changed, added or taken away anywhere in the folder is found.
    Assumes: SHA-256 and ECDSA, and that `keys` are those of the federation.

    Raises:
        PackageError: everything that is wrong, as far as it can be told.
        UsageError: the folder cannot be read.
    """
    hashes = _hashes(folder)
    own = _keys(folder)
    trusted = keys or own
    name, signed = read_signature((folder / SIGNATURE).read_bytes(), trusted.coordinator)
    problems = list(_differences(hashes, signed))
    if problems:
        raise PackageError("the package is not what was signed", problems)
    entry, approved, cosigned = _logged(folder, trusted, hashes)
    agreement = _agreement(folder, trusted)
    texts = any(isinstance(feature, TextFeature) for feature in agreement.terms.data.features)
    wanted = {*contents.file_names(texts=texts), *contents.SEALED}
    problems += [Problem(file, "is missing from the package") for file in sorted(wanted - set(signed))]
    problems += [Problem(file, "is no part of a package") for file in sorted(set(signed) - wanted)]
    if problems:
        raise PackageError("the package is not complete", problems)
    graph = _graph(folder)
    privacy = _read(folder / contents.PRIVACY_JSON, PrivacyStatement)
    fairness = _read(folder / contents.FAIRNESS, FairnessTable)
    evidence = _read(folder / contents.GATE, GateEvidence)
    problems = [
        *_told(agreement, entry, privacy, fairness, hashes),
        *_ports(graph, agreement, texts=texts),
        *_weights(folder / contents.WEIGHTS, agreement),
    ]
    if problems:
        raise PackageError("the package contradicts itself", problems)
    evaluated = _gate(agreement, entry, evidence, privacy, fairness, trusted)
    return VerifiedPackage(
        folder,
        name,
        agreement,
        entry,
        graph,
        privacy,
        fairness,
        evaluated,
        approved,
        cosigned,
        trusted,
        keys is None,
    )


def _gate(
    agreement: Agreement,
    entry: Publication,
    evidence: GateEvidence,
    privacy: PrivacyStatement,
    fairness: FairnessTable,
    keys: TrustedKeys,
) -> Evaluated:
    """Decide anew, from the noisy sums that members approved."""
    closed = "the package did not go through the gate"
    try:
        gate, table, evaluated = recompute(evidence, privacy, agreement, keys.keyring, entry.gate_sha256)
    except HansaError as error:
        raise PackageError(closed, [Problem(contents.GATE, error.cause)]) from None
    if (gate.run, gate.artifact_sha256) != (entry.run, entry.artifact_sha256):
        raise PackageError(closed, [Problem(contents.GATE, "is of another run or file than was published")])
    if not same_table(table, fairness):
        raise PackageError(
            closed, [Problem(contents.FAIRNESS, "is not the quality that follows from the noisy sums")]
        )
    return evaluated


def _hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but the signature."""
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise UsageError(
            f"cannot read {folder}: {error.strerror}", remedy="Name the package's folder."
        ) from None
    problems = [
        Problem(path.name, "is no plain file") for path in paths if path.is_symlink() or not path.is_file()
    ]
    if len(paths) > MAX_FILES:
        problems.append(Problem(str(folder), f"holds {len(paths)} files; a package has at most {MAX_FILES}"))
    there = {path.name for path in paths}
    problems += [
        Problem(required, "is missing from the package")
        for required in (SIGNATURE, contents.KEYS)
        if required not in there
    ]
    if problems:
        raise PackageError(f"{folder} is no package", problems)
    found = {}
    for path in paths:
        limit = MAX_MODEL_BYTES if path.name in (contents.MODEL, contents.WEIGHTS) else _MAX_BYTES
        if path.stat().st_size > limit:
            raise PackageError(
                f"{folder} is no package", [Problem(path.name, f"has more than {limit:,} bytes")]
            )
        if path.name != SIGNATURE:
            with path.open("rb") as stream:
                found[path.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


def _keys(folder: Path) -> TrustedKeys:
    try:
        return TrustedKeys.read(folder / contents.KEYS)
    except HansaError as error:
        raise PackageError("the package has no keys", [Problem(contents.KEYS, error.cause)]) from None


def _differences(there: dict[str, str], signed: dict[str, str]) -> Iterator[Problem]:
    for file in sorted(there.keys() | signed.keys()):
        if file not in there:
            yield Problem(file, "was signed and is missing")
        elif file not in signed:
            yield Problem(file, "is there and was not signed")
        elif there[file] != signed[file]:
            yield Problem(file, "has other bytes than were signed")


def _logged(
    folder: Path, keys: TrustedKeys, hashes: dict[str, str]
) -> tuple[Publication, tuple[str, ...], tuple[str, ...]]:
    """The publication's entry, who approved it and who cosigned the log that holds it."""
    not_published = "the package was not published"
    try:
        data = (folder / contents.ENTRY).read_bytes()
        proof = (folder / contents.PROOF).read_bytes()
    except OSError:
        raise PackageError(not_published, [Problem(contents.ENTRY, "or its proof is missing")]) from None
    try:
        signed = SignedEntry.parse(data)
        keys.keyring.verify(signed)
        seen = TlogProof.parse(proof).verify(data, keys.federation)
    except HansaError as error:
        raise PackageError(not_published, [Problem(contents.ENTRY, error.cause)]) from None
    entry = signed.entry
    if not isinstance(entry, Publication):
        raise PackageError(not_published, [Problem(contents.ENTRY, f"is a {entry.type}")])
    drafted = {name: digest for name, digest in hashes.items() if name not in contents.SEALED}
    problems = list(_differences(drafted, dict(entry.files)))
    if entry.artifact_sha256 != hashes.get(contents.MODEL):
        problems.append(Problem(contents.MODEL, "is not the file that went through the gate"))
    if problems:
        raise PackageError("members approved other files", problems)
    approved = tuple(s.signer for s in signed.statements if s.signer in keys.members)
    return entry, approved, tuple(sorted(seen.cosigned))


def _agreement(folder: Path, keys: TrustedKeys) -> Agreement:
    try:
        text = (folder / contents.AGREEMENT).read_text(encoding="utf-8")
        agreement = parse_agreement(text, name=contents.AGREEMENT)
        same = agreement.agreement_id == keys.agreement_id
    except (OSError, UnicodeDecodeError):
        raise PackageError(
            "the package has no agreement", [Problem(contents.AGREEMENT, "cannot be read")]
        ) from None
    except HansaError as error:
        raise PackageError(
            "the package has no agreement", [Problem(contents.AGREEMENT, error.cause)]
        ) from None
    if not same:
        raise PackageError(
            "the package is of another agreement",
            [Problem(contents.AGREEMENT, f"is {agreement.agreement_id[:12]}…, and the keys are of another")],
        )
    pinned = dict(agreement.require_frozen().member_keys)
    if pinned and pinned != dict(keys.members):
        raise PackageError(
            "the package is of another roster",
            [Problem(contents.KEYS, "are not those that the agreement pins")],
        )
    return agreement


def _graph(folder: Path) -> Graph:
    try:
        return read_graph((folder / contents.MODEL).read_bytes())
    except ModelFileError as error:
        raise PackageError("the package's model is not run", [Problem(contents.MODEL, error.cause)]) from None


def _read(path: Path, kind: type[_Part]) -> _Part:
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise PackageError(
            "a document is not in its form", [Problem(f"{path.name}: {place}", first["msg"])]
        ) from None


def _told(
    agreement: Agreement,
    entry: Publication,
    privacy: PrivacyStatement,
    fairness: FairnessTable,
    hashes: dict[str, str],
) -> Iterator[Problem]:
    terms = agreement.terms
    if entry.agreement_id != agreement.agreement_id or privacy.agreement_id != agreement.agreement_id:
        yield Problem(contents.PRIVACY_JSON, "or the publication's entry is of another agreement")
    if fairness.artifact_sha256 != hashes[contents.MODEL]:
        yield Problem(contents.FAIRNESS, "was measured on another file than model.onnx")
    said = (privacy.unit, privacy.mechanism, privacy.max_records_per_unit)
    if said != (terms.privacy.unit, terms.privacy.mechanism, terms.privacy.max_records_per_unit):
        yield Problem(contents.PRIVACY_JSON, "has another unit, mechanism or cap than the agreement")
    if privacy.claimed and privacy.delta is not None:
        for loss in privacy.losses:
            real = loss.spent.epsilon(privacy.delta)
            if math.isnan(real):
                yield Problem(f"{contents.PRIVACY_JSON}: {loss.member}", "has events that cannot be composed")
                continue
            if abs(real - loss.epsilon) > _SAME_EPSILON * max(1.0, real):
                yield Problem(
                    f"{contents.PRIVACY_JSON}: {loss.member}",
                    f"states ε = {loss.epsilon:.4g}, and its events give {real:.4g}",
                )
        if privacy.delta != terms.privacy.delta:
            yield Problem(contents.PRIVACY_JSON, "has another δ than the agreement")


def _ports(graph: Graph, agreement: Agreement, *, texts: bool) -> Iterator[Problem]:
    names = {port.name for port in graph.inputs}
    wanted = {"input_ids", "attention_mask"} if texts else {"table"}
    if names != wanted:
        yield Problem(contents.MODEL, f"takes {', '.join(sorted(names))}, not {', '.join(sorted(wanted))}")
    classes = len(agreement.terms.task.labels)
    if len(graph.outputs) != 1 or graph.outputs[0].shape[-1:] != (classes,):
        yield Problem(contents.MODEL, f"does not give {classes} scores")


def _weights(path: Path, agreement: Agreement) -> Iterator[Problem]:
    """The header of a safetensors file, without the library: a length, JSON, then bytes that the JSON places."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 0 < length <= min(size - 8, _MAX_BYTES):
            yield Problem(contents.WEIGHTS, "is no safetensors file")
            return
        try:
            header = json.loads(stream.read(length))
            metadata = dict(header.pop("__metadata__", {}))
            ends = [int(described["data_offsets"][1]) for described in header.values()]
        except (ValueError, TypeError, KeyError, AttributeError, IndexError):
            yield Problem(contents.WEIGHTS, "is no safetensors file")
            return
    if max(ends, default=0) != size - 8 - length:
        yield Problem(contents.WEIGHTS, "is cut short, or longer than its header says")
    if metadata.get("agreement_id") != agreement.agreement_id:
        yield Problem(contents.WEIGHTS, "is not marked with the agreement's id")
