"""From an open gate to a signed package: documents, members' approvals, the log's entry and its proof, the signature."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from hansa.agreement.terms import Encoder, Terms
from hansa.artifact import (
    Release,
    VerifiedPackage,
    contents,
    draft_package,
    privacy_statement,
    seal_package,
    verify_package,
)
from hansa.artifact.contents import part_bytes
from hansa.artifact.errors import PublicationExistsError
from hansa.artifact.judged import evidence_in, evidence_of, fairness_table
from hansa.canonical import sha256_hex
from hansa.errors import EngineError
from hansa.identity import Signer
from hansa.ledger import Publication, SignedEntry, SignedNote, TrustedKeys, read_entry
from hansa.ledger.attacks import AttackMade
from hansa.ledger.entry import OfRun
from hansa_server.publication.approvals import Approvals
from hansa_server.publication.gate import Judged
from hansa_server.publication.judged import ToJudge

_SOFTWARE = ("hansa", "torch", "onnx", "onnxruntime", "opacus", "numpy", "dp-accounting")
_NO_LICENCE = "not stated"


@dataclass(frozen=True)
class Publisher:
    """With what a coordinator publishes.

    Attributes:
        signer: its key, which the agreement pins.
        keys: whose word counts about the federation's log; they go into the package.
        folder: the package's, which must not exist.
    """

    signer: Signer
    keys: TrustedKeys
    folder: Path

    def require_new(self) -> None:
        """Look before a run at what would only fail after it.

        Raises:
            PublicationExistsError: there is a publication already.
        """
        if self.folder.exists():
            raise PublicationExistsError(f"{self.folder} is there already")

    def publish(self, approvals: Approvals, judged: Judged, made: ToJudge) -> VerifiedPackage:
        """Publish a file that went through the gate.

        Args:
            approvals: of the members.
            judged: the gate, open and in the log.
            made: the very file that was judged, with what it came from.

        Guarantees: what stands in `folder` afterwards was verified as a reader verifies it; until then there is nothing.

        Raises:
            PublicationExistsError: there is a publication already.
            ApprovalError: too few members approve the documents.
            PackageError: the package is not what it must be.
            EngineError: something cannot be written.
        """
        self.require_new()
        draft = self.folder.with_name(f".{self.folder.name}.draft")
        shutil.rmtree(draft, ignore_errors=True)  # what a stopped run has left; nobody has signed it
        try:
            self._write(draft, approvals, judged, made)
            found = verify_package(draft, self.keys)
            self.require_new()
            draft.rename(self.folder)
        except OSError as error:
            raise EngineError(
                f"cannot write {self.folder}: {error.strerror}",
                remedy="Make room on the disk or correct the permissions, then `hansa run resume`.",
            ) from None
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return VerifiedPackage(**{**vars(found), "folder": self.folder})

    def _write(self, draft: Path, approvals: Approvals, judged: Judged, made: ToJudge) -> None:
        agreement, history = approvals.agreement, approvals.history
        # kept, so that a run that is called again proposes the same documents
        created = approvals.journal.once(f"{approvals.run}/published/{judged.gate.entry.sha256}", history.now)
        release = release_of(agreement.terms, made, created)
        artifact = sha256_hex(made.judged)
        privacy = privacy_statement(agreement, judged.record.spent, release.steps)
        fairness = fairness_table(agreement.terms, judged.evaluated.tables, judged.decision, artifact)
        evidence = evidence_of(evidence_in(_of_run(approvals)), judged.manifest, judged.record.fewest)
        metadata = {"agreement_id": agreement.agreement_id}
        files = draft_package(
            draft,
            agreement,
            release,
            privacy,
            fairness,
            evidence,
            self.keys,
            model=made.judged,
            weights=made.candidate.safetensors(metadata),
            tokenizer=made.candidate.tokenizer_json,
        )
        entry = Publication(
            at=release.created,
            agreement_id=agreement.agreement_id,
            run=approvals.run,
            artifact_sha256=artifact,
            gate_sha256=judged.gate.entry.sha256,
            files=files,
            steps=tuple(step.name for step in made.candidate.told),
        )
        shown = {
            contents.FAIRNESS: part_bytes(fairness),
            contents.GATE: part_bytes(evidence),
            contents.PRIVACY_JSON: part_bytes(privacy),
        }
        signed = approvals.of(entry, shown, history.sign(entry))
        history.record(signed)
        approvals.shown()
        place = next(i for i, data in enumerate(history.log.entries()) if data == signed.encoded)
        proof = history.log.proof(place, SignedNote.parse(history.cosigned))
        seal_package(draft, release.name, signed, proof, self.signer)


def release_of(terms: Terms, made: ToJudge, created: str) -> Release:
    """What stands in the documents beside the agreement."""
    model = terms.model
    return Release(
        name=model_name(terms.task.name),
        version=terms.publication.version,
        created=created,
        licence=terms.publication.licence or _NO_LICENCE,
        base_model=(model.source or "") if isinstance(model, Encoder) else "",
        steps=list(made.candidate.told),
        software={
            "python": platform.python_version(),
            **{p: importlib.metadata.version(p) for p in _SOFTWARE},
        },
        sizes=(len(made.reference or made.judged), len(made.judged)),
        intended=terms.task.purpose,
        limits=[
            "Measured on the members' own evaluation records; elsewhere it may do worse, and by group in other ways.",
            "Groups that are listed as not assessable were too small to judge.",
        ],
    )


def model_name(title: str) -> str:
    """A title as the name of a model: letters, digits and hyphens."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", title).strip("-").lower()[:64].rstrip("-")
    return name or "model"


def _of_run(approvals: Approvals) -> list[SignedEntry]:
    """The entries of this run, and attacks under its agreement, in the log's order."""
    found = []
    for data in approvals.history.log.entries():
        signed = read_entry(data)
        entry, agreement_id = signed.entry, approvals.agreement.agreement_id
        of_run = isinstance(entry, OfRun) and (entry.agreement_id, entry.run) == (agreement_id, approvals.run)
        if of_run or (isinstance(entry, AttackMade) and entry.agreement_id == agreement_id):
            found.append(signed)
    return found
