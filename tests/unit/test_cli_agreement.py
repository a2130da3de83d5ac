"""`hansa agreement new|check|show|freeze` through the command line."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from hansa.agreement import parse_agreement, read_agreement
from hansa.agreement.writing import agreement_toml
from hansa.cli import app
from hansa.cli.agreement import Kind, template
from hansa.errors import ExitStatus
from hansa.wire import array_sha256


@pytest.fixture
def hansa(capsys, monkeypatch, tmp_path):
    """Run a command line in an empty folder; status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        try:
            status = app.run(["agreement", *map(str, arguments)])
        except SystemExit as ended:
            status = ended.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def data(hansa):
    """The `data` of a command line that succeeds."""

    def run(*arguments):
        status, out, err = hansa(*arguments, "--format", "json")
        assert (status, err) == (ExitStatus.DONE, "")
        envelope = json.loads(out)
        assert (envelope["schema_version"], envelope["status"]) == (1, "done")
        return envelope["data"]

    return run


def write(path, kind=Kind.TABLE, **changes):
    agreement = parse_agreement(template(kind)).derive(**changes)
    path.write_text(agreement_toml(agreement), encoding="utf-8")
    return agreement


# --- new -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Kind)
def test_a_new_agreement_passes_the_check(hansa, data, tmp_path, kind):
    made = data("new", "--kind", kind, "mine.toml")
    assert (made["file"], made["kind"]) == ("mine.toml", kind.value)
    assert data("check", "mine.toml")["terms_id"] == made["terms_id"]
    assert (tmp_path / "mine.toml").read_text(encoding="utf-8") == template(kind)


@pytest.mark.parametrize("kind", Kind)
def test_a_template_explains_itself(kind):
    lines = template(kind).splitlines()
    assert sum("#" in line for line in lines) >= 20
    assert all(len(line) <= 115 for line in lines)
    assert parse_agreement(template(kind)).simulation is not None


def test_by_default_a_table_in_agreement_toml(hansa, tmp_path):
    status, out, _ = hansa("new")
    assert status == ExitStatus.DONE
    assert "hansa agreement check agreement.toml" in out
    assert read_agreement(tmp_path / "agreement.toml").terms.model.kind == "logistic"


def test_a_file_that_is_there_is_kept_without_force(hansa, tmp_path):
    (tmp_path / "agreement.toml").write_text("mine", encoding="utf-8")
    status, _, err = hansa("new")
    assert status == ExitStatus.BAD_INPUT
    assert err.startswith("HANSA-102: agreement.toml is already there")
    assert (tmp_path / "agreement.toml").read_text(encoding="utf-8") == "mine"
    assert hansa("new", "--force")[0] == ExitStatus.DONE
    assert (tmp_path / "agreement.toml").read_text(encoding="utf-8") == template(Kind.TABLE)


@pytest.mark.parametrize("target", ["absent/a.toml", "folder"])
def test_where_nothing_can_be_written_is_told(hansa, tmp_path, target):
    (tmp_path / "folder").mkdir()
    status, _, err = hansa("new", "--force", target)
    assert status == ExitStatus.BAD_INPUT
    assert err.startswith("HANSA-104")
    assert target.partition("/")[0] in err


# --- check ---------------------------------------------------------------------------------------------------


def test_check_says_what_matters(data, tmp_path):
    agreement = write(tmp_path / "a.toml", fairness={"max_gap": 0.1})
    summary = data("check", "a.toml")
    assert summary == {
        "terms_id": agreement.terms_id,
        "agreement_id": None,
        "task": "Readmission within 30 days",
        "members": ["north", "harbour", "valley"],
        "mechanism": "local",
        "epsilon": 2.0,
        "delta": 1e-5,
        "unit": "patient",
        "steps": 400,
        "not_in_force": summary["not_in_force"],
    }
    assert [sentence.partition(":")[0] for sentence in summary["not_in_force"]] == ["fairness"]


def test_check_as_text_says_the_same(hansa, tmp_path):
    agreement = write(tmp_path / "a.toml")
    status, out, err = hansa("check", "a.toml")
    assert (status, err) == (ExitStatus.DONE, "")
    assert out.startswith("a.toml is sound.\n")
    said = dict(line.strip().split("  ", 1) for line in out.splitlines()[1:])
    said = {name: value.strip() for name, value in said.items()}
    assert said["terms id"] == agreement.terms_id
    assert said["members"] == "north, harbour, valley"
    assert (said["epsilon"], said["delta"], said["steps"]) == ("2", "1e-05", "400")
    assert "not in force" not in said
    assert "agreement id" not in said


def test_check_without_a_mechanism_claims_nothing(data, tmp_path):
    write(tmp_path / "a.toml", privacy={"mechanism": "none"})
    summary = data("check", "a.toml")
    assert (summary["mechanism"], summary["epsilon"], summary["delta"]) == ("none", None, None)


def test_check_tells_all_problems(hansa, tmp_path):
    broken = (
        template(Kind.TABLE).replace("epsilon = 2.0", "epsilon = 0.0").replace("rounds = 20", "rounds = 7")
    )
    (tmp_path / "a.toml").write_text(broken, encoding="utf-8")
    status, out, err = hansa("check", "a.toml")
    assert (status, out) == (ExitStatus.BAD_INPUT, "")
    assert err.startswith("HANSA-101: a.toml has 2 problems\n")
    assert "- privacy.epsilon: is 0" in err
    assert "- training.rounds: 7 rounds do not divide" in err
    status, out, err = hansa("check", "a.toml", "--format", "json")
    assert (status, err) == (ExitStatus.BAD_INPUT, "")
    told = json.loads(out)
    assert told["status"] == "bad_input"
    assert {problem["place"] for problem in told["error"]["problems"]} == {
        "privacy.epsilon",
        "training.rounds",
    }


# --- show ----------------------------------------------------------------------------------------------------


def test_show_says_what_follows_from_the_terms(data, tmp_path):
    agreement = write(tmp_path / "a.toml")
    shown = data("show", "a.toml")
    assert shown["terms"] == agreement.terms.tree()
    assert (shown["terms_id"], shown["agreement_id"], shown["frozen"]) == (agreement.terms_id, None, None)
    assert shown["derived"] == {
        "public_weights": {"north": 0.5, "harbour": 0.3125, "valley": 0.1875},
        "expected_units_per_step": {"north": 80.0, "harbour": 50.0, "valley": 30.0},
        "local_steps_per_round": 20,
        "rounds": 20,
    }


def test_show_as_text_ends_with_the_agreement_itself(hansa, tmp_path):
    agreement = write(tmp_path / "a.toml")
    status, out, _ = hansa("show", "a.toml")
    assert status == ExitStatus.DONE
    head, _, toml = out.partition("schema_version")
    assert agreement.terms_id in head
    assert "north 0.5, harbour 0.3125, valley 0.1875" in head
    assert parse_agreement("schema_version" + toml).terms_id == agreement.terms_id


# --- freeze --------------------------------------------------------------------------------------------------


@pytest.fixture
def model(monkeypatch):
    """A model zero in memory in place of the one that torch builds; the arguments that it was asked for with."""
    asked = []

    def build(terms, *, folder):
        asked.append((terms, folder))
        return SimpleNamespace(
            initial_vector=lambda: np.zeros(3), frozen_sha256="1" * 64, tokenizer_sha256=None, flat=None
        )

    monkeypatch.setitem(sys.modules, "hansa.models", SimpleNamespace(build_model=build))
    return asked


QUICK = {"privacy": {"steps": 2, "sampling_rate": 0.5}, "training": {"rounds": 2}}


def test_freeze_writes_an_agreement_with_an_id(data, hansa, model, tmp_path):
    agreement = write(tmp_path / "a.toml", **QUICK)
    made = data("freeze", "a.toml")
    assert made["file"] == "a.frozen.toml"
    frozen = read_agreement(tmp_path / "a.frozen.toml")
    assert frozen.agreement_id == made["agreement_id"]
    assert frozen.terms_id == made["terms_id"] == agreement.terms_id
    assert frozen.frozen.model.parameters == 3
    assert [terms.task.name for terms, _ in model] == [agreement.terms.task.name]

    shown = data("show", "a.frozen.toml")
    assert shown["agreement_id"] == made["agreement_id"]
    assert shown["derived"]["noise_multiplier"] == frozen.frozen.noise_multiplier > 0
    assert shown["derived"]["parameters"] == 3
    assert data("check", "a.frozen.toml")["agreement_id"] == made["agreement_id"]


def test_freeze_writes_where_it_is_told_and_overwrites_nothing(hansa, model, tmp_path):
    write(tmp_path / "a.toml", **QUICK)
    (tmp_path / "out.toml").write_text("mine", encoding="utf-8")
    status, _, err = hansa("freeze", "a.toml", "--out", "out.toml")
    assert status == ExitStatus.BAD_INPUT
    assert "out.toml is already there" in err
    assert not model  # told before any work
    assert (tmp_path / "out.toml").read_text(encoding="utf-8") == "mine"
    status, out, _ = hansa("freeze", "a.toml", "--out", "out.toml", "--force")
    assert status == ExitStatus.DONE
    assert out.startswith("Wrote out.toml.")
    assert read_agreement(tmp_path / "out.toml").frozen is not None


def test_what_is_frozen_is_not_frozen_again(hansa, model, tmp_path):
    write(tmp_path / "a.toml", **QUICK)
    assert hansa("freeze", "a.toml")[0] == ExitStatus.DONE
    status, _, err = hansa("freeze", "a.frozen.toml")
    assert status == ExitStatus.BAD_INPUT
    assert "is frozen already" in err


def test_freeze_does_not_leave_a_model_folder_behind(hansa, model, tmp_path):
    (tmp_path / "encoder").mkdir()
    (tmp_path / "elsewhere").mkdir()
    write(tmp_path / "a.toml", Kind.TEXT, model={"source": "encoder"}, **QUICK)
    status, _, err = hansa("freeze", "a.toml", "--out", "elsewhere/a.toml")
    assert status == ExitStatus.BAD_INPUT
    assert "would not find the model: model.source = 'encoder'" in err
    assert hansa("freeze", "a.toml", "--out", "b.toml")[0] == ExitStatus.DONE


def test_a_hub_id_may_be_frozen_anywhere(hansa, model, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    write(tmp_path / "a.toml", Kind.TEXT, **QUICK)
    assert hansa("freeze", "a.toml", "--out", "elsewhere/a.toml")[0] == ExitStatus.DONE


def test_a_warm_start_is_part_of_model_zero(data, model, monkeypatch, tmp_path):
    warmed = SimpleNamespace(warm_start=lambda agreement, built: np.ones(3))
    monkeypatch.setitem(sys.modules, "hansa_simulations.warm_start", warmed)
    write(tmp_path / "cold.toml", Kind.TEXT, **QUICK)
    write(tmp_path / "warm.toml", Kind.TEXT, model={"warm_start": 5}, **QUICK)
    hashes = {}
    for name in ("cold", "warm"):
        data("freeze", f"{name}.toml")
        hashes[name] = read_agreement(tmp_path / f"{name}.frozen.toml").frozen.model.initial_sha256
    assert hashes == {"cold": array_sha256(np.zeros(3)), "warm": array_sha256(np.ones(3))}


def test_freeze_builds_the_model_that_the_terms_name(data, tmp_path):
    pytest.importorskip("torch")
    write(tmp_path / "a.toml", **QUICK)
    made = data("freeze", "a.toml")
    frozen = read_agreement(tmp_path / "a.frozen.toml").frozen
    # two classes × (two numbers, three admissions and a missing one) and two biases
    assert frozen.model.parameters == 14
    assert frozen.model.tokenizer_sha256 is None
    (tmp_path / "a.frozen.toml").unlink()
    assert data("freeze", "a.toml")["agreement_id"] == made["agreement_id"]
