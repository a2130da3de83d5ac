"""What a package says and does for its readers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hansa.artifact import predict, read_graph, verify_package
from hansa.artifact.card import model_card
from hansa.artifact.confined import Limits
from hansa.artifact.contents import FairnessTable, PrivacyStatement, Release
from hansa.artifact.encoding import encode_table, read_rows
from hansa.artifact.errors import PackageError, PredictionInputError
from hansa.artifact.page import publication_page
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.events import Spend, gaussian
from support.cli import finished, hansa_process
from support.gates import TRAINED
from support.packages import CSV, TERMS, TEXT_TERMS, agreement_of, candidate, keys_of, published


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("publication") / "readmission"
    published(folder)
    return folder


@pytest.fixture
def rows(tmp_path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text(CSV)
    return path


def test_predictions_are_those_of_the_model_that_was_trained(package, rows):
    found = predict(verify_package(package), rows)
    logits = candidate().logits({"table": encode_table(read_rows(rows, TERMS), TERMS)})
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.abs(found.probabilities - wanted).max() < 0.05  # what int8 takes
    assert np.allclose(found.probabilities.sum(axis=1), 1)
    assert found.decisions == [TERMS.task.labels[i] for i in wanted.argmax(axis=1)]


def test_a_file_that_is_exchanged_after_the_check_is_not_run(package, rows, tmp_path):
    import shutil

    copy = shutil.copytree(package, tmp_path / "copy")
    verified = verify_package(Path(copy))
    model = Path(copy) / "model.onnx"
    model.write_bytes(model.read_bytes() + b"\x00")
    with pytest.raises(PackageError, match="changed while"):
        predict(verified, rows, Limits())


def test_the_privacy_statement_answers_and_recomputes(package):
    told = PrivacyStatement.model_validate_json((package / "privacy_statement.json").read_bytes())
    assert told.claimed
    assert told.epsilon == pytest.approx(
        max(epsilon_spent([TRAINED], 1e-5), epsilon_spent([Spend(gaussian(2.1), 1)], 1e-5))
    )
    assert (told.delta, told.unit, told.adjacency, told.mechanism) == (
        1e-5,
        "record",
        "add-or-remove-one",
        "local",
    )
    assert len(told.answers) >= 8
    assert told.unprotected
    text = (package / "privacy_statement.md").read_text(encoding="utf-8")
    assert all(answer.question in text for answer in told.answers)


def test_the_card_has_metadata_that_a_hub_reads(package):
    import yaml

    text = (package / "MODEL_CARD.md").read_text(encoding="utf-8")
    _, block, body = text.split("---\n", 2)
    metadata = yaml.safe_load(block)
    assert metadata["license"] == "CC-BY-4.0"
    assert metadata["pipeline_tag"] == "tabular-classification"
    table = FairnessTable.model_validate_json((package / "fairness.json").read_bytes())
    stated = metadata["model-index"][0]["results"][0]["metrics"][0]["value"]
    assert stated == pytest.approx(table.rows[0].published.value, abs=1e-4)
    assert "| gender=f |" in body
    assert "differential-privacy" in metadata["tags"]


def test_the_bill_of_materials_follows_its_schema(package):
    bom = json.loads((package / "ml-bom.cdx.json").read_text(encoding="utf-8"))
    component = bom["metadata"]["component"]
    assert component["type"] == "machine-learning-model"
    assert component["hashes"][0]["content"] == verify_package(package).entry.artifact_sha256
    validation = pytest.importorskip("cyclonedx.validation.json", reason="cyclonedx-python-lib (extra: dev)")
    from cyclonedx.schema import SchemaVersion

    problem = validation.JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bom))
    assert problem is None, problem


def test_the_page_stands_alone_and_has_pictures(package):
    page = (package / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 1
    assert "gender = f" in page
    for foreign in ("http://", "https://", "<script", "src="):
        assert foreign not in page.replace("http://www.w3.org/", "")


def test_a_group_that_is_too_small_is_said_to_be(package):
    verified = verify_package(package)
    rows = [
        row.model_copy(update={"published": None, "uncompressed": None, "flipped": None})
        if row.group == "f"
        else row
        for row in verified.fairness.rows
    ]
    told = verified.fairness.model_copy(update={"rows": rows})
    release = Release(
        name="m", version="1", created="2026-03-01T12:00:00Z", licence="MIT", base_model="", steps=[], software={},
        sizes=(2, 1), intended="", limits=[],
    )  # fmt: skip
    for write in (model_card, publication_page):
        assert "not assessable" in write(verified.agreement, release, verified.privacy, told)


def test_the_model_of_a_package_is_a_small_graph(package):
    graph = read_graph((package / "model.onnx").read_bytes())
    assert [port.name for port in graph.inputs] == ["table"]
    assert "MatMulInteger" in graph.operators


def test_a_package_is_checked_and_run_without_torch(package, rows, tmp_path):
    keys = tmp_path / "keys.json"
    keys_of(agreement_of(TERMS)).write(keys)
    program = (
        "import sys; from pathlib import Path; from hansa.artifact import predict, verify_package\n"
        f"found = predict(verify_package(Path({str(package)!r})), Path({str(rows)!r}))\n"
        "heavy = {'torch', 'transformers', 'pandas', 'flwr', 'onnx', 'safetensors', 'onnxruntime'} & set(sys.modules)\n"
        "print(found.decisions, sorted(heavy))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip().endswith("[]")
    done = finished(hansa_process("model", "verify", str(package), "--keys", str(keys), "--format", "json"))
    assert done.status == 0, done.stderr
    assert done.data["keys_of_package"] is False
    assert done.data["approved_by"] == ["hospital-1", "hospital-2", "hospital-3"]


def test_the_command_tells_predictions_and_refuses_a_changed_package(package, rows, tmp_path):
    import shutil

    done = finished(hansa_process("model", "predict", str(package), str(rows)))
    assert done.status == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "label,no,yes"
    assert len(lines) == 4
    copy = Path(shutil.copytree(package, tmp_path / "copy"))
    (copy / "agreement.toml").write_text("# changed\n" + (copy / "agreement.toml").read_text())
    refused = finished(hansa_process("model", "verify", str(copy)))
    assert refused.status == 4
    assert "HANSA-821" in refused.stderr
    assert "agreement.toml" in refused.stderr


def test_a_package_of_texts_reads_them_as_members_do(tmp_path):
    published(tmp_path / "notes", terms=TEXT_TERMS)
    found = verify_package(tmp_path / "notes")
    assert found.texts
    notes = ["fever and cough", "pain , and fever . cough " * 9, "nothing known"]
    (tmp_path / "notes.txt").write_text("\n".join(notes) + "\n")
    (tmp_path / "notes.csv").write_text("note\n" + "".join(f'"{note}"\n' for note in notes))
    lines, table = (predict(found, tmp_path / name) for name in ("notes.txt", "notes.csv"))
    assert np.array_equal(lines.probabilities, table.probabilities)
    model = candidate(TEXT_TERMS)
    assert model.tokenizer is not None
    logits = model.logits({k: v.astype(np.int64) for k, v in model.tokenizer(notes).items()})
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.abs(lines.probabilities - wanted).max() < 0.1
    (tmp_path / "empty.csv").write_text('note\n"a"\n" "\n')
    with pytest.raises(PredictionInputError, match="cannot be predicted on"):
        predict(found, tmp_path / "empty.csv")
