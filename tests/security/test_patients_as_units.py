"""Patients with several encounters, as in registers of diabetes: one unit from the file to the ledger.

A file names a patient in each row. What a run promises is promised to the patient, so all of a patient's rows are drawn
together, clipped together, cut at the agreed number, and charged once at each member that holds any.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from hansa.agreement import Agreement, read_agreement
from hansa.ledger import SignedEntry
from hansa.ledger.tiles import read_bundle
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.events import Spend
from hansa.report import Report
from hansa_client.data import Dataset, encode
from hansa_client.training import Trainer
from hansa_simulations import simulate
from hansa_simulations.splits import load_members

CAP = 3
PATIENTS = {"a": 40, "b": 30, "c": 24}  # declared, and there
TERMS = """
[task]
name = "Readmission of patients with diabetes"
labels = ["no", "yes"]
[data]
label = "readmitted"
unit = "patient_nbr"
[[data.features]]
kind = "number"
name = "time_in_hospital"
range = [0, 14]
[[data.features]]
kind = "number"
name = "num_medications"
range = [0, 80]
[model]
kind = "logistic"
[training]
rounds = 2
learning_rate = 0.5
[privacy]
mechanism = "local"
epsilon = 5.0
delta = 1e-3
unit = "patient"
max_records_per_unit = 3
clipping_norm = 1.0
sampling_rate = 0.5
steps = 4
[simulation.partition]
kind = "files"
files = { a = "a.csv", b = "b.csv", c = "c.csv" }
[simulation.test]
share = 0.2
[performance]
physical_batch_size = 2
"""
SHARED = 900_000  # a patient who was at a and at b
MOVED = 7  # encounters of that patient at each of them


def encounters(number: int) -> int:
    """1 to 6 for each patient, so that half of them are above the cap."""
    return 1 + number % 6


def write(folder: Path) -> Agreement:
    """Members' files, encounters of different patients in turn, and the agreement about them."""
    rng = np.random.default_rng(3)
    members = []
    for place, (name, patients) in enumerate(PATIENTS.items()):
        held = {1000 * place + i: encounters(i) for i in range(patients)}
        if name in "ab":
            held[SHARED] = MOVED
        visits = [patient for patient, count in held.items() for _ in range(count)]
        rng.shuffle(visits)
        rows = [
            f"{visit},{patient},{days},{medications},{('no', 'yes')[int(days > 6)]}"
            for visit, (patient, days, medications) in enumerate(
                zip(visits, rng.integers(1, 15, len(visits)), rng.integers(1, 80, len(visits)), strict=True)
            )
        ]
        header = "encounter_id,patient_nbr,time_in_hospital,num_medications,readmitted"
        (folder / f"{name}.csv").write_text("\n".join([header, *rows]) + "\n")
        members.append(f'[[members]]\nname = "{name}"\nunits = {patients}\n')
    path = folder / "agreement.toml"
    path.write_text(TERMS + "".join(members))
    return read_agreement(path)


class Run:
    """A run through files, and what its trainers did on the way."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.agreement = write(folder)
        self.out = folder / "out"
        self.steps: list[tuple[Dataset, list[int]]] = []
        self.passes: list[tuple[Dataset, list[int], list[int]]] = []
        take, cut = Trainer.clipped_sum, Trainer._microbatches

        def clipped_sum(trainer, drawn):
            self.steps.append((trainer._data, list(drawn)))
            return take(trainer, drawn)

        def microbatches(trainer, drawn):
            for records, units in cut(trainer, drawn):
                self.passes.append((trainer._data, list(records), list(units)))
                yield records, units

        monkeypatch.setattr(Trainer, "clipped_sum", clipped_sum)
        monkeypatch.setattr(Trainer, "_microbatches", microbatches)
        self.report: Report = simulate(self.agreement, data=folder, out=self.out, seed=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield Run(tmp_path_factory.mktemp("patients"), monkeypatch)


def test_every_step_draws_patients_and_every_pass_holds_them_whole(run: Run) -> None:
    assert len(run.steps) == 4 * len(PATIENTS)
    for data, drawn in run.steps:
        assert len(set(drawn)) == len(drawn)
        assert max(drawn) < data.number_of_units < len(data)
    seen = 0
    for data, records, units in run.passes:
        for unit in set(units):
            mine = [record for record, one in zip(records, units, strict=True) if one == unit]
            (patient,) = set(data.units[mine])
            assert mine == np.flatnonzero(data.units == patient).tolist()
            assert len(mine) <= CAP
            seen += len(mine) == CAP
    assert seen > 10  # larger than the passes of two records that were asked for


def test_the_cap_is_counted_for_the_member_alone(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    agreement = write(tmp_path)
    terms = agreement.terms
    with caplog.at_level(logging.INFO):
        for held in load_members(agreement, tmp_path, 1).values():
            caplog.clear()
            data = encode(held.train, terms, None)
            sizes = np.bincount(data.units)
            rows = [str(value) for value in held.train.columns["patient_nbr"].as_text().values]
            there = {patient: rows.count(patient) for patient in set(rows)}
            over = sum(max(0, count - CAP) for count in there.values())
            assert over > 10
            assert data.left_out == {"over the cap of records per unit": over}
            assert f"{over} of {len(rows)} records left out: over the cap" in caplog.text
            assert sorted(sizes) == sorted(min(count, CAP) for count in there.values())
    told = (run.out / "report.json").read_text() + (run.out / "report.html").read_text()
    assert "over the cap of records per unit" not in told


def test_members_are_charged_for_what_ran_on_patients(run: Run) -> None:
    assert (run.report.unit, run.report.status) == ("patient", "done")
    charged = {event.member: event for event in run.report.events}
    for member in run.report.members:
        assert member.units == PATIENTS[member.name]
        assert charged[member.name].count == member.noisy_steps == 4
        assert charged[member.name].event["sampling_probability"] == 0.5
        assert member.epsilon is not None
        assert 4.8 < member.epsilon <= 5.0
    for data, _ in run.steps:
        # the divisor of every mean is the declared number, and not what was there
        assert data.number_of_units not in PATIENTS.values()


def test_a_patient_at_two_members_is_charged_at_each_and_loses_what_both_spend(
    run: Run, tmp_path: Path
) -> None:
    """Nobody sees that it is the same patient: two full charges, and no charge that is shared."""
    held = load_members(run.agreement, run.out.parent, 1)
    for name in "ab":
        data = encode(held[name].train, run.agreement.terms, None)
        place = data.unit_ids.index(str(SHARED))
        assert np.count_nonzero(data.units == place) == CAP < MOVED
    delta = 1e-3
    spends = {
        event.member: Spend(dict(event.event), event.count)
        for event in run.report.events  # type: ignore[arg-type]
    }
    each = {name: epsilon_spent([spends[name]], delta) for name in "ab"}
    both = epsilon_spent([spends["a"], spends["b"]], delta)
    for member in run.report.members:
        if member.name in each:
            assert member.epsilon == pytest.approx(each[member.name], abs=1e-6)
    assert max(each.values()) < both
    assert epsilon_spent([spends["a"], spends["b"]], 2 * delta) <= sum(each.values())
    for (
        name
    ) in "ab":  # the ledgers say the same: each member's own log reserves the whole run for itself alone
        (bundle,) = (run.out / "ledgers" / "members" / name / "tile" / "entries").glob("*.p/*")
        entries = [SignedEntry.parse(data).entry for data in read_bundle(bundle.read_bytes())]
        assert {entry.unit for entry in entries if entry.type == "release"} == {"patient"}
        assert [entry.type for entry in entries].count("release") == 2
