"""Members of a simulation: files, columns, Dirichlet shares and generated ones, and what is kept back."""

from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from sklearn.model_selection import train_test_split

from hansa.agreement.local import DirichletPartition, TestSplit
from hansa.errors import AgreementError, DataError, DataSourceError
from hansa_client.data import Records, encode
from hansa_client.data.cells import Cells
from hansa_simulations.splits import load_members, partition, split_records, stratified, unit_hash
from hansa_simulations.splits.partitions import by_dirichlet
from support.schemas import FILES, TABLE, TEXT, schema_agreement, written

HEADER = "age,stage,sex,outcome,bank,pid\n"


def csv(rows: int, *, first: int = 0, patients: int | None = None) -> str:
    lines = [
        f"{i % 100},{('i', 'ii', 'iii')[i % 3]},{'fm'[i % 2]},{('no', 'yes')[i % 4 == 0]},{i % 5},p{i % (patients or rows)}"
        for i in range(first, first + rows)
    ]
    return HEADER + "\n".join(lines) + "\n"


def ages(records: Records) -> list[str]:
    return records.columns["age"].values.tolist()


COLUMN = """
[simulation.partition]
kind = "column"
file = "all.csv"
column = "bank"
values = { a = ["0", "1"], b = ["2"], c = ["3.0"] }
"""
DIRICHLET = """
[simulation.partition]
kind = "dirichlet"
file = "all.csv"
alpha = 5.0
"""
GENERATED = """
[simulation.source]
format = "generated"
generator = "admission-notes"
[simulation.columns]
note = "text"
outcome = { column = "class", values = { cardiac = "yes", respiratory = "no", neurological = "no", infectious = "no" } }
[simulation.partition]
kind = "generated"
seed = 3
test_records = 7
"""


class TestFiles:
    def test_each_member_reads_its_own_file(self, tmp_path):
        for i, name in enumerate("abc"):
            written(tmp_path, f"{name}.csv", csv(30, first=30 * i))
        members = load_members(schema_agreement(simulation=FILES), tmp_path, 0)
        assert list(members) == ["a", "b", "c"]
        for i, member in enumerate(members.values()):
            found = sorted(int(age) for age in ages(member.train) + ages(member.test))
            assert found == sorted(row % 100 for row in range(30 * i, 30 * i + 30))

    def test_rows_that_cannot_be_used_are_left_out_before_the_split(self, tmp_path):
        for name in "abc":
            written(tmp_path, f"{name}.csv", csv(30) + "old,i,f,no,0,p\n1,i,f,maybe,0,p\n")
        member = load_members(schema_agreement(simulation=FILES), tmp_path, 0)["b"]
        assert len(member.train) + len(member.test) == 30
        assert member.left_out == {"outcome is not declared": 1, "age is missing or not valid": 1}

    def test_what_is_wrong_with_several_members_is_told_at_once(self, tmp_path):
        written(tmp_path, "a.csv", csv(30))
        written(tmp_path, "b.csv", csv(30).replace("stage", "phase"))
        with pytest.raises(DataError) as caught:
            load_members(schema_agreement(simulation=FILES), tmp_path, 0)
        told = " ".join(str(problem) for problem in caught.value.problems)
        assert "no column 'stage'" in told
        assert "c.csv does not exist" in told

    def test_one_missing_file_is_a_source_error(self, tmp_path):
        for name in "ab":
            written(tmp_path, f"{name}.csv", csv(30))
        with pytest.raises(DataSourceError, match=r"c\.csv does not exist"):
            load_members(schema_agreement(simulation=FILES), tmp_path, 0)

    def test_members_without_a_usable_row_are_all_named(self, tmp_path):
        written(tmp_path, "a.csv", csv(30))
        for name in "bc":
            written(tmp_path, f"{name}.csv", HEADER + "1,i,f,maybe,0,p\n")
        with pytest.raises(DataError) as caught:
            load_members(schema_agreement(simulation=FILES), tmp_path, 0)
        assert [problem.place for problem in caught.value.problems] == ["b", "c"]
        assert "no row of 1 can be used" in caught.value.problems[0].what

    def test_a_side_without_records_is_told(self, tmp_path):
        for name in "abc":
            written(tmp_path, f"{name}.csv", HEADER + "1,i,f,no,0,p\n")
        with pytest.raises(DataError) as caught:
            load_members(schema_agreement(simulation=FILES), tmp_path, 0)
        assert len(caught.value.problems) == 3
        assert "records among 1" in caught.value.problems[0].what

    def test_a_table_in_an_archive_is_refused(self, tmp_path):
        simulation = FILES.replace('kind = "files"', 'kind = "files"\narchive = "d.tar"')
        with pytest.raises(AgreementError) as caught:
            load_members(schema_agreement(simulation=simulation), tmp_path, 0)
        assert "only XML records" in str(caught.value.problems[0])

    def test_an_agreement_on_pooled_records_cannot_be_dealt(self, tmp_path):
        pooled = schema_agreement(simulation=FILES).derive(
            baseline="pooled", members=[{"name": "pooled", "units": 90}]
        )
        with pytest.raises(AgreementError) as caught:
            load_members(pooled, tmp_path, 0)
        assert caught.value.problems[0].place == "baseline"


class TestWithoutData:
    def test_no_directory_says_which_option(self):
        with pytest.raises(AgreementError) as caught:
            load_members(schema_agreement(simulation=FILES), None, 0)
        assert "pass --data DIR" in str(caught.value.problems[0])

    def test_a_directory_that_is_none(self, tmp_path):
        with pytest.raises(DataSourceError, match="is not a folder"):
            load_members(schema_agreement(simulation=FILES), tmp_path / "none", 0)

    def test_no_simulation(self, tmp_path):
        with pytest.raises(AgreementError) as caught:
            load_members(schema_agreement(), tmp_path, 0)
        assert caught.value.problems[0].place == "simulation"


class TestColumn:
    def test_members_hold_the_rows_with_their_codes(self, tmp_path):
        written(tmp_path, "all.csv", csv(50))
        agreement = schema_agreement(simulation=COLUMN)
        parts = partition(agreement.terms, agreement.simulation, tmp_path)
        assert {name: [int(age) % 5 for age in ages(part)] for name, part in parts.items()} == {
            "a": [0, 1] * 10,
            "b": [2] * 10,
            "c": [3] * 10,
        }
        assert parts["b"].positions.tolist() == list(range(2, 50, 5))
        assert set(parts["a"].columns) == {"age", "stage", "sex", "outcome"}

    def test_members_without_rows_are_all_named(self, tmp_path):
        written(tmp_path, "all.csv", csv(2))
        with pytest.raises(DataError) as caught:
            load_members(schema_agreement(simulation=COLUMN), tmp_path, 0)
        assert [problem.place for problem in caught.value.problems] == ["b", "c"]

    def test_a_column_that_is_not_there(self, tmp_path):
        written(tmp_path, "all.csv", csv(20))
        with pytest.raises(DataError) as caught:
            load_members(schema_agreement(simulation=COLUMN.replace('"bank"', '"branch"')), tmp_path, 0)
        assert "no column 'branch'" in str(caught.value.problems[0])


class TestDirichlet:
    def parts(self, tmp_path, *, alpha=5.0, seed=0, rows=600, **schema):
        written(tmp_path, "all.csv", csv(rows, patients=schema.pop("patients", None)))
        agreement = schema_agreement(simulation=DIRICHLET, **schema)
        read = partition(agreement.terms, agreement.simulation, tmp_path)
        whole = Records.concat(list(read.values()))
        kind = DirichletPartition(kind="dirichlet", file="all.csv", alpha=alpha, seed=seed)
        return by_dirichlet(whole, agreement.terms, kind)

    def test_every_record_goes_to_one_member(self, tmp_path):
        positions = [p for part in self.parts(tmp_path).values() for p in part.positions.tolist()]
        assert sorted(positions) == list(range(600))

    def test_records_stay_in_the_order_of_the_file(self, tmp_path):
        assert all((np.diff(part.positions) > 0).all() for part in self.parts(tmp_path).values())

    def test_the_seed_decides(self, tmp_path):
        first, again, other = (self.parts(tmp_path, seed=seed)["a"].positions.tolist() for seed in (1, 1, 2))
        assert first == again
        assert first != other

    def test_a_large_alpha_gives_members_their_declared_part_of_each_label(self, tmp_path):
        for name, share in (("a", 1 / 2), ("b", 1 / 3), ("c", 1 / 6)):
            part = self.parts(tmp_path, alpha=1e6)[name]
            labels = part.columns["outcome"].values
            assert (labels == "yes").sum() == pytest.approx(150 * share, abs=2)
            assert (labels == "no").sum() == pytest.approx(450 * share, abs=2)

    def test_a_small_alpha_is_a_strong_skew(self, tmp_path):
        def skew(alpha):
            shares = []
            for seed in range(8):
                parts = self.parts(tmp_path, alpha=alpha, seed=seed).values()
                shares += [float((part.columns["outcome"].values == "yes").mean()) for part in parts]
            return np.std(shares)

        assert skew(1.0) > 4 * skew(100.0)

    def test_a_patient_is_dealt_whole(self, tmp_path):
        parts = self.parts(tmp_path, patients=60, patient="pid", cap=50)
        patients = [set(part.columns["pid"].values) for part in parts.values()]
        assert sum(len(found) for found in patients) == len(set().union(*patients)) == 60

    def test_members_left_without_records_are_told_what_to_change(self, tmp_path):
        with pytest.raises(DataError, match="leave members without records") as caught:
            self.parts(tmp_path, alpha=0.01, rows=12)
        assert "larger simulation.partition.alpha" in caught.value.what_to_do


class TestGenerated:
    def test_sizes_labels_and_order(self):
        members = load_members(schema_agreement(TEXT, GENERATED), None, 0)
        assert [(len(m.train), len(m.test)) for m in members.values()] == [(60, 7), (40, 7), (20, 7)]
        assert set(members["a"].train.columns["outcome"].values) == {"yes", "no"}
        assert "clerked in triage" in members["a"].train.columns["note"].values[0]
        assert "arrival logged" in members["c"].test.columns["note"].values[0]

    def test_training_and_test_notes_differ(self):
        member = load_members(schema_agreement(TEXT, GENERATED), None, 0)["a"]
        assert not set(member.train.columns["note"].values) & set(member.test.columns["note"].values)

    def test_the_runs_seed_and_the_partitions_seed_decide(self):
        def first(simulation, seed):
            return (
                load_members(schema_agreement(TEXT, simulation), None, seed)["b"]
                .train.columns["note"]
                .values.tolist()
            )

        assert first(GENERATED, 1) == first(GENERATED, 1)
        assert first(GENERATED, 1) != first(GENERATED, 2)
        assert first(GENERATED, 1) != first(GENERATED.replace("seed = 3", "seed = 4"), 1)

    @pytest.mark.parametrize(
        "change",
        [
            ('generator = "admission-notes"', 'generator = "other"'),
            ('format = "generated"', 'format = "csv"'),
        ],
    )
    def test_a_generator_that_is_none(self, change):
        with pytest.raises(AgreementError) as caught:
            load_members(schema_agreement(TEXT, GENERATED.replace(*change)), None, 0)
        assert "admission-notes" in str(caught.value.problems[0])

    def test_a_column_that_the_generator_does_not_make(self):
        with pytest.raises(DataError) as caught:
            load_members(schema_agreement(TEXT, GENERATED.replace('note = "text"', 'note = "body"')), None, 0)
        assert "it has text, class, language" in str(caught.value.problems[0])


def table(rows: int, *, patients: int = 0) -> Records:
    rng = np.random.default_rng(rows)
    columns = {
        "age": Cells.of(rng.integers(0, 100, rows).tolist()),
        "stage": Cells.of(rng.choice(["i", "ii", "iii"], rows).tolist()),
        "sex": Cells.of(rng.choice(["f", "m"], rows).tolist()),
        "outcome": Cells.of(rng.choice(["no", "yes"], rows).tolist()),
    }
    if patients:
        columns["pid"] = Cells.of(rng.integers(0, patients, rows).tolist())
    return Records(columns, np.arange(rows))


class TestUnitHash:
    @pytest.mark.parametrize(("unit", "seed"), [("unit 7", 0), ("record é", 12)])
    def test_it_is_the_first_53_bits_of_an_hmac(self, unit, seed):
        mac = HMAC(b"hansa test split v1|" + str(seed).encode(), SHA256())
        mac.update(unit.encode())
        assert unit_hash(unit, seed) == (int.from_bytes(mac.finalize()[:8], "big") >> 11) / 2**53

    def test_a_known_answer(self):
        assert unit_hash("unit 7", 0) == 0.31889937014460246

    def test_it_is_uniform_and_its_seeds_independent(self):
        drawn = np.array([[unit_hash(f"u{i}", seed) for i in range(4000)] for seed in (0, 1)])
        assert drawn.min() >= 0
        assert drawn.max() < 1
        assert np.histogram(drawn[0], 10, (0, 1))[0] == pytest.approx(400, abs=100)
        assert abs(np.corrcoef(drawn)[0, 1]) < 0.08

    def test_the_share_is_kept_on_average(self):
        split = split_records(table(4000), schema_agreement().terms, TestSplit(share=0.2))
        assert split.test.mean() == pytest.approx(0.2, abs=0.03)
        assert (split.train ^ split.test).all()

    def test_equal_records_are_on_one_side(self):
        read = table(300).take(np.repeat(np.arange(300), 3))
        split = split_records(read, schema_agreement().terms, TestSplit(share=0.5))
        sides = split.test.reshape(300, 3)
        assert (sides.all(axis=1) | ~sides.any(axis=1)).all()

    def test_a_patients_records_are_on_one_side(self):
        terms = schema_agreement(patient="pid", cap=9).terms
        read = table(600, patients=80)
        split = split_records(read, terms, TestSplit(share=0.5))
        train, test = (set(read.take(side).columns["pid"].values) for side in (split.train, split.test))
        assert not train & test
        assert len(train | test) > 70

    def test_no_records(self):
        assert len(split_records(table(0), schema_agreement().terms, TestSplit()).test) == 0


class TestStratified:
    rule = TestSplit(rule="stratified", share=0.34, seed=43)

    @pytest.mark.parametrize(
        ("rows", "train", "test"), [(303, 199, 104), (261, 172, 89), (46, 30, 16), (130, 85, 45)]
    )
    def test_flambys_published_sizes(self, rows, train, test):
        split = split_records(table(rows), schema_agreement().terms, self.rule)
        assert (split.train.sum(), split.test.sum()) == (train, test)

    @pytest.mark.parametrize("positives", [2, 3, 20])
    def test_it_is_scikit_learns_split_of_the_rows(self, positives):
        """Two of a class are not stratified, three are: the published rule."""
        labels = np.zeros(60, dtype=np.int64)
        labels[:positives] = 1
        expected = train_test_split(
            np.arange(60), test_size=1 - 0.66, train_size=0.66, random_state=43, shuffle=True,
            stratify=labels if positives > 2 else None,
        )[1]  # fmt: skip
        kept_back = stratified([str(i) for i in range(60)], labels, 2, 0.34, 43)
        assert sorted(expected) == np.flatnonzero(kept_back).tolist()

    def test_rows_without_a_value_are_no_part_of_it(self, tmp_path):
        simulation = FILES + '[simulation.test]\nrule = "stratified"\nshare = 0.34\nseed = 43\n'
        for name in "abc":
            written(tmp_path, f"{name}.csv", csv(46) + ",i,f,no,0,p\n" * 9)
        member = load_members(schema_agreement(simulation=simulation), tmp_path, 0)["a"]
        assert (len(member.train), len(member.test)) == (30, 16)

    def test_a_patients_records_are_on_one_side(self):
        terms = schema_agreement(patient="pid", cap=9).terms
        read = table(600, patients=80)
        split = split_records(read, terms, self.rule)
        train, test = (set(read.take(side).columns["pid"].values) for side in (split.train, split.test))
        assert not train & test

    def test_a_share_too_small_for_its_classes_is_told_with_the_member(self, tmp_path):
        simulation = FILES + '[simulation.test]\nrule = "stratified"\nshare = 0.01\n'
        for name in "abc":
            written(tmp_path, f"{name}.csv", csv(40))
        with pytest.raises(DataError) as caught:
            load_members(schema_agreement(simulation=simulation), tmp_path, 0)
        assert [problem.place for problem in caught.value.problems] == ["a", "b", "c"]
        assert "40 units cannot be split" in caught.value.problems[0].what

    def test_one_record_cannot_be_split(self):
        split = split_records(table(1), schema_agreement().terms, self.rule)
        assert split.train.tolist() == [True]


def test_loaded_members_encode(tmp_path):
    written(tmp_path, "all.csv", csv(300))
    agreement = schema_agreement(TABLE, COLUMN)
    for member in load_members(agreement, tmp_path, 0).values():
        train = encode(member.train, agreement.terms, None)
        assert len(train) == len(member.train)
        assert not train.left_out
