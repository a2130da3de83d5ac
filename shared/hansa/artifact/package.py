"""Writing a package: first its documents, then, once members have approved them, the proof and the signature.

    draft = draft_package(folder, …)       model, card, statements, report, bill of materials; gives their hashes
    entry = Publication(files=draft, …)    signed by the coordinator and a quorum of members, and logged
    seal_package(folder, entry, proof, signer)

The entry names every drafted file by its hash; the signature covers these, the entry and the proof.
"""

from __future__ import annotations

from pathlib import Path

from hansa.agreement import Agreement
from hansa.agreement.writing import agreement_toml
from hansa.artifact import contents
from hansa.artifact.bom import bill_of_materials
from hansa.artifact.card import model_card
from hansa.artifact.contents import FairnessTable, GateEvidence, PrivacyStatement, Release, part_bytes
from hansa.artifact.errors import PackageError, PublicationExistsError
from hansa.artifact.graph import read_graph
from hansa.artifact.page import publication_page
from hansa.artifact.privacy import statement_text
from hansa.artifact.signing import SIGNATURE, write_signature
from hansa.canonical import sha256_hex
from hansa.errors import Problem, UsageError
from hansa.identity import Signer
from hansa.identity.files import write_new
from hansa.ledger import Publication, SignedEntry, TlogProof, TrustedKeys


def draft_package(
    folder: Path,
    agreement: Agreement,
    release: Release,
    privacy: PrivacyStatement,
    fairness: FairnessTable,
    evidence: GateEvidence,
    keys: TrustedKeys,
    *,
    model: bytes,
    weights: bytes,
    tokenizer: str | None = None,
) -> dict[str, str]:
    """Write everything that members approve.

    Args:
        folder: made here; it must not exist.
        agreement: frozen; its file is written without `[simulation]` and `[performance]`, which are of one machine.
        release, privacy, fairness: what the documents say.
        evidence: from which the gate is recomputed.
        keys: whose word counts about the federation's log.
        model: the ONNX file that ships; the very file that was evaluated.
        weights: the same model before ONNX, as safetensors with metadata.
        tokenizer: ``tokenizer.json`` with its truncation and padding; for texts.

    Returns:
        SHA-256 by file name.

    Raises:
        PublicationExistsError: the folder is there already.
        PackageError: the fairness table is of another file, or the keys are of another agreement.
        ModelFileError: the model holds what nobody would run.
        UsageError: something cannot be written.
    """
    read_graph(model)
    problems = []
    if fairness.artifact_sha256 != sha256_hex(model):
        problems.append(
            Problem(contents.FAIRNESS, "was measured on another file than the one that would ship")
        )
    if keys.agreement_id != agreement.agreement_id:
        problems.append(Problem(contents.KEYS, "are of another agreement"))
    if problems:
        raise PackageError("the package cannot be put together", problems, remedy="")
    shipped = {contents.MODEL: model, contents.WEIGHTS: weights}
    if tokenizer is not None:
        shipped[contents.TOKENIZER] = tokenizer.encode()
    local = Agreement(agreement.terms, frozen=agreement.frozen)
    documents = {
        contents.PRIVACY_JSON: part_bytes(privacy),
        contents.FAIRNESS: part_bytes(fairness),
        contents.GATE: part_bytes(evidence),
    }
    texts = {
        contents.CARD: model_card(agreement, release, privacy, fairness),
        contents.PRIVACY_TEXT: statement_text(privacy),
        contents.REPORT: publication_page(agreement, release, privacy, fairness),
        contents.BOM: bill_of_materials(agreement, release, fairness, shipped),
        contents.AGREEMENT: agreement_toml(local),
        contents.KEYS: keys.text,
    }
    files = {**shipped, **documents, **{name: text.encode() for name, text in texts.items()}}
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise PublicationExistsError(f"{folder} is there already") from None
    except OSError as error:
        raise UsageError(f"cannot make the folder {folder}: {error.strerror}") from None
    for name, data in files.items():
        write_new(folder / name, data)
    return {name: sha256_hex(data) for name, data in sorted(files.items())}


def seal_package(folder: Path, name: str, entry: SignedEntry, proof: TlogProof, coordinator: Signer) -> None:
    """Add the logged entry, the proof of its place, and the signature over all.

    Args:
        folder: as `draft_package` wrote it.
        name: of the model.
        entry: the publication, approved by members; nothing is verified here, `verify_package` does.
        proof: that it stands in the federation's log.
        coordinator: signs.

    Raises:
        PackageError: the entry is no publication of these files.
        PublicationExistsError: the package is sealed already.
        UsageError: something cannot be read or written.
    """
    if (folder / SIGNATURE).exists():
        raise PublicationExistsError(f"{folder} is sealed already")
    hashes = {path.name: sha256_hex(path.read_bytes()) for path in folder.iterdir()}
    said = entry.entry
    if not isinstance(said, Publication) or dict(said.files) != hashes:
        raise PackageError(
            "the package cannot be sealed",
            [Problem(contents.ENTRY, "is no publication of the files that are in the folder")],
            remedy="Draft it again; what members approved is what is sealed.",
        )
    last = {contents.ENTRY: entry.encoded, contents.PROOF: proof.encoded.encode()}
    for file, data in last.items():
        write_new(folder / file, data)
    hashes |= {file: sha256_hex(data) for file, data in last.items()}
    write_new(folder / SIGNATURE, write_signature(name, hashes, coordinator))
