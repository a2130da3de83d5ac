"""The agreements under examples/: they parse, their data load, and the numbers in them are true."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from hansa.agreement import not_in_force, read_agreement
from hansa.agreement.terms import CategoryFeature, NumberFeature
from hansa.cli.simulate import with_planted
from hansa.errors import UsageError
from hansa_client.data import encode, inspect
from hansa_simulations.splits import load_members

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"
DATA = REPOSITORY.parent / "shared" / "data"
NAMES = (
    "quickstart",
    "heart",
    "credit",
    "credit-publication",
    "credit-mitigation",
    "credit-adaptive",
    "medquad",
)
# training and test records, as FLamby publishes them, and the ranges of ../shared/peers/heart_reference.py
FLAMBY_SIZES = {"cleveland": (199, 104), "hungarian": (172, 89), "switzerland": (30, 16), "va": (85, 45)}
REFERENCE_RANGES = {
    0: (20, 90), 1: (0, 1), 3: (80, 220), 4: (0, 600), 5: (0, 1), 7: (60, 220), 8: (0, 1), 9: (-3, 7)
}  # fmt: skip
# answers with a text by institute, from SOURCE.txt beside the data
ANSWERS = {
    "ghr": 5430, "gard": 5389, "niddk": 1192, "ninds": 1088, "medlineplus": 981, "seniorhealth": 769,
    "cancergov": 729, "nhlbi": 559, "cdc": 270,
}  # fmt: skip
FOLDERS = {
    "heart": "heart_disease_4hospitals",
    "credit": "credit_default",
    "credit-publication": "credit_default",
    "credit-mitigation": "credit_default",
    "credit-adaptive": "credit_default",
    "medquad": "medquad",
}


def data_dir(name: str) -> Path | None:
    """Where an example's data are, or a skip with the reason."""
    if name == "quickstart":
        return None
    folder = DATA / FOLDERS[name]
    if not folder.is_dir():
        pytest.skip(f"the real data of {name} are not at {folder}")
    return folder


@pytest.fixture(scope="module")
def loaded():
    """Agreement and members of an example, read once."""
    known = {}

    def load(name):
        if name not in known:
            agreement = read_agreement(EXAMPLES / f"{name}.toml")
            known[name] = agreement, load_members(agreement, data_dir(name), 0)
        return known[name]

    return load


def tokenize(texts):
    ids = np.array([[len(text)] for text in texts], dtype=np.int64).reshape(-1, 1)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def test_these_are_all_examples():
    assert sorted(path.stem for path in EXAMPLES.glob("*.toml")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
class TestEach:
    def test_it_is_sound_and_commented(self, name):
        agreement = read_agreement(EXAMPLES / f"{name}.toml")
        assert agreement.simulation is not None
        assert agreement.terms.task.purpose
        text = (EXAMPLES / f"{name}.toml").read_text(encoding="utf-8")
        assert sum(line.startswith("#") for line in text.splitlines()) >= 15

    def test_every_mapped_code_is_declared(self, name):
        """A typing error in a mapping would turn a code into one that nobody declared."""
        agreement = read_agreement(EXAMPLES / f"{name}.toml")
        data = agreement.terms.data
        vocabularies = {data.label: set(agreement.terms.task.labels)}
        vocabularies |= {f.name: set(f.values) for f in data.features if isinstance(f, CategoryFeature)}
        vocabularies |= {g.name: set(g.values) for g in data.groups if g.kind == "category"}
        for column in agreement.simulation.columns:
            values = agreement.simulation.column(column).values
            assert set(values.values()) <= vocabularies.get(column, set())

    def test_every_member_has_what_its_declared_number_of_units_says(self, loaded, name):
        agreement, members = loaded(name)
        assert list(members) == [member.name for member in agreement.terms.members]
        for member in agreement.terms.members:
            assert len(members[member.name].train) == pytest.approx(member.units, rel=0.08)
            assert len(members[member.name].test) > 0

    def test_what_was_loaded_is_encoded_whole(self, loaded, name):
        agreement, members = loaded(name)
        width = sum(feature.width for feature in agreement.terms.data.features if feature.kind != "text")
        for member in members.values():
            for records in (member.train, member.test):
                encoded = encode(records, agreement.terms, tokenize)
                assert len(encoded) == encoded.number_of_units == len(records)
                assert not encoded.left_out
                if width:
                    assert encoded.inputs["table"].shape == (len(records), width)
                    assert np.abs(encoded.inputs["table"]).max() <= 1


@pytest.mark.parametrize("name", [name for name in NAMES if name != "quickstart"])
def test_no_row_is_on_both_sides(loaded, name):
    _, members = loaded(name)
    for member in members.values():
        assert not set(member.train.positions.tolist()) & set(member.test.positions.tolist())


def test_the_quickstart_ships_with_the_package():
    shipped = files("hansa_simulations") / "quickstart.toml"
    assert shipped.read_text(encoding="utf-8") == (EXAMPLES / "quickstart.toml").read_text(encoding="utf-8")


def test_the_quickstarts_groups_differ_as_planted(loaded):
    agreement, members = loaded("quickstart")
    encoded = [encode(member.train, agreement.terms, tokenize) for member in members.values()]
    share = np.mean([(part.groups["language"] == 1).mean() for part in encoded])
    assert share == pytest.approx(0.3, abs=0.03)
    majority = [int(np.bincount(part.labels).argmax()) for part in encoded]
    assert majority == [0, 1, 2, 3, 0]  # each hospital has its own most frequent department


class TestHeart:
    def test_sizes_are_flambys(self, loaded):
        _, members = loaded("heart")
        assert {name: (len(m.train), len(m.test)) for name, m in members.items()} == FLAMBY_SIZES

    def test_ranges_are_the_published_ones(self):
        agreement = read_agreement(EXAMPLES / "heart.toml")
        declared = {
            agreement.simulation.column(f.name).column: f.range
            for f in agreement.terms.data.features
            if isinstance(f, NumberFeature)
        }
        assert declared == REFERENCE_RANGES

    def test_inputs_labels_and_split_are_those_of_the_reference(self, loaded):
        """The same 13 inputs, computed with pandas, for the same rows."""
        agreement, members = loaded("heart")
        for name, member in members.items():
            path = data_dir("heart") / f"processed.{name}.data"
            frame = pd.read_csv(path, header=None, na_values="?").drop(columns=[10, 11, 12]).dropna()
            labels = (frame.iloc[:, -1] > 0).astype(int).to_numpy()
            scaled = [
                np.clip((frame[k] - low) / (high - low), 0, 1) * 2 - 1
                for k, (low, high) in REFERENCE_RANGES.items()
            ]
            chest_pain = [(frame[2] == code) * 1.0 for code in (2, 3, 4)]
            inputs = np.stack(scaled + chest_pain + [(frame[6] == code) * 1.0 for code in (1, 2)], 1)
            even = all((labels == label).sum() > 2 for label in (0, 1))
            train, test = train_test_split(
                np.arange(len(labels)), test_size=1 - 0.66, train_size=0.66, random_state=43, shuffle=True,
                stratify=labels if even else None,
            )  # fmt: skip
            for rows, records in ((np.sort(train), member.train), (np.sort(test), member.test)):
                assert frame.index.to_numpy()[rows].tolist() == records.positions.tolist()
                encoded = encode(records, agreement.terms, None)
                np.testing.assert_allclose(encoded.inputs["table"], inputs[rows], atol=1e-6)
                assert encoded.labels.tolist() == labels[rows].tolist()
                assert encoded.groups["sex"].tolist() == frame[1].to_numpy()[rows].tolist()


class TestCredit:
    def test_all_card_holders_are_dealt_once(self, loaded):
        _, members = loaded("credit")
        rows = [r for m in members.values() for side in (m.train, m.test) for r in side.positions.tolist()]
        assert sorted(rows) == list(range(30_000))

    def test_defaults_are_those_of_the_source_and_differ_between_banks(self, loaded):
        agreement, members = loaded("credit")
        labels = {
            name: np.concatenate([encode(side, agreement.terms, None).labels for side in (m.train, m.test)])
            for name, m in members.items()
        }
        assert sum(int(found.sum()) for found in labels.values()) == 6_636
        rates = [found.mean() for found in labels.values()]
        assert max(rates) > 2 * min(rates)

    def test_the_model_sees_no_protected_attribute(self):
        data = read_agreement(EXAMPLES / "credit.toml").terms.data
        assert not {f.name for f in data.features} & {group.name for group in data.groups}


class TestCreditMitigation:
    def test_labels_are_planted_as_the_command_line_would(self):
        agreement = read_agreement(EXAMPLES / "credit-mitigation.toml")
        told = agreement.simulation.planted
        assert (told.share, told.where) == (0.6, "training")
        assert with_planted(agreement, "sex=female:0.6:training").simulation.planted == told
        everywhere = with_planted(agreement, "sex=female:0.6").simulation.planted
        assert everywhere == told.model_copy(update={"where": "all"})
        for wrong in ("sex=female:training", "sex=female:0.6:judging", "age=old:0.6:training"):
            with pytest.raises(UsageError):
                with_planted(agreement, wrong)


class TestCreditAdaptive:
    def test_both_sections_are_there_and_in_force(self):
        agreement = read_agreement(EXAMPLES / "credit-adaptive.toml")
        terms = agreement.terms
        assert terms.mitigation.clipping is not None
        assert terms.mitigation.weights.attribute in {group.name for group in terms.data.groups}
        assert (terms.privacy.mechanism, terms.privacy.sampling) == ("distributed", "poisson")
        assert not_in_force(terms) == ()


class TestMedquad:
    def test_answers_are_those_of_the_source(self, loaded):
        _, members = loaded("medquad")
        assert {name: len(m.train) + len(m.test) for name, m in members.items()} == ANSWERS
        assert sum(ANSWERS.values()) == 16_407
        assert sum(sum(m.left_out.values()) for m in members.values()) == 5  # pairs without an answer

    def test_question_types_are_those_of_the_institutes(self, loaded):
        agreement, members = loaded("medquad")
        kinds = {
            name: set(encode(m.train, agreement.terms, tokenize).labels.tolist())
            for name, m in members.items()
        }
        assert len(agreement.terms.task.labels) == 16
        assert {name: len(found) for name, found in kinds.items() if name in ("ghr", "medlineplus", "gard")} == {
            "ghr": 5, "medlineplus": 1, "gard": 6,
        }  # fmt: skip

    def test_equal_answers_are_on_one_side(self, loaded):
        _, members = loaded("medquad")
        for member in members.values():
            train, test = (
                set(zip(side.columns["answer"].values, side.columns["question_type"].values, strict=True))
                for side in (member.train, member.test)
            )
            assert not train & test


@pytest.mark.parametrize("name", FOLDERS)
def test_the_real_data_pass_the_check(name):
    agreement = read_agreement(EXAMPLES / f"{name}.toml")
    folder, kind = data_dir(name), agreement.simulation.partition
    shared = getattr(kind, "archive", None) or getattr(kind, "file", None)
    for file in [shared] if shared else kind.files.values():
        path = folder / file
        found = inspect(path, agreement.terms, agreement.simulation.source, agreement.simulation.columns)
        assert not found.errors
        assert found.usable_rows > 0
