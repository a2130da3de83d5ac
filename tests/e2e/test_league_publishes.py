"""A league trains, has its file judged, gates and publishes, from the parties' real homes; a person excuses what is undecided."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hansa.artifact.refusal import REFUSAL_JSON
from hansa.errors import RunStateError
from hansa.gate import approving
from hansa.identity import COORDINATOR
from hansa_server import coordinating
from hansa_server.home import read_home
from hansa_server.later_evaluation import PACKAGE, begin_evaluation, evaluates
from support.cli import hansa
from support.published_runs import in_process
from support.publishing_league import PublishingLeague

NAMES = ("north", "south", "east")
WHO = ("--by", "Ada Example, chief medical officer", "--reason", "few women; reviewed by hand")


@pytest.fixture(scope="module")
def league(tmp_path_factory: pytest.TempPathFactory) -> PublishingLeague:
    """A league in which women are too few to judge."""
    made = PublishingLeague(tmp_path_factory.mktemp("league"), NAMES, min_group_size=300, women=0.1)
    made.enrol()
    return made


@pytest.fixture(scope="module")
def refused(league: PublishingLeague) -> str:
    """Its run, whose gate is closed."""
    run = league.begin()
    with pytest.MonkeyPatch.context() as patch:
        in_process(patch)
        row = league.carry(run)
    assert row.state == "done"
    assert "nothing is published" in row.note
    return run


def folder(league: PublishingLeague, run: str) -> Path:
    return league.runs.folder(run)


def test_a_league_publishes_once_persons_excused_what_was_undecided(
    league: PublishingLeague, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, run = league.home(COORDINATOR), folder(league, refused)
    told = json.loads((run / REFUSAL_JSON).read_text())
    assert {one["verdict"] for one in told["obstacles"]} == {"inconclusive"}
    listed = hansa("run", "override", "--home", home, "--format", "json").data
    assert listed["undecided"]
    assert set(listed["undecided"]) == {one["condition"] for one in told["obstacles"]}
    first, *others = listed["undecided"]

    # nothing excused, nothing decided again
    assert hansa("run", "resume", "--home", home).status == 3

    # a member's person sees the same in the member's own copy of the log, and signs for one condition
    node = league.home("north")
    assert hansa("node", "override", "--home", node, "--format", "json").data["undecided"] == [first, *others]
    signed = hansa(
        "node", "override", "--home", node, "--condition", first, *WHO, "--out", league.folder, "--format", "json"
    )  # fmt: skip
    (file,) = signed.data["written"]

    # the coordinator's takes it, and excuses the rest
    named = [argument for name in others for argument in ("--condition", name)]
    taken = hansa("run", "override", "--home", home, "--file", file, *named, *WHO, "--format", "json")
    assert taken.data["undecided"] == []
    assert set(taken.data["excused"]) == {first, *others}
    assert hansa("run", "override", "--home", home, "--file", file).status == 0  # twice is no harm

    league.runs.reopen(refused)
    in_process(monkeypatch)
    row = league.carry(refused)
    assert (row.state, row.note) == ("done", "")
    package = run / coordinating.PACKAGE
    verified = hansa("model", "verify", package, "--keys", league.folder / "keys.json")
    assert verified.status == 0, verified
    card = (package / "MODEL_CARD.md").read_text()
    assert "Ada Example" in card
    quality = json.loads((package / "fairness.json").read_text())
    excused = {one["name"]: one["excused"] for one in quality["verdicts"] if one["excused"]}
    assert excused.keys() == {first, *others}
    assert "at north" in excused[first]
    assert not coordinating.refused(run)
    keys, frozen = league.folder / "keys.json", league.folder / "league.frozen.toml"
    audit = ("audit", "verify", run / "federation", run / "rounds.jsonl", "--keys", keys, "--format", "json")
    audited = hansa(*audit, "--agreement", frozen)
    assert audited.status == 0, audited
    decided = {what: n for what, n in audited.data["passed"].items() if "decided anew" in what}
    assert sorted(decided.values()) == [
        1,
        2,
    ]  # the gate that was closed, the one that is open, one publication
    # whoever comes to another decision from the same log says which gate it is, and in what
    with monkeypatch.context() as patch:
        honest = approving.decide
        patch.setattr(approving, "decide", lambda terms, grounds: honest(terms, replace(grounds, members=2)))
        (failure,) = hansa(*audit, "--agreement", frozen).data["failures"]
    assert failure["type"] == "gate"
    assert "'members >= 3' is said to be pass, and fail follows" in failure["what"]
    # without the agreement nothing is decided, and that is told
    assert any("--agreement" in one["why"] for one in hansa(*audit).data["not_checked"])
    assert hansa(*audit, "--agreement", league.folder / "league.toml").status == 2
    # what is published is not decided again
    assert hansa("run", "resume", "--home", home).status == 3
    assert "is open" in hansa("run", "override", "--home", home).stdout


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (("--condition", "accuracy >= 0.1", *WHO), "is no condition of this gate"),
        (("--condition", "accuracy >= 0.6", *WHO), "passes"),
        (("--condition", "x", "--by", "Ada Example", "--reason", "reviewed"), "names a person, a role and a reason"),
        (("--condition", "x", "--by", "Ada Example, officer"), "names a person, a role and a reason"),
        (("--by", "Ada Example, officer", "--reason", "reviewed"), "name no condition"),
    ],
)  # fmt: skip
def test_an_override_that_excuses_nothing_is_refused(
    league: PublishingLeague, refused: str, changed: tuple[str, ...], words: str
) -> None:
    for command, home in (("run", COORDINATOR), ("node", "south")):
        called = hansa(command, "override", "--home", league.home(home), "--run", refused, *changed)
        assert called.status == 2
        assert words in called.stderr
    assert not list((folder(league, refused) / coordinating.OVERRIDES).glob("south*"))


def test_a_file_that_another_party_signed_is_refused(
    league: PublishingLeague, refused: str, tmp_path: Path
) -> None:
    first = hansa("node", "override", "--home", league.home("south"), "--format", "json").data
    names = [*first["undecided"], *first["excused"]] or ["accuracy of every sex >= 0.6, sex=f"]
    node = league.home("south")
    made = hansa("node", "override", "--home", node, "--condition", names[0], *WHO, "--out", tmp_path)
    assert made.status == 0, made
    (file,) = tmp_path.glob("*.override")
    for change in ((b"south ", b"north "), (b"reviewed", b"reviewen")):
        broken = tmp_path / "broken.override"
        broken.write_bytes(file.read_bytes().replace(*change))
        called = hansa("run", "override", "--home", league.home(COORDINATOR), "--file", broken)
        assert called.status != 0
    assert not list((folder(league, refused) / coordinating.OVERRIDES).glob("south*"))


def test_a_run_without_a_gate_has_nothing_to_excuse(league: PublishingLeague) -> None:
    run = league.begin()
    called = hansa("run", "override", "--home", league.home(COORDINATOR), "--run", run)
    assert called.status == 2
    assert "no gate of this run" in called.stderr


@pytest.fixture
def published(league: PublishingLeague, refused: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same run, once its model is published."""
    in_process(monkeypatch)
    if not (folder(league, refused) / PACKAGE).exists():
        home = league.home(COORDINATOR)
        undecided = hansa("run", "override", "--home", home, "--format", "json").data["undecided"]
        named = [argument for name in undecided for argument in ("--condition", name)]
        assert hansa("run", "override", "--home", home, *named, *WHO).status == 0
        league.runs.reopen(refused)
        assert league.carry(refused).note == ""
    return refused


def test_a_published_model_is_evaluated_once_more_on_what_members_hold_by_then(
    league: PublishingLeague, published: str
) -> None:
    home = read_home(league.home(COORDINATOR))
    for name in league.names:  # a year has passed: other people, for whom the signal says the opposite
        lines = (league.folder / f"{name}.csv").read_text().splitlines()
        turned = [f"{-float(x):.4f},{sex},{y}" for x, sex, y in (line.split(",") for line in lines[1:])]
        (league.folder / f"{name}.csv").write_text("\n".join([lines[0], *turned]) + "\n")
    run = begin_evaluation(home, league.runs, None)
    assert evaluates(folder(league, run)) == published
    row = league.carry(run)
    assert (row.state, row.note) == ("done", "")
    package = folder(league, published) / PACKAGE
    drifted = hansa("model", "monitor", package, folder(league, run) / "federation", "--format", "json")
    assert drifted.status == 3, drifted
    assert {one["group"]: one["change"] for one in drifted.data["groups"]}["everybody"] == "worse"
    # as often as was agreed, and no more
    again = league.carry(begin_evaluation(home, league.runs, published))
    assert again.state == "partial"
    assert "as often as the agreement allows" in again.note


def test_what_was_not_published_is_not_evaluated_once_more(league: PublishingLeague, refused: str) -> None:
    home = read_home(league.home(COORDINATOR))
    with pytest.raises(RunStateError, match="has published a model"):
        begin_evaluation(home, league.runs, "another-run")
    running = league.begin()
    called = hansa("run", "evaluate", "--home", league.home(COORDINATOR))
    assert called.status == 3
    assert "has not ended" in called.stderr, called
    assert league.runs.one().run == running


@pytest.mark.parametrize(
    ("spoil", "status", "words"),
    [
        (lambda row: row.partition(",")[0] + "," + row.rpartition(",")[2], 2, "there is no column 'sex'"),
        (lambda row: row.replace(",f,", ",x,"), 2, "hold a code that is not declared: 'x'"),
        (lambda row: row.replace(",f,yes", ",f,no"), 0, "the group 'f' has no row with the label 'yes'"),
        (lambda row: row.replace(",f,", ",m,"), 0, "the group 'f' has no row at all"),
    ],
)
def test_what_a_member_lacks_for_judging_is_told_before_a_run(
    league: PublishingLeague, tmp_path: Path, spoil: Callable[[str], str], status: int, words: str
) -> None:
    data = tmp_path / "records.csv"
    data.write_text("".join(f"{spoil(row)}\n" for row in league.records("north").splitlines()))
    frozen = league.folder / "league.frozen.toml"
    called = hansa("node", "check", data, "--agreement", frozen, "--member", "north")
    assert called.status == status, called
    assert words in (called.stderr if status else called.stdout)


def test_a_budget_that_judging_shares_with_training_is_told_before_a_run(
    league: PublishingLeague,
) -> None:
    assert "have a budget of their own" in hansa("node", "doctor", "--home", league.home("east")).stdout
    settings = league.home("east") / "node.toml"
    before = settings.read_text()
    try:
        settings.write_text(before.replace("dataset_id = ", "# dataset_id = ", 1))
        told = hansa("node", "doctor", "--home", league.home("east")).stdout
    finally:
        settings.write_text(before)
    assert "charged with those that train, up to ε = 8 and 6 together" in told
    assert "--disjoint-from" in told
