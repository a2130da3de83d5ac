"""A run ends with a package that a reader accepts, or with a refusal that says which condition, and by how much."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hansa.agreement.terms import CustomModel
from hansa.artifact import verify_package
from hansa.artifact.errors import ExportError
from hansa.artifact.refusal import REFUSAL_JSON
from hansa.canonical import sha256_hex
from hansa.cli.simulate import status_of
from hansa.errors import ExitStatus
from hansa.ledger import TrustedKeys
from hansa_client.evaluation import approving
from hansa_server.publication import gate, judged
from hansa_server.publication.compress import POST_PROCESSING, Candidate, ExportOnnx
from hansa_simulations import simulate
from hansa_simulations.settings import OverrideAsked
from support.published_runs import TERMS, agreement_of, in_process, league, package_in


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patch:
        in_process(patch)
        report = simulate(agreement_of(), members=league(), out=out, force=True)
    assert report.publication is not None, report
    assert report.publication.status == "published", report.publication
    assert status_of(report) is ExitStatus.DONE
    return out


def test_a_fair_model_is_published_and_every_reader_accepts_it(published):
    found = verify_package(package_in(published), TrustedKeys.read(published / "ledgers" / "keys.json"))
    assert set(found.approved_by) == {member.name for member in TERMS.members}
    assert found.entry.steps == ("onnx", "int8")
    assert found.fairness.private
    assert [row.group for row in found.fairness.rows] == ["", "f", "m"]
    assert all(verdict.verdict == "pass" for verdict in found.fairness.verdicts)
    # ε of a unit is the larger of the two, as held-out units do not train
    assert found.privacy.epsilon <= TERMS.privacy.epsilon
    assert all(loss.apart for loss in found.privacy.losses)
    page = (published / "report.html").read_text(encoding="utf-8")
    assert "Publication: published" in page


def test_a_model_that_serves_one_group_badly_is_refused_with_the_condition_and_the_number(
    tmp_path, monkeypatch
):
    in_process(monkeypatch)
    report = simulate(agreement_of(), members=league(wrong=0.35), out=tmp_path / "run")
    told = report.publication
    assert told.status == "refused"
    assert status_of(report) is ExitStatus.NOT_PUBLISHED == 6
    assert len(told.approved_by) == 3  # members came to the same decision
    assert not package_in(tmp_path / "run").exists()
    refusal = json.loads((tmp_path / "run" / REFUSAL_JSON).read_text(encoding="utf-8"))
    names = [one["condition"] for one in refusal["obstacles"] if one["verdict"] == "fail"]
    assert any(name.startswith("gap of accuracy by sex <= 0.1") for name in names)
    assert "it misses by" in refusal["obstacles"][0]["sentence"]
    assert names[0] in told.because
    assert "misses by" in (tmp_path / "run" / "refusal.html").read_text(encoding="utf-8")


def test_a_coordinator_that_opens_the_gate_by_itself_gets_no_signature(tmp_path, monkeypatch):
    in_process(monkeypatch)
    honest = gate.decide

    def generous(terms, grounds):
        decision = honest(terms, grounds)
        passing = [one.model_copy(update={"verdict": "pass"}) for one in decision.conditions]
        return type(decision)(decision.judgement, tuple(passing), decision.needed, {})

    monkeypatch.setattr(gate, "decide", generous)
    report = simulate(agreement_of(), members=league(wrong=0.35), out=tmp_path / "run")
    assert report.publication.status == "failed"
    assert "0 members approve the gate, 3 are needed" in report.publication.because
    assert "gate-not-recomputed" in report.publication.because
    assert not package_in(tmp_path / "run").exists()
    assert status_of(report) is ExitStatus.FAILED


def test_members_that_refuse_the_documents_stop_the_publication(tmp_path, monkeypatch):
    in_process(monkeypatch)
    monkeypatch.setattr(approving, "same_table", lambda *_: False)
    report = simulate(agreement_of(), members=league(), out=tmp_path / "run")
    assert report.publication.status == "failed"
    assert "approve the publication" in report.publication.because
    assert list((tmp_path / "run").glob("*publication*")) == []  # no draft is left either


class HurtsWomen:
    """A compression after which the model says no to women, and to men what it said before."""

    name = "int8"
    cost = POST_PROCESSING

    def run(self, candidate: Candidate) -> tuple[Candidate, str]:
        module = candidate.copied()
        (weight,) = [p for p in module.parameters() if p.ndim == 2]
        (bias,) = [p for p in module.parameters() if p.ndim == 1]
        with torch.no_grad():
            weight[0, 1] += 3
            bias[0] += 3
        made, _ = ExportOnnx().run(replace(candidate.with_module(module), onnx=None))
        return made, "smaller, and worse for some"


def test_a_compression_that_hurts_one_group_is_refused_though_accuracy_is_fine(tmp_path, monkeypatch):
    in_process(monkeypatch)
    monkeypatch.setattr(judged, "agreed_steps", lambda *_: (ExportOnnx(), HurtsWomen()))
    fairness = TERMS.fairness.model_copy(update={"max_gap": None, "min_worst_group": None})
    publication = TERMS.publication.model_copy(update={"max_quality_loss": 0.15})
    agreement = agreement_of(fairness=fairness, publication=publication)
    report = simulate(agreement, members=league(women=0.15), out=tmp_path / "run")
    told = {one.name: one.verdict for one in report.publication.conditions}
    assert report.publication.status == "refused"
    assert told["accuracy >= 0.6"] == "pass"
    assert told["loss of accuracy <= 0.15"] == "pass"
    assert told["loss of accuracy of every sex <= 0.15, sex=m"] == "pass"
    assert told["loss of accuracy of every sex <= 0.15, sex=f"] == "fail"
    assert "sex=f" in report.publication.because


def test_a_named_person_excuses_what_could_not_be_decided_and_everybody_sees_it(tmp_path, monkeypatch):
    in_process(monkeypatch)
    fairness = TERMS.fairness.model_copy(update={"min_group_size": 300})
    condition = "gap of accuracy by sex <= 0.1, sex=f and sex=m"
    others = ["accuracy of every sex >= 0.6, sex=f", "loss of accuracy of every sex <= 0.05, sex=f"]
    asked = [
        OverrideAsked(name, "Ada Example", "chief medical officer", "few women; reviewed by hand")
        for name in (condition, *others)
    ]
    members = league(women=0.1)
    agreement = agreement_of(fairness=fairness)
    report = simulate(agreement, members=members, out=tmp_path / "run", overrides=asked)
    assert report.publication.status == "published", report.publication
    found = verify_package(package_in(tmp_path / "run"))
    excused = {one.name: one.excused for one in found.fairness.verdicts if one.excused}
    assert set(excused) == {condition, *others}
    assert "Ada Example, chief medical officer at coordinator: few women" in excused[condition]
    card = (package_in(tmp_path / "run") / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "Ada Example" in card


class NoOnnxForm(torch.nn.Module):
    """Trains, and has an operator that ONNX lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)

    def forward(self, table: torch.Tensor) -> torch.Tensor:
        return torch.special.i0e(self.linear(table))


def test_a_model_that_has_no_onnx_form_is_refused_before_anything_is_spent(tmp_path):
    source = sha256_hex(Path(__file__).read_bytes())
    own = CustomModel(kind="custom", entry_point="mine", code_sha256=source)
    with pytest.raises(ExportError, match="the operator aten::special_i0e"):
        simulate(agreement_of(model=own), members=league(), model=NoOnnxForm(), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
