"""Published packages of a small league: a logistic model, exported, approved by members, logged and sealed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hansa.agreement import Agreement
from hansa.agreement.document import Frozen, FrozenModel
from hansa.agreement.publication import Evaluation, Fairness, Publication
from hansa.agreement.terms import (
    CategoryFeature,
    CategoryGroup,
    Data,
    Encoder,
    LogisticModel,
    Member,
    NumberFeature,
    Privacy,
    Task,
    Terms,
    TextFeature,
    Training,
)
from hansa.artifact import Release, draft_package, privacy_statement, seal_package
from hansa.artifact.contents import StepTold
from hansa.artifact.judged import evidence_in, evidence_of, fairness_table
from hansa.canonical import sha256_hex
from hansa.gate.approving import evaluation_of
from hansa.identity import COORDINATOR, Signer
from hansa.ledger import (
    Log,
    MemoryLogStore,
    NoteSignature,
    Override,
    SignedNote,
    TlogProof,
    TrustedKeys,
)
from hansa.ledger import Publication as PublicationEntry
from hansa.models import build_model
from hansa_server.publication.compress import Candidate, DynamicInt8, ExportOnnx, compress
from support.gates import FAIR, RUN, RunStory, approved, total_of
from support.ledgers import (
    AT,
    HASH,
    LOG_SIGNER,
    MEMBERS,
    OFFICERS,
    SIGNERS,
    WITNESS_SIGNERS,
    fixed_note_signer,
    release,
    signed,
)

TERMS = Terms(
    task=Task(name="Readmission", labels=("no", "yes")),
    members=tuple(Member(name=name, units=100) for name in MEMBERS),
    data=Data(
        label="y",
        features=(
            NumberFeature(kind="number", name="age", range=(0.0, 100.0)),
            CategoryFeature(kind="category", name="sex", values=("f", "m"), missing="own"),
            CategoryFeature(kind="category", name="ward", values=("1", "2", "3"), baseline="1"),
        ),
        groups=(CategoryGroup(kind="category", name="gender", values=("f", "m")),),
    ),
    model=LogisticModel(kind="logistic"),
    training=Training(rounds=1),
    privacy=Privacy(
        mechanism="local", epsilon=3.0, delta=1e-5, clipping_norm=1.0, sampling_rate=0.1, steps=10
    ),
    fairness=Fairness(max_gap=0.2, min_worst_group=0.6, min_group_size=50),
    publication=Publication(compress=("onnx", "int8"), min_quality=0.7, max_quality_loss=0.1),
    evaluation=Evaluation(max_rows_per_cell=100, epsilon=2.0, share=0.2, compared="decisions"),
)
CSV = "age,sex,ward\n30,f,1\n200,m,2.0\n-5,,3\n"


TEXT_TERMS = TERMS.model_copy(
    update={
        "data": Data(label="y", features=(TextFeature(kind="text", name="note"),), groups=TERMS.data.groups),
        "model": Encoder(
            kind="encoder",
            vocabulary="admission-notes",
            max_tokens=12,
            pooling="mean",
            config={
                "model_type": "bert",
                "hidden_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "intermediate_size": 24,
                "max_position_embeddings": 32,
            },
        ),
    }
)


def agreement_of(terms: Terms) -> Agreement:
    """A frozen agreement that pins the keys of `support.ledgers`."""
    agreement = Agreement(terms)
    return agreement.freeze(
        Frozen(
            terms_id=agreement.terms_id,
            model=FrozenModel(parameters=12, initial_sha256=HASH, frozen_sha256=HASH),
            noise_multiplier=2.0,
            evaluation_noise_multiplier=2.1,
            member_keys={name: SIGNERS[name].public_key for name in MEMBERS},
            coordinator_key=SIGNERS[COORDINATOR].public_key,
        )
    )


def keys_of(agreement: Agreement) -> TrustedKeys:
    """Whose word counts."""
    return TrustedKeys(
        agreement_id=agreement.agreement_id,
        quorum=3,
        members={name: SIGNERS[name].public_key for name in MEMBERS},
        coordinator=SIGNERS[COORDINATOR].public_key,
        federation_log=LOG_SIGNER.key.text,
        logs={name: fixed_note_signer(f"hansa.example/log/{name}").key.text for name in MEMBERS},
        witnesses={name: signer.key.text for name, signer in zip(MEMBERS, WITNESS_SIGNERS, strict=True)},
        officers={name: OFFICERS[name].public_key for name in MEMBERS},
    )


def candidate(terms: Terms = TERMS) -> Candidate:
    """The final model: weights that tell rows apart."""
    built = build_model(terms)
    drawn = np.random.default_rng(1).normal(0, 0.3, built.flat.size)
    weights = np.linspace(-1.0, 1.0, built.flat.size) if terms is TERMS else built.initial_vector() + drawn
    return Candidate.of(terms, built, weights)


def release_of(model: Candidate) -> Release:
    """What stands in the documents."""
    assert model.onnx is not None
    return Release(
        name="readmission",
        version="1.0.0",
        created=AT,
        licence="CC-BY-4.0",
        base_model="",
        steps=[StepTold(name=t.name, did=t.did, privacy=t.privacy) for t in model.told],
        software={"hansa": "0.1.0", "torch": "2.13.0"},
        sizes=(2 * len(model.onnx), len(model.onnx)),
        intended="Planning of beds.",
        limits=["Not for decisions about a patient's treatment."],
    )


def cosigned(log: Log, index: int) -> TlogProof:
    """A proof of an entry under a checkpoint that three witnesses have cosigned."""
    note: SignedNote = log.checkpoint()
    signatures: list[NoteSignature] = [
        signer.sign(note.text, 1_772_366_400) for signer in WITNESS_SIGNERS[:3]
    ]
    return log.proof(index, note.with_signatures(*signatures))


def published(
    folder: Path,
    *,
    approving: tuple[str, ...] = MEMBERS[:3],
    signer: Signer | None = None,
    terms: Terms = TERMS,
    cells: Mapping[str, tuple[int, int, int, int]] = FAIR,
    overrides: Sequence[Override] = (),
    **lies: Any,
) -> Agreement:
    """Write a whole package; nothing is left out.

    Args:
        folder: to make.
        approving: members that sign the publication.
        signer: of the package; by default the coordinator.
        terms: of the agreement.
        cells: what the members' evaluation came to, by group.
        overrides: on record before the gate.
        **lies: what the coordinator's gate says instead of what follows.
    """
    agreement, done = agreement_of(terms), compress(candidate(terms), [ExportOnnx(), DynamicInt8()])
    assert done.onnx is not None
    artifact = sha256_hex(done.onnx)
    told = [one.model_copy(update={"artifact_sha256": artifact}) for one in overrides]
    story = RunStory(agreement, total_of(agreement, cells), artifact, overrides=told)
    gate = approved(story.gate(**lies), approving)
    record, decision = story.record(), story.decision()
    evaluated = evaluation_of(gate.entry, record, agreement, story.manifest())
    steps = release_of(done).steps
    files = draft_package(
        folder,
        agreement,
        release_of(done),
        privacy_statement(agreement, record.spent, steps),
        fairness_table(terms, evaluated.tables, decision, artifact),
        evidence_of(evidence_in([*story.entries(), gate]), story.manifest(), record.fewest),
        keys_of(agreement),
        model=done.onnx,
        weights=done.safetensors({"agreement_id": agreement.agreement_id}),
        tokenizer=done.tokenizer_json,
    )
    said = PublicationEntry(
        at=AT,
        agreement_id=agreement.agreement_id,
        run=RUN,
        artifact_sha256=artifact,
        gate_sha256=gate.entry.sha256,
        files=files,
        steps=tuple(step.name for step in done.told),
    )
    entry = approved(said, approving)
    log = Log(MemoryLogStore(), LOG_SIGNER)
    entries = [*story.entries(), gate, entry, signed(release(20))]
    log.append([one.encoded for one in entries])
    seal_package(
        folder, "readmission", entry, cosigned(log, len(entries) - 2), signer or SIGNERS[COORDINATOR]
    )
    return agreement
