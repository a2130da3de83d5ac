"""The bill of materials: CycloneDX 1.6 for machine learning, as one JSON document.

Source: https://cyclonedx.org/docs/1.6/json/ (a component of type ``machine-learning-model`` with a model card). Names and
hashes follow from what is published, so that the same package has the same document.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping

from hansa.agreement import Agreement
from hansa.artifact.contents import MODEL, FairnessTable, Release
from hansa.canonical import Json, sha256_hex

SPEC_VERSION = "1.6"


def bill_of_materials(
    agreement: Agreement, release: Release, fairness: FairnessTable, files: Mapping[str, bytes]
) -> str:
    """The document.

    Args:
        agreement: frozen.
        release: what is published.
        fairness: of the file that ships.
        files: model, weights and tokenizer by name.
    """
    terms = agreement.terms
    hashes = {name: sha256_hex(data) for name, data in files.items()}
    serial = uuid.uuid5(uuid.NAMESPACE_URL, f"urn:hansa:{agreement.agreement_id}:{hashes[MODEL]}")
    value = fairness.rows[0].published
    metrics: list[Json] = (
        []
        if value is None
        else [
            {
                "type": fairness.metric,
                "value": f"{value.value:.4f}",
                "confidenceInterval": {"lowerBound": f"{value.low:.4f}", "upperBound": f"{value.high:.4f}"},
            }
        ]
    )
    model: dict[str, Json] = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": release.name,
        "version": release.version,
        "description": terms.task.name,
        "hashes": [{"alg": "SHA-256", "content": hashes[MODEL]}],
        "licenses": [{"license": {"name": release.licence}}],
        "modelCard": {
            "modelParameters": {
                "task": "classification",
                "architectureFamily": terms.model.kind,
                "approach": {"type": "supervised"},
                "datasets": [
                    {
                        "type": "dataset",
                        "name": f"records of {member.name}",
                        "classification": "stays with its member",
                        "contents": {"properties": [{"name": "units", "value": str(member.units)}]},
                    }
                    for member in terms.members
                ],
            },
            "quantitativeAnalysis": {"performanceMetrics": metrics},
            "considerations": {
                "useCases": [release.intended] if release.intended else [],
                "technicalLimitations": list(release.limits),
            },
        },
        "properties": [
            {"name": "hansa:agreement_id", "value": agreement.agreement_id},
            *({"name": f"hansa:step:{step.name}", "value": step.did} for step in release.steps),
        ],
    }
    parts: list[Json] = [
        {
            "type": "file",
            "bom-ref": name,
            "name": name,
            "hashes": [{"alg": "SHA-256", "content": digest}],
        }
        for name, digest in sorted(hashes.items())
    ]
    libraries: list[Json] = [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version}",
        }
        for name, version in sorted(release.software.items())
    ]
    tree: Json = {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"timestamp": release.created, "component": model},
        "components": [*parts, *libraries],
        "dependencies": [{"ref": "model", "dependsOn": sorted(hashes)}],
    }
    return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
