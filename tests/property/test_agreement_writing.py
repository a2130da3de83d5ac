"""Agreements of any kind: what is written is read back to the same ids, and ids depend on nothing else."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.agreement import Agreement, Frozen, FrozenModel, Performance, Simulation, Terms, parse_agreement
from hansa.agreement.writing import agreement_toml
from hansa.canonical import canonical_hash

names = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,12}\Z")
words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)
any_text = st.text(
    st.characters(exclude_categories=["Cs"]), max_size=40
)  # quotes, newlines, control characters
positive = st.floats(1e-300, 1e300, allow_nan=False)
unit_interval = st.floats(0, 1, exclude_min=True)
hashes = st.from_regex(r"\A[0-9a-f]{64}\Z")


def distinct(elements, low, high):
    return st.lists(elements, min_size=low, max_size=high, unique=True)


@st.composite
def members(draw):
    found = []
    for name in draw(distinct(names, 3, 6)):
        member = {"name": name, "units": draw(st.integers(1, 10**6))}
        found.append({**member, **draw(st.fixed_dictionaries({}, optional={"weight": positive}))})
    return found


@st.composite
def number_features(draw, name):
    low, high = sorted(draw(distinct(st.floats(-1e12, 1e12), 2, 2)))
    missing = draw(st.just("drop") | st.floats(low, high))
    return {"kind": "number", "name": name, "range": [low, high], "missing": missing}


@st.composite
def category_features(draw, name):
    values = draw(distinct(names.filter(lambda value: value not in ("drop", "own")), 2, 4))
    feature = {"kind": "category", "name": name, "values": values}
    feature["missing"] = draw(st.sampled_from(["drop", "own", *values]))
    return {**feature, **draw(st.fixed_dictionaries({}, optional={"baseline": st.sampled_from(values)}))}


@st.composite
def tables(draw):
    label, unit, *features = draw(distinct(names, 3, 6))
    edges = sorted(draw(distinct(st.integers(-1000, 1000).map(float), 1, 3)))
    data = {
        "label": label,
        "unit": unit,
        "features": [draw(number_features(name) | category_features(name)) for name in features],
        "groups": draw(st.just([]) | st.just([{"kind": "bands", "name": "age", "edges": edges}])),
    }
    model = draw(
        st.just({"kind": "logistic"})
        | st.builds(
            lambda heads, seed: {
                "kind": "tabular-transformer",
                "width": 8 * heads,
                "heads": heads,
                "seed": seed,
            },
            st.integers(1, 8),
            st.integers(0, 2**53 - 1),
        )
    )
    return {"data": data, "model": model}


@st.composite
def texts(draw):
    label, letter = draw(distinct(names, 2, 2))
    keys = names.filter(lambda key: key != "model_type")
    scalars = st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-1e30, 1e30) | any_text
    config = {**draw(st.dictionaries(keys, scalars, max_size=4)), "model_type": "bert"}
    model = draw(
        st.builds(lambda source: {"kind": "encoder", "source": source}, any_text)
        | st.just({"kind": "encoder", "config": config, "vocabulary": "clinical"})
    )
    adapter = draw(st.sampled_from([{}, {"kind": "ffa-lora", "rank": 4, "targets": ["query", "value"]}]))
    data = {"label": label, "features": [{"kind": "text", "name": letter}]}
    return {"data": data, "model": model, "adapter": adapter}


@st.composite
def terms(draw):
    people = draw(members())
    rounds = draw(st.integers(1, 50))
    private = draw(st.booleans())
    mechanism = draw(st.sampled_from(["local", "distributed"])) if private else "none"
    if mechanism == "distributed":
        people = [{key: value for key, value in one.items() if key != "weight"} for one in people]
    privacy = {
        "mechanism": mechanism,
        "clipping_norm": draw(st.floats(1e-9, 1e9)),
        "sampling_rate": draw(unit_interval),
        "steps": rounds * (1 if mechanism == "distributed" else draw(st.integers(1, 20))),
    }
    if private:
        privacy["epsilon"] = draw(positive)
        privacy["delta"] = draw(unit_interval) / (2 * max(member["units"] for member in people)) or 1e-9
    sections = draw(tables() | texts())
    if (
        private and len(sections["data"].get("groups", ())) <= 1
    ):  # more, crossed, may be more than a log's entry holds
        sections |= draw(st.just({}) | publications())
    return {
        "task": {"name": draw(words), "purpose": draw(any_text), "labels": draw(distinct(names, 2, 4))},
        "members": people,
        **sections,
        "training": {"rounds": rounds, "learning_rate": draw(positive)},
        "privacy": privacy,
    }


@st.composite
def publications(draw):
    """How the model is judged and published, by conditions that every task has."""
    before = draw(st.lists(st.sampled_from(["merge", "prune"]), unique=True).map(sorted))
    after = draw(st.sampled_from([[], ["int8"]]))
    two = "prune" in before or bool(after)
    share = st.floats(1e-6, 1, exclude_max=True)
    conditions = st.sampled_from(["epsilon", "members", "unsafe-no-gate"])
    kinds = draw(st.lists(conditions, unique=True, max_size=3))
    limits = {"epsilon": {"at_most": 5.0}, "members": {"at_least": 2}, "unsafe-no-gate": {}}
    flat = [{"kind": kind, **limits[kind]} for kind in kinds]
    return {
        "publication": {
            "compress": [*before, "onnx", *after],
            "min_quality": draw(share),
            "error": draw(share),
            "version": draw(names),
            "conditions": [{"kind": "any-of", "conditions": flat}] if flat and draw(st.booleans()) else flat,
        },
        "evaluation": {
            "bins": 2 * draw(st.integers(1, 3)),
            "compared": draw(st.sampled_from(["none", "decisions"])) if two else "none",
            "max_rows_per_cell": draw(st.integers(1, 10**6)),
            "epsilon": draw(st.floats(1e-9, 50)),
            "evaluations": draw(st.integers(1, 9)),
            "share": draw(share),
            "key": draw(st.integers(0, 2**53 - 1)),
        },
    }


@st.composite
def simulations(draw, people):
    partition = draw(
        st.just({"kind": "generated"})
        | st.builds(
            lambda file, alpha: {"kind": "dirichlet", "file": file, "alpha": alpha}, any_text, positive
        )
        | st.builds(lambda file: {"kind": "files", "files": dict.fromkeys(people, file)}, any_text)
    )
    tree = {"partition": partition, "source": {"missing": draw(st.lists(any_text, max_size=2))}}
    return Simulation.model_validate({**tree, "test": {"share": draw(st.floats(0.01, 0.99))}})


@st.composite
def keys(draw, people):
    """No keys, or one for every party."""
    if "coordinator" in people or draw(st.booleans()):
        return {}
    reserved = {*people, "coordinator"}
    auditors = draw(distinct(names.filter(lambda name: name not in reserved), 0, 2))
    made = draw(
        distinct(st.from_regex(r"\Ap256:0[23][0-9a-f]{64}\Z"), *[len(people) + 1 + len(auditors)] * 2)
    )
    pairs = zip([*people, "coordinator", *auditors], made, strict=True)
    by_name = dict(pairs)
    return {
        "member_keys": {name: by_name[name] for name in people},
        "coordinator_key": by_name["coordinator"],
        "auditor_keys": {name: by_name[name] for name in auditors},
    }


@st.composite
def agreements(draw):
    whole = parse_tree(draw(terms()))
    people = [member.name for member in whole.terms.members]
    simulation = draw(st.none() | simulations(people))
    performance = Performance(
        physical_batch_size=draw(st.none() | st.integers(1, 10**6)),
        keep_activations=draw(st.sampled_from(["off", "memory", "disk", "auto"])),
        precision=draw(st.sampled_from(["float32", "bfloat16"])),
        processes=draw(st.integers(1, 1024)),
    )
    whole = Agreement(whole.terms, simulation, performance, folder=Path("league"))
    if draw(st.booleans()):
        model = FrozenModel(
            parameters=draw(st.integers(1, 2**53 - 1)),
            initial_sha256=draw(hashes),
            frozen_sha256=draw(hashes),
            tokenizer_sha256=draw(st.none() | hashes),
        )
        noise = draw(positive) if whole.terms.private else None
        judging = None if whole.terms.evaluation is None else draw(positive)
        whole = whole.freeze(
            Frozen(
                terms_id=whole.terms_id,
                model=model,
                noise_multiplier=noise,
                evaluation_noise_multiplier=judging,
                **draw(keys(people)),
            )
        )
    return whole


def parse_tree(tree):
    """An agreement from a tree, by the way that derived agreements take, which checks every rule."""
    seed = parse_agreement(
        '[task]\nname = "x"\nlabels = ["a", "b"]\n'
        '[data]\nlabel = "y"\n[[data.features]]\nkind = "number"\nname = "x"\nrange = [0, 1]\n'
        '[model]\nkind = "logistic"\n[training]\nrounds = 1\n'
        '[privacy]\nmechanism = "none"\nclipping_norm = 1.0\nsampling_rate = 0.5\nsteps = 1\n'
        + "".join(f'[[members]]\nname = "{name}"\nunits = 1\n' for name in "abc")
    )
    # keys of the seed that the tree does not set are taken out, so that nothing of it stays
    changes = {
        name: {**dict.fromkeys(seed.terms.tree()[name] or ()), **change}
        if isinstance(change, dict)
        else change
        for name, change in tree.items()
    }
    return seed.derive(**changes)


@settings(max_examples=40)
@given(agreements())
def test_what_is_written_is_read_back_whole(agreement):
    read = parse_agreement(agreement_toml(agreement), folder=Path("league"))
    assert read == agreement
    assert read.terms_id == agreement.terms_id
    if agreement.frozen is not None:
        assert read.agreement_id == agreement.agreement_id


@settings(max_examples=40)
@given(agreements())
def test_writing_twice_is_the_same_text(agreement):
    text = agreement_toml(agreement)
    assert agreement_toml(parse_agreement(text)) == text


@settings(max_examples=40)
@given(agreements(), st.integers(1, 10**6), st.integers(1, 1024))
def test_ids_do_not_depend_on_what_one_machine_does(agreement, batch, processes):
    alone = Agreement(agreement.terms, frozen=agreement.frozen)
    faster = agreement.with_performance(physical_batch_size=batch, processes=processes, device="cpu")
    assert faster.terms_id == alone.terms_id == canonical_hash(agreement.terms.tree())
    assert faster.terms.privacy == agreement.terms.privacy
    if agreement.frozen is not None:
        assert faster.agreement_id == alone.agreement_id


@settings(max_examples=40)
@given(terms())
def test_terms_survive_their_own_tree(tree):
    written = parse_tree(tree).terms
    assert parse_tree(without_none(written.tree())).terms == written
    assert isinstance(written, Terms)


def without_none(value):
    if isinstance(value, dict):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    return [without_none(item) for item in value] if isinstance(value, list) else value
