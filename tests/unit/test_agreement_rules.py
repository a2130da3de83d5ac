"""Every rule of an agreement has a case that breaks it; what is wrong is told with its place, all at once."""

from __future__ import annotations

import ast
import copy
import inspect
import math
import sys
import tomllib
from pathlib import Path

import pytest
import tomli_w

from hansa.agreement import parse_agreement, rules
from hansa.errors import AgreementError, Problem

TEMPLATES = Path(rules.__file__).parent / "templates"
TREES = {path.stem: tomllib.loads(path.read_text(encoding="utf-8")) for path in TEMPLATES.glob("*.toml")}


def table(**sections):
    return changed("table", sections)


def text(**sections):
    return changed("text", sections)


def changed(name, sections):
    """A template with keys of sections replaced; `None` leaves a key out."""
    tree = copy.deepcopy(TREES[name])
    for section, change in sections.items():
        if isinstance(change, dict) and section != "members":
            merged = {**tree.get(section, {}), **change}
            tree[section] = {key: value for key, value in merged.items() if value is not None}
        elif change is None:
            del tree[section]
        else:
            tree[section] = change
    return tree


def told(tree):
    """The problems of an agreement, by place."""
    with pytest.raises(AgreementError) as caught:
        parse_agreement(tomli_w.dumps(tree))
    return {problem.place: str(problem) for problem in caught.value.problems}


def member(name, units=1000, **more):
    return {"name": name, "units": units, **more}


def number(name="age", low=18.0, high=100.0, **more):
    return {"kind": "number", "name": name, "range": [low, high], **more}


def category(name="ward", values=("a", "b"), **more):
    return {"kind": "category", "name": name, "values": list(values), **more}


def bands(*edges):
    return {"kind": "bands", "name": "age", "edges": list(edges)}


LETTER = {"kind": "text", "name": "letter"}

# Rules between sections: what is changed, where it must be told, and words of what is told.
RULES = {
    "a label twice": (table(task={"labels": ["no", "yes", "no"]}), "task.labels", "'no' is named 2 times"),
    "a member twice": (
        table(members=[member("a"), member("b"), member("a")]),
        "members",
        "'a' is named 2 times",
    ),
    "fewer members than the sum needs": (
        table(members=[member("a"), member("b")]),
        "members",
        "2 members are fewer than secure_sum.min_members = 3",
    ),
    "fewer members than the sum is told to need": (
        table(secure_sum={"min_members": 4}),
        "members",
        "3 members are fewer than secure_sum.min_members = 4",
    ),
    "a member with the coordinator's name": (
        table(members=[member("a"), member("coordinator"), member("b")]),
        "members.1.name",
        "'coordinator' signs for somebody else",
    ),
    "a feature twice": (
        table(data={"features": [number(), number()]}),
        "data.features",
        "'age' is named 2 times",
    ),
    "a group twice": (table(data={"groups": [bands(45), bands(50)]}), "data.groups", "'age' is named 2 times"),
    "the label as unit": (table(data={"unit": "readmitted"}), "data.unit", "is the label"),
    "the label as feature": (
        table(data={"features": [number("readmitted")]}),
        "data.features.readmitted",
        "the model would see the answer",
    ),
    "an empty range": (
        table(data={"features": [number(low=5.0, high=5.0)]}),
        "data.features.age.range",
        "5 is not below 5",
    ),
    "a range upside down": (
        table(data={"features": [number(low=9.0, high=5.0)]}),
        "data.features.age.range",
        "9 is not below 5",
    ),
    "a range without end": (
        table(data={"features": [number(high=math.inf)]}),
        "data.features.0.range.1",
        "inf is not a finite number",
    ),
    "a stand-in outside the range": (
        table(data={"features": [number(missing=17.0)]}),
        "data.features.age.missing",
        "17 is outside the public range",
    ),
    "a category's value twice": (
        table(data={"features": [category(values=["a", "b", "a"])]}),
        "data.features.ward.values",
        "'a' is named 2 times",
    ),
    "a value that is a word of `missing`": (
        table(data={"features": [category(values=["a", "own"])]}),
        "data.features.ward.values",
        "'own' is a word of `missing`",
    ),
    "a stand-in that is no value": (
        table(data={"features": [category(missing="c")]}),
        "data.features.ward.missing",
        "'c' is not a value",
    ),
    "a baseline that is no value": (
        table(data={"features": [category(baseline="c")]}),
        "data.features.ward.baseline",
        "'c' is not one of the values",
    ),
    "a group's value twice": (
        table(data={"groups": [{"kind": "category", "name": "sex", "values": ["f", "m", "f"]}]}),
        "data.groups.sex.values",
        "'f' is named 2 times",
    ),
    "edges out of order": (table(data={"groups": [bands(60, 45)]}), "data.groups.age.edges", "must increase"),
    "an edge twice": (table(data={"groups": [bands(45, 45)]}), "data.groups.age.edges", "must increase"),
    "edges too near to have names": (
        table(data={"groups": [bands(1000001.0, 1000002.0, 1000003.0)]}),
        "data.groups.age.edges",
        "'1e+06-1e+06' is named 2 times",
    ),
    "a clipping norm that float32 cannot scale to": (
        table(privacy={"clipping_norm": 1e300}),
        "privacy.clipping_norm",
        "1e+300 is outside [1e-09, 1e+09]",
    ),
    "a sampling rate of zero": (
        table(privacy={"sampling_rate": 0.0}),
        "privacy.sampling_rate",
        "0 is outside (0, 1]",
    ),
    "a sampling rate above one": (
        table(privacy={"sampling_rate": 1.01}),
        "privacy.sampling_rate",
        "1.01 is outside (0, 1]",
    ),
    "a sampling rate that is not a number": (
        table(privacy={"sampling_rate": math.nan}),
        "privacy.sampling_rate",
        "nan is outside (0, 1]",
    ),
    "a cap of batches that are not cut": (
        table(privacy={"max_batch_units": 50}),
        "privacy.max_batch_units",
        "means nothing under sampling = 'poisson'",
    ),
    "batches that are cut to nobody knows what": (
        table(privacy={"sampling": "truncated-poisson"}),
        "privacy.max_batch_units",
        "is missing",
    ),
    "batches that are cut although all units are in each": (
        table(privacy={"sampling": "truncated-poisson", "max_batch_units": 300, "sampling_rate": 1.0}),
        "privacy.sampling_rate",
        "every batch would be cut",
    ),
    "a largest batch that holds everybody": (
        table(privacy={"sampling": "truncated-poisson", "max_batch_units": 4000}),
        "privacy.max_batch_units",
        "nothing would ever be cut",
    ),
    "a largest batch below the expected one": (
        table(privacy={"sampling": "truncated-poisson", "max_batch_units": 2000, "sampling_rate": 0.5}),
        "privacy.max_batch_units",
        "is not above the 2000 units that the largest member draws",
    ),
    "fixed batches that fill no epoch": (
        table(privacy={"sampling": "fixed-batches", "sampling_rate": 0.3}),
        "privacy.sampling_rate",
        "0.3 is not 1 divided by a whole number",
    ),
    "rounds that end within an epoch of fixed batches": (
        table(privacy={"sampling": "fixed-batches", "sampling_rate": 1 / 3}),
        "privacy.steps",
        "no whole epochs of 3 fixed batches",
    ),
    "fixed batches and distributed noise": (
        table(privacy={"sampling": "fixed-batches", "sampling_rate": 1.0, "mechanism": "distributed"}, training={"rounds": 400}),
        "privacy.sampling",
        "do not go with distributed noise",
    ),
    "rounds of several steps under distributed noise": (
        table(privacy={"mechanism": "distributed"}),
        "training.rounds",
        "each step is a round",
    ),
    "distributed noise against nobody": (
        table(privacy={"mechanism": "distributed", "colluding": 0}, training={"rounds": 400}),
        "privacy.colluding",
        "every member knows its own share",
    ),
    "no honest share is left": (
        table(privacy={"mechanism": "distributed", "colluding": 3}, training={"rounds": 400}),
        "privacy.colluding",
        "5 members would do",
    ),
    "a weight by hand under distributed noise": (
        table(privacy={"mechanism": "distributed"}, training={"rounds": 400}, members=[{"name": "weighty", "units": 100, "weight": 2.0}, *({"name": f"m{i}", "units": 100} for i in range(3))]),
        "members.0.weight",
        "every unit counts the same",
    ),
    "a rotation without a sum of gradients": (
        table(privacy={"mechanism": "local", "rotation": "randomized-hadamard"}),
        "privacy.rotation",
        "members share no noise",
    ),
    "noise in parts without shares": (
        table(privacy={"mechanism": "local", "noise_in_parts": True}),
        "privacy.noise_in_parts",
        "members share no noise",
    ),
    "noise in parts for survivors that nobody signs": (
        table(privacy={"mechanism": "distributed", "noise_in_parts": True}, training={"rounds": 400}, secure_sum={"threat_model": "honest-but-curious"}),
        "privacy.noise_in_parts",
        "they sign none",
    ),
    "noise in parts against a coalition that signs twice": (
        table(privacy={"mechanism": "distributed", "noise_in_parts": True, "colluding": 2}, training={"rounds": 400}, members=[{"name": name, "units": 100} for name in ("north", "harbour", "valley", "m3")], simulation={"partition": {"kind": "files", "files": dict.fromkeys(("north", "harbour", "valley", "m3"), "x.csv")}}),
        "privacy.noise_in_parts",
        "at most privacy.colluding = 1",
    ),
    "no epsilon": (table(privacy={"epsilon": None}), "privacy.epsilon", "is missing"),
    "epsilon of zero": (table(privacy={"epsilon": 0.0}), "privacy.epsilon", "is 0"),
    "epsilon below zero": (table(privacy={"epsilon": -1.0}), "privacy.epsilon", "is -1"),
    "epsilon without end": (table(privacy={"epsilon": math.inf}), "privacy.epsilon", "is inf"),
    "epsilon that is not a number": (table(privacy={"epsilon": math.nan}), "privacy.epsilon", "is nan"),
    "no delta": (table(privacy={"delta": None}), "privacy.delta", "is missing"),
    "delta of zero": (table(privacy={"delta": 0.0}), "privacy.delta", "0 is outside (0, 1)"),
    "delta of one": (table(privacy={"delta": 1.0}), "privacy.delta", "1 is outside (0, 1)"),
    "delta that is not a number": (table(privacy={"delta": math.nan}), "privacy.delta", "nan is outside (0, 1)"),
    "delta of one in the largest member": (
        table(privacy={"delta": 1 / 4000}),
        "privacy.delta",
        "is not below 1 / 4000",
    ),
    "patients without a column for them": (table(data={"unit": None}), "data.unit", "names the patient"),
    "records that count more than once": (
        table(privacy={"unit": "record"}),
        "privacy.max_records_per_unit",
        "must be 1",
    ),
    "steps that rounds do not divide": (
        table(privacy={"steps": 401}),
        "training.rounds",
        "20 rounds do not divide privacy.steps = 401",
    ),
    "a rule that reads single updates": (
        table(training={"server": {"rule": "krum"}}),
        "training.server.rule",
        "which a secure sum never shows",
    ),
    "a rule that nobody knows": (
        table(training={"server": {"rule": "fedmagic"}}),
        "training.server.rule",
        "'fedmagic' is not known",
    ),
    "decay under a rule that has none": (
        table(training={"server": {"rule": "fedadam", "weight_decay": 0.01}}),
        "training.server.weight_decay",
        "means nothing under rule = 'fedadam'",
    ),
    "decay that erases the weights": (
        table(training={"server": {"rule": "adamw", "weight_decay": 2.0, "learning_rate": 0.5}}),
        "training.server.weight_decay",
        "2 times the learning rate 0.5 is not below 1",
    ),
    "a warm-up without an end": (
        table(training={"server": {"warmup_rounds": 20}}),
        "training.server.warmup_rounds",
        "20 is not below training.rounds = 20",
    ),
    "an end that is never come to": (
        table(training={"server": {"end_factor": 0.1}}),
        "training.server.end_factor",
        "means nothing under schedule = 'constant'",
    ),
    "a schedule that nobody knows": (
        table(training={"server": {"schedule": "staircase"}}),
        "training.server.schedule",
        "should be 'constant', 'linear' or 'cosine'",
    ),
    "an encoder for a table": (
        text(data={"features": [number()]}),
        "data.features",
        "exactly one text feature",
    ),
    "an encoder for two texts": (
        text(data={"features": [LETTER, {"kind": "text", "name": "note"}]}),
        "data.features",
        "exactly one text feature",
    ),
    "an encoder from nowhere": (text(model={"source": None}), "model", "either a source or a config"),
    "an encoder from two places": (
        text(model={"config": {"model_type": "bert"}, "vocabulary": "v"}),
        "model",
        "either a source or a config",
    ),
    "a config of no type": (
        text(model={"source": None, "config": {"hidden_size": 64}, "vocabulary": "v"}),
        "model.config.model_type",
        "is missing",
    ),
    "a config without words": (
        text(model={"source": None, "config": {"model_type": "bert"}}),
        "model.vocabulary",
        "is missing",
    ),
    "nothing to train": (
        text(adapter={"kind": "head", "train_head": False}),
        "adapter.train_head",
        "nothing would be trained",
    ),
    "a table model for a text": (
        table(data={"features": [LETTER]}),
        "data.features",
        "logistic cannot read the text 'letter'",
    ),
    "an adapter on a table model": (table(adapter={"kind": "lora"}), "adapter.kind", "lora needs an encoder"),
    "heads that do not divide the width": (
        table(model={"kind": "tabular-transformer", "width": 32, "heads": 5}),
        "model.heads",
        "5 heads do not divide a width of 32",
    ),
    "an exemption of no group": (
        table(fairness={"exempt": ["sex=other"]}),
        "fairness.exempt",
        "'sex=other' is no declared group",
    ),
    "an integer that JSON cannot hold": (
        text(model={"source": None, "config": {"model_type": "bert", "size": 2**53}, "vocabulary": "v"}),
        "model.config.size",
        "at most 2^53 - 1",
    ),
    "a number without end in a config": (
        text(model={"source": None, "config": {"model_type": "bert", "rate": math.inf}, "vocabulary": "v"}),
        "model.config.rate",
        "inf is not a finite number",
    ),
    "a column of the simulation that the agreement lacks": (
        table(simulation={"columns": {"weight": "kg"}}),
        "simulation.columns.weight",
        "is no column of the agreement",
    ),
    "data for someone who is no member": (
        table(simulation={"partition": {"kind": "files", "files": {**dict.fromkeys(["north", "harbour", "valley"], "f"), "x": "f"}}}),
        "simulation.partition",
        "'x' is no member",
    ),
    "a member without data": (
        table(simulation={"partition": {"kind": "files", "files": {"north": "f", "harbour": "f"}}}),
        "simulation.partition",
        "no data are named for member 'valley'",
    ),
    "a member without codes": (
        table(
            simulation={
                "partition": {"kind": "column", "file": "f", "column": "c", "values": {"north": ["1"], "harbour": ["2"]}}
            }
        ),
        "simulation.partition",
        "no data are named for member 'valley'",
    ),
}  # fmt: skip

# What one section can say about itself, and what a file as a whole can.
SECTIONS = {
    "an unknown section": (table(extra={"a": 1}), "extra", "is not a section of an agreement"),
    "a section missing": (table(training=None), "training", "the section is missing"),
    "an unknown key": (table(training={"epochs": 3}), "training.epochs", "is not a key of this section"),
    "an unknown key of a member": (
        table(members=[member("a"), member("b"), member("c", rows=5)]),
        "members.2.rows",
        "is not a key of this section",
    ),
    "a key missing": (table(privacy={"clipping_norm": None}), "privacy.clipping_norm", "is missing"),
    "a key of a member missing": (
        table(members=[member("a"), member("b"), {"name": "c"}]),
        "members.2.units",
        "is missing",
    ),
    "a string for a number": (table(privacy={"epsilon": "2"}), "privacy.epsilon", "number"),
    "a number for a string": (table(task={"name": 5}), "task.name", "string"),
    "a fraction for a count": (table(privacy={"steps": 400.0}), "privacy.steps", "integer"),
    "a boolean for a count": (table(privacy={"steps": True}), "privacy.steps", "integer"),
    "a count of zero": (table(privacy={"steps": 0}), "privacy.steps", "greater than or equal to 1"),
    "a clipping norm of zero": (table(privacy={"clipping_norm": 0.0}), "privacy.clipping_norm", "greater than 0"),
    "a learning rate without end": (
        table(training={"learning_rate": math.inf}),
        "training.learning_rate",
        "finite number",
    ),
    "an unknown mechanism": (table(privacy={"mechanism": "global"}), "privacy.mechanism", "'local'"),
    "a single label": (table(task={"labels": ["yes"]}), "task.labels", "at least 2 items"),
    "a name that is none": (
        table(members=[member("a"), member("b"), member("../c")]),
        "members.2.name",
        "pattern",
    ),
    "no members": (table(members=[]), "members", "1 to 100"),
    "too many members": (table(members=[member(f"m{i}") for i in range(101)]), "members", "1 to 100"),
    "members as one table": (table(members={"a": 1000}), "members", "tables [[members]]"),
    "a member that is a string": (table(members=["a", "b", "c"]), "members.0", "dictionary"),
    "a section that is a number": (table(task=3), "task", "dictionary"),
    "a model that is a string": (table(model="logistic"), "model.kind", "None is not known"),
    "an unknown model": (table(model={"kind": "forest"}), "model.kind", "'forest' is not known"),
    "a kind that is a list": (table(model={"kind": ["logistic"]}), "model.kind", "is not known"),
    "an unknown kind of feature": (
        table(data={"features": [{"kind": "image", "name": "x"}]}),
        "data.features.0",
        "'image'",
    ),
    "a feature without a kind": (table(data={"features": [{"name": "x"}]}), "data.features.0", "needs a key 'kind'"),
    "a range that is not a number": (
        table(data={"features": [number(low=math.nan)]}),
        "data.features.age.range",
        "nan is not below 100",
    ),
    "no features": (table(data={"features": []}), "data.features", "at least 1 item"),
    "a range of one number": (
        table(data={"features": [{"kind": "number", "name": "x", "range": [1.0]}]}),
        "data.features.0.number.range.1",
        "is missing",
    ),
    "a later form of the file": (table(schema_version=2), "schema_version", "schema_version = 1"),
    "a form that only equals 1": (table(schema_version=True), "schema_version", "schema_version = 1"),
    "an unknown baseline": (table(baseline="best"), "baseline", "neither 'pooled' nor 'local-only'"),
    "an unknown performance setting": (
        table(performance={"threads": 4}),
        "performance.threads",
        "is not a key of this section",
    ),
    "a batch of none": (
        table(performance={"physical_batch_size": 0}),
        "performance.physical_batch_size",
        "greater than or equal to 1",
    ),
    "a simulation without members' data": (
        table(simulation={"partition": None}),
        "simulation.partition",
        "is missing",
    ),
    "an unknown key of the frozen part": (
        table(frozen={"terms_id": "0" * 64, "note": "x"}),
        "frozen.note",
        "is not a key of this section",
    ),
    "a hash that is none": (table(frozen={"terms_id": "abc"}), "frozen.terms_id", "pattern"),
}  # fmt: skip


def test_the_templates_that_cases_start_from_are_sound():
    assert set(TREES) == {"table", "text"}
    for tree in TREES.values():
        parse_agreement(tomli_w.dumps(tree))


@pytest.mark.parametrize(("tree", "place", "words"), (RULES | SECTIONS).values(), ids=RULES | SECTIONS)
def test_what_is_wrong_is_told_with_its_place(tree, place, words):
    problems = told(tree)
    assert place in problems, problems
    assert words in problems[place]


@pytest.mark.parametrize(("tree", "place", "_words"), RULES.values(), ids=RULES)
def test_a_broken_rule_is_all_that_is_told(tree, place, _words):
    assert set(told(tree)) == {place}


def test_every_rule_has_a_failing_case(monkeypatch):
    lines = {
        node.lineno
        for node in ast.walk(ast.parse(inspect.getsource(rules)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Problem"
    }
    assert len(lines) >= 25
    reached = set()

    def recorded(*arguments):
        reached.add(sys._getframe(1).f_lineno)
        return Problem(*arguments)

    monkeypatch.setattr(rules, "Problem", recorded)
    for tree, _, _ in RULES.values():
        told(tree)
    assert reached == lines, (
        f"no case breaks the rules in lines {sorted(lines - reached)} of {rules.__file__}"
    )


def test_all_problems_are_told_at_once():
    tree = table(
        task={"labels": ["no", "no"]},
        training={"epochs": 3, "rounds": 7},
        privacy={"epsilon": -1.0, "delta": 0.5},
        performance={"threads": 4},
        simulation={"partition": {"kind": "magic"}},
        extra={"a": 1},
    )
    assert set(told(tree)) == {
        "task.labels",
        "training.epochs",
        "training.rounds",
        "privacy.epsilon",
        "privacy.delta",
        "performance.threads",
        "simulation.partition",
        "extra",
    }


def test_the_simulation_is_checked_beside_broken_terms():
    problems = told(table(privacy={"epsilon": -1.0}, simulation={"columns": {"weight": "kg"}}))
    assert set(problems) == {"privacy.epsilon", "simulation.columns.weight"}


def test_an_unreadable_section_hides_nothing_in_the_others():
    problems = told(
        table(data={"features": "none"}, privacy={"sampling_rate": 2.0}, model={"kind": "forest"})
    )
    assert {"data.features", "privacy.sampling_rate", "model.kind"} <= set(problems)


@pytest.mark.parametrize(
    "tree",
    [
        table(privacy={"mechanism": "none", "epsilon": None, "delta": None}),
        table(privacy={"sampling_rate": 1.0}),
        table(privacy={"clipping_norm": 1e-9}),
        table(privacy={"delta": 1 / 4001}),
        table(fairness={"exempt": ["sex=female", "age=45-65", "age=>=65"]}),
        table(members=[member("a", weight=0.5), member("b", weight=3.0), member("c")], simulation=None),
        table(data={"features": [number(missing=18.0), category(missing="own", baseline="a")]}),
        table(model={"kind": "tabular-transformer", "width": 32, "heads": 4}),
        text(model={"source": None, "config": {"model_type": "bert"}, "vocabulary": "clinical"}),
        text(adapter={"kind": "head"}),
        *(table(training={"server": {"rule": rule}}) for rule in rules.SUPPORTED_RULES),
        table(training={"server": {"schedule": "cosine", "warmup_rounds": 19, "end_factor": 1.0}}),
        table(training={"server": {"rule": "adamw", "learning_rate": 0.1, "weight_decay": 9.9}}),
    ],
)
def test_what_is_just_within_the_rules_passes(tree):
    assert len(parse_agreement(tomli_w.dumps(tree)).terms_id) == 64


def test_a_rule_is_supported_or_refused_by_name_never_both():
    assert not set(rules.SUPPORTED_RULES) & set(rules.INDIVIDUAL_UPDATE_RULES)
    for rule in rules.INDIVIDUAL_UPDATE_RULES:
        problems = told(table(training={"server": {"rule": rule}}))
        assert "reads every member's own update" in problems["training.server.rule"]
        assert "fedavg" in problems["training.server.rule"]
