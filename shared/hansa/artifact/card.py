"""The model card, with the metadata block that Hugging Face reads.

Source: https://huggingface.co/docs/hub/model-cards; Mitchell et al., Model Cards for Model Reporting (arXiv 1810.03993).
"""

from __future__ import annotations

import json

from hansa.agreement import Agreement
from hansa.agreement.terms import TextFeature
from hansa.artifact.contents import FairnessTable, GroupRow, PrivacyStatement, Release


def model_card(
    agreement: Agreement, release: Release, privacy: PrivacyStatement, fairness: FairnessTable
) -> str:
    """`MODEL_CARD.md`.

    Raises:
        ValueError: the fairness table has nobody in it.
    """
    terms = agreement.terms
    texts = any(isinstance(feature, TextFeature) for feature in terms.data.features)
    everyone = fairness.rows[0]
    fp32, shipped = release.sizes
    lines = ["---", *_metadata(agreement, release, fairness, texts=texts), "---", ""]
    lines += [f"# {release.name} {release.version}", "", f"{terms.task.name}.", ""]
    lines += ["## Intended use", "", release.intended or "Not stated.", ""]
    lines += ["## Limits", "", *(f"- {limit}" for limit in release.limits), ""]
    lines += [
        "## How it was trained",
        "",
        f"By {len(terms.members)} members under one agreement (`{agreement.agreement_id}`), in {terms.training.rounds} "
        "rounds; no data left a member. Classes: " + ", ".join(terms.task.labels) + ".",
        "",
        "## Privacy",
        "",
        next(item.answer for item in privacy.answers),
        "See `privacy_statement.md`, also for what is not protected.",
        "",
        "## Compression",
        "",
        f"`model.onnx` has {shipped:,} bytes; the model in float32 has {fp32:,}.",
        "",
        *(f"- {step.name}: {step.did} Privacy: {step.privacy}." for step in release.steps),
        "",
        "## Evaluation",
        "",
        f"The file that ships was evaluated itself, {'by a private evaluation at the members' if fairness.private else 'by a simulator on test records of its own, which is not private'}; "
        f"{fairness.metric} {_quality(everyone)}. Intervals are in `fairness.json`, pictures in `report.html`.",
        "",
        "| group | records | published | before compression | decided differently |",
        "| --- | --- | --- | --- | --- |",
        *(_row(row) for row in fairness.rows),
        "",
        "No metric guarantees fairness. A group that is listed without a quality was too small to be assessed.",
        "",
        "| condition | verdict |",
        "| --- | --- |",
        *(
            f"| {_cell(verdict.name)} | {verdict.verdict}{f' ({_cell(verdict.excused)})' if verdict.excused else ''} |"
            for verdict in fairness.verdicts
        ),
        "",
        "## Check and use",
        "",
        "```",
        "pip install 'hansa[predict]'",
        "hansa model verify DIR --keys KEYS",
        "hansa model predict DIR INPUT",
        "```",
        "",
    ]
    return "\n".join(lines)


def _metadata(agreement: Agreement, release: Release, fairness: FairnessTable, *, texts: bool) -> list[str]:
    """The YAML block; every text as a JSON string, which YAML reads as well."""
    pipeline = "text-classification" if texts else "tabular-classification"
    value = fairness.rows[0].published
    lines = [
        f"license: {json.dumps(release.licence)}",
        "library_name: onnx",
        f"pipeline_tag: {pipeline}",
        "tags:",
        "- federated-learning",
        *(["- differential-privacy"] if agreement.terms.private else []),
        "- onnx",
    ]
    if release.base_model:
        lines += [f"base_model: {json.dumps(release.base_model)}"]
    if value is not None:
        lines += [
            "model-index:",
            f"- name: {json.dumps(release.name)}",
            "  results:",
            f"  - task: {{type: {pipeline}}}",
            "    dataset: {name: evaluation records of the members, type: private}",
            f"    metrics: [{{type: {json.dumps(fairness.metric)}, value: {value.value:.4f}}}]",
        ]
    return lines


def _cell(text: str) -> str:
    """Words of a person in a cell of a table: on one line, and no markup."""
    return " ".join(text.split()).replace("|", "/").replace("<", "‹").replace(">", "›")


def _row(row: GroupRow) -> str:
    name = f"{row.attribute}={row.group}" if row.attribute else "everybody"
    before = "" if row.uncompressed is None else f"{row.uncompressed.value:.3f}"
    flipped = "" if row.flipped is None else f"{100 * row.flipped:.1f} %"
    return f"| {name} | {row.records:,} | {_quality(row)} | {before} | {flipped} |"


def _quality(row: GroupRow) -> str:
    found = row.published
    return "not assessable" if found is None else f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"
