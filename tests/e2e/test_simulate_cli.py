"""`hansa simulate` as a person calls it: through a process, with files, under every engine."""

from __future__ import annotations

import functools
import json
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from hansa.report import read_report
from support.cli import (
    Called,
    final_weights,
    finished,
    hansa,
    hansa_process,
    in_another_process,
    league_on_disk,
)
from support.durable import entries_in
from support.leagues import TERMS

MANY = 2000  # rounds, of which a run is stopped after a few
SOME = 8  # entries of a member's ledger, of which more than one are releases
TRANSFORMER = TERMS.replace(
    'kind = "logistic"', 'kind = "tabular-transformer"\nwidth = 8\nlayers = 1\nheads = 2'
)


@pytest.fixture(scope="module")
def private_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, object]]:
    folder = tmp_path_factory.mktemp("league")
    agreement = league_on_disk(folder, "\n[performance]\nevaluate_every = 1\n")
    called = hansa("simulate", agreement, "--data", folder, "--out", folder / "out", "--format", "json")
    assert called.status == 0, called.stderr
    return agreement, folder / "out", called.data


def test_a_run_leaves_report_model_and_agreement(private_run: tuple[Path, Path, dict[str, object]]) -> None:
    _, out, data = private_run
    assert sorted(path.name for path in out.iterdir()) == [
        "agreement.toml",
        "ledgers",
        "model.safetensors",
        "report.html",
        "report.json",
    ]
    report = read_report(out / "report.json")
    assert report.model_dump(mode="json") == data
    assert report.status == "done"
    assert report.rounds == 4
    assert not any("secure_sum" in line for line in report.not_in_force)
    assert report.secure_sum is not None
    assert (report.secure_sum.members, report.secure_sum.threshold, report.secure_sum.smallest_sum) == (
        3,
        3,
        3,
    )
    assert "proves no identity" in report.secure_sum.authority
    for entry in report.round_log:
        assert entry.secure_sum is not None
        assert entry.secure_sum.verified_by == "simulation-verifier"
        assert set(entry.secure_sum.phases) == {"keys", "shares", "delivery", "masked", "confirm", "unmask"}
        assert all(cost.received_bytes > 0 for cost in entry.secure_sum.phases.values())
    assert report.agreement_id[:12] in (out / "report.html").read_text()
    assert 0.5 < report.quality.mean_over_members <= 1


@pytest.mark.parametrize("tail", [0.0, 0.5])
def test_an_audit_accepts_what_a_run_leaves(
    private_run: tuple[Path, Path, dict[str, object]], tmp_path: Path, tail: float
) -> None:
    _, out, data = private_run
    if tail:
        terms = TERMS.replace("rounds = 4", f"rounds = 4\naverage_tail = {tail}")
        agreement, out = league_on_disk(tmp_path, terms=terms), tmp_path / "out"
        called = hansa("simulate", agreement, "--data", tmp_path, "--out", out, "--format", "json")
        assert called.status == 0, called.stderr
        data = called.data
    audited = hansa("audit", "verify", out / "ledgers", "--report", out / "report.json", "--format", "json")
    assert audited.status == 0, audited.stdout
    passed = audited.data["passed"]
    assert passed["sums of releases that their members signed"] == 4
    assert passed["claims: ε of members"] == 3
    assert passed["claims: the model"] == 1
    unchecked = [one["what"] for one in audited.data["not_checked"]]
    assert ("the hash of the published model" in unchecked) == (tail > 0)
    assert (data["model_sha256"] == data["last_model_sha256"]) == (tail == 0)


def recomputed(report: dict[str, Any], member: dict[str, Any]) -> float:
    """ε of a member from the report's events, by `dp_accounting` alone."""
    events = [event for event in report["events"] if event["member"] == member["name"]]
    assert events
    steps = []
    for event in events:
        sampled = event["event"]
        assert (sampled["type"], sampled["event"]["type"]) == ("PoissonSampled", "Gaussian")
        steps.append((sampled["sampling_probability"], sampled["event"]["noise_multiplier"], event["count"]))
    return composed(tuple(steps), member["delta"])


@functools.cache  # members of a league are charged alike
def composed(steps: tuple[tuple[float, float, int], ...], delta: float) -> float:
    """ε of (sampling rate, noise multiplier, count)."""
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, 1e-4)
    for rate, noise, count in steps:
        gaussian = dp_accounting.GaussianDpEvent(noise)
        accountant.compose(dp_accounting.PoissonSampledDpEvent(rate, gaussian), count)
    return float(accountant.get_epsilon(delta))


def test_epsilon_follows_from_the_events_by_an_independent_computation(
    private_run: tuple[Path, Path, dict[str, object]],
) -> None:
    report = json.loads((private_run[1] / "report.json").read_text())
    assert len(report["members"]) == 3
    for member in report["members"]:
        assert member["epsilon"] == pytest.approx(recomputed(report, member), abs=1e-6)
        assert member["epsilon"] <= member["budget_epsilon"] == 5.0


@pytest.mark.parametrize(
    ("epsilon", "delta", "rate", "steps", "rounds"),
    [(1.0, 1e-4, 0.3, 12, 3), (0.5, 1e-3, 1.0, 4, 4), (9.0, 1e-5, 0.1, 20, 2)],
)
def test_epsilon_follows_from_the_events_under_other_agreements(
    tmp_path: Path, epsilon: float, delta: float, rate: float, steps: int, rounds: int
) -> None:
    terms = TERMS
    for old, new in (
        ("epsilon = 5.0", f"epsilon = {epsilon}"),
        ("delta = 1e-3", f"delta = {delta}"),
        ("sampling_rate = 0.5", f"sampling_rate = {rate}"),
        ("steps = 8", f"steps = {steps}"),
        ("rounds = 4", f"rounds = {rounds}"),
    ):
        assert old in terms
        terms = terms.replace(old, new)
    report = hansa(
        "simulate", league_on_disk(tmp_path, terms=terms), "--data", tmp_path, "--format", "json"
    ).data
    assert sum(event["count"] for event in report["events"]) == 3 * steps
    for member in report["members"]:
        assert member["epsilon"] == pytest.approx(recomputed(report, member), abs=1e-6)
        assert 0.97 * epsilon < member["epsilon"] <= epsilon


def test_the_saved_agreement_is_the_one_that_ran(private_run: tuple[Path, Path, dict[str, object]]) -> None:
    _, out, data = private_run
    shown = hansa("agreement", "show", out / "agreement.toml", "--format", "json").data
    assert shown["agreement_id"] == data["agreement_id"]
    assert shown["terms_id"] == data["terms_id"]


def test_a_frozen_agreement_runs_as_it_is_or_not_at_all(
    private_run: tuple[Path, Path, dict[str, object]], tmp_path: Path
) -> None:
    agreement, out, private = private_run
    again = hansa("simulate", out / "agreement.toml", "--data", agreement.parent, "--format", "json").data
    assert again["agreement_id"] == private["agreement_id"]
    forged = tmp_path / "forged.toml"
    model = json.loads(hansa("agreement", "show", out / "agreement.toml", "--format", "json").stdout)["data"][
        "frozen"
    ]["model"]
    forged.write_text((out / "agreement.toml").read_text().replace(model["initial_sha256"], "0" * 64))
    refused = hansa("simulate", forged, "--data", agreement.parent, "--format", "json")
    assert refused.status == 2
    assert "initial_sha256" in json.dumps(refused.envelope["error"])


def test_no_dp_is_an_agreement_of_its_own(
    private_run: tuple[Path, Path, dict[str, object]], tmp_path: Path
) -> None:
    agreement, _, private = private_run
    data = hansa(
        "simulate",
        agreement,
        "--data",
        agreement.parent,
        "--no-dp",
        "--out",
        tmp_path / "o",
        "--format",
        "json",
    ).data
    assert data["agreement_id"] != private["agreement_id"]
    assert data["derived_from"] == private["terms_id"]
    assert data["mechanism"] == "none"
    assert all(member["epsilon"] is None for member in data["members"])
    assert data["events"] == []
    assert 'mechanism = "none"' in (tmp_path / "o" / "agreement.toml").read_text()


class OtherEngines(NamedTuple):
    """Runs by workers and by Ray.

    Attributes:
        agreement: of those without privacy, whose model is a transformer.
        without_privacy: by engine and processes; their output lies beside the agreement, in ``ENGINE-PROCESSES``.
        batches: a private agreement like that of `private_run`, with another batch size.
        private: its run by Ray.
    """

    agreement: Path
    without_privacy: dict[tuple[str, int], Called]
    batches: Path
    private: Called


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> OtherEngines:
    folder, apart = tmp_path_factory.mktemp("engines"), tmp_path_factory.mktemp("batches")
    agreement = league_on_disk(folder, terms=TRANSFORMER)
    batches = league_on_disk(apart, "\n[performance]\nphysical_batch_size = 3\n")
    engines = (("local", 2), ("ray", 2))
    *without_privacy, private = in_another_process(
        folder / "told.json",
        *(simulated(agreement, *engine, *without_dp(agreement, *engine)) for engine in engines),
        simulated(batches, "ray", 1),
    )
    return OtherEngines(agreement, dict(zip(engines, without_privacy, strict=True)), batches, private)


def simulated(agreement: Path, engine: str, processes: int, *more: str | Path) -> list[str | Path]:
    return [
        "simulate", agreement, "--data", agreement.parent, "--engine", engine, "--processes", str(processes),
        "--format", "json", *more,
    ]  # fmt: skip


def without_dp(agreement: Path, engine: str, processes: int) -> list[str | Path]:
    return ["--no-dp", "--seed", "3", "--out", agreement.parent / f"{engine}-{processes}"]


def test_engines_and_processes_give_the_same_model_without_privacy(others: OtherEngines) -> None:
    one = ("local", 1)
    runs = {one: hansa(*simulated(others.agreement, *one, *without_dp(others.agreement, *one)))}
    assert len(runs | others.without_privacy) == 3
    found = {}
    for (engine, processes), called in (runs | others.without_privacy).items():
        out = others.agreement.parent / f"{engine}-{processes}"
        assert called.status == 0, called.stderr
        assert called.data["engine"] == engine
        assert all(len(entry["present"]) == 3 for entry in called.data["round_log"])
        assert all(member["train_seconds"] > 0 for member in called.data["members"])
        found[engine, processes] = final_weights(out)
    reference = found["local", 1]
    assert np.abs(reference).max() > 0.01
    for weights in found.values():
        assert np.abs(weights - reference).max() <= 1e-6


def test_engine_processes_and_batch_size_change_no_epsilon(
    private_run: tuple[Path, Path, dict[str, object]], others: OtherEngines
) -> None:
    _, _, private = private_run
    for data in (hansa(*simulated(others.batches, "local", 1)).data, others.private.data):
        assert data["agreement_id"] == private["agreement_id"]
        assert [m["epsilon"] for m in data["members"]] == [m["epsilon"] for m in private["members"]]  # type: ignore[attr-defined]
        assert data["events"] == private["events"]


def test_baselines_and_references_say_what_federation_and_privacy_cost(tmp_path: Path) -> None:
    agreement = league_on_disk(tmp_path)
    data = hansa("simulate", agreement, "--data", tmp_path, "--references", "--format", "json").data
    kinds = [reference["kind"] for reference in data["references"]]
    assert kinds == ["pooled, same privacy", "federated, no privacy", "pooled, no privacy"]
    assert len({data["agreement_id"], *(reference["agreement_id"] for reference in data["references"])}) == 4
    pooled = hansa("simulate", agreement, "--data", tmp_path, "--baseline", "pooled", "--format", "json").data
    assert [member["name"] for member in pooled["members"]] == ["pooled"]
    assert sorted(pooled["quality"]["by_member"]) == ["a", "b", "c"]
    assert pooled["agreement_id"] == data["references"][0]["agreement_id"]
    alone = hansa(
        "simulate", agreement, "--data", tmp_path, "--baseline", "local-only", "--format", "json"
    ).data
    assert [member["rounds_present"] for member in alone["members"]] == [4, 4, 4]
    assert all(0 < member["epsilon"] <= 5 for member in alone["members"])


def test_repeats_are_averaged(tmp_path: Path) -> None:
    agreement = league_on_disk(tmp_path)
    data = hansa(
        "simulate", agreement, "--data", tmp_path, "--repeat", "3", "--seed", "5", "--format", "json"
    ).data
    assert [repeat["seed"] for repeat in data["repeats"]] == [5, 6, 7]
    mean = np.mean([repeat["mean_over_members"] for repeat in data["repeats"]])
    assert data["quality"]["mean_over_members"] == pytest.approx(mean)


def test_a_budget_that_is_kept_refuses_a_second_run(tmp_path: Path) -> None:
    agreement = league_on_disk(tmp_path)
    arguments = (
        "simulate",
        agreement,
        "--data",
        tmp_path,
        "--members-home",
        tmp_path / "home",
        "--format",
        "json",
    )
    first, second = hansa(*arguments), hansa(*arguments)
    assert first.status == 0, first.stderr
    assert second.status == 3
    assert second.envelope["status"] == "refused"
    assert second.data["status"] == "partial"
    assert "budget-spent" in second.data["stopped_because"]
    assert "a refuses: HANSA-401: the run asks for ε = " in second.stderr
    assert "ε = 0.00" in second.stderr  # what is left of it
    assert " remains, and no further run is admitted, whatever it costs\n" in second.stderr
    assert "  One run, at its exact ε" in second.stderr
    assert second.stderr.count(" refuses: ") == 3
    assert " refuses: " not in first.stderr
    assert [m["epsilon"] for m in second.data["members"]] == [m["epsilon"] for m in first.data["members"]]


def test_an_output_that_is_no_folder_is_told_before_the_run(tmp_path: Path) -> None:
    agreement = league_on_disk(tmp_path)
    called = hansa(
        "simulate", agreement, "--data", tmp_path, "--out", agreement, "--force", "--format", "json"
    )
    assert (called.status, called.envelope["error"]["code"]) == (2, "HANSA-104")
    assert agreement.read_text()


def test_an_output_folder_that_holds_a_run_is_kept(private_run: tuple[Path, Path, dict[str, object]]) -> None:
    agreement, out, _ = private_run
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    called = hansa("simulate", agreement, "--data", agreement.parent, "--out", out, "--format", "json")
    assert called.status == 2
    assert called.envelope["error"]["code"] == "HANSA-102"
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("change", "arguments", "code", "said"),
    [
        (("", ""), ("--no-dp", "--members-home", "home"), "HANSA-104", "budget"),
        (
            ("steps = 8", "steps = 8\ncolluding = 3"),
            ("--mechanism", "distributed"),
            "HANSA-101",
            "members would do",
        ),
        (("", ""), ("--no-dp", "--epsilon", "1"), "HANSA-104", "claims privacy"),
        (("", ""), ("--no-dp", "--compare"), "HANSA-104", "mechanisms are compared"),
        (("epsilon = 5.0", "epsilon = -1"), (), "HANSA-101", "privacy.epsilon"),
        (("", ""), ("--no-dp", "--mechanism", "local"), "HANSA-104", "contradict"),
        (("b.csv", "missing.csv"), (), "HANSA-202", "missing.csv"),
    ],
)
def test_bad_input_is_told_and_nothing_is_written(
    tmp_path: Path, change: tuple[str, str], arguments: tuple[str, ...], code: str, said: str
) -> None:
    agreement = league_on_disk(tmp_path)
    agreement.write_text(agreement.read_text().replace(*change) if change[0] else agreement.read_text())
    called = hansa(
        "simulate", agreement, "--data", tmp_path, "--out", tmp_path / "o", *arguments, "--format", "json"
    )
    assert called.status == 2, called.stdout + called.stderr
    assert called.envelope["error"]["code"] == code
    assert said in json.dumps(called.envelope["error"])
    assert not (tmp_path / "o").exists()


def test_mechanisms_are_compared_at_one_epsilon(tmp_path: Path) -> None:
    agreement, out = league_on_disk(tmp_path), tmp_path / "out"
    called = hansa(
        "simulate", agreement, "--data", tmp_path, "--out", out, "--mechanism", "distributed", "--compare",
        "--epsilon", "3", "--format", "json",
    )  # fmt: skip
    assert called.status == 0, called.stdout + called.stderr
    data = called.data
    assert data["changes"] == ["privacy mechanism distributed, each step a round of its own", "ε = 3"]
    assert data["rounds"] == 8
    assert [one["kind"] for one in data["references"]] == ["pooled, same privacy", "federated, local noise"]
    for member in data["members"]:
        assert member["epsilon_colluding"] <= 3 < member["epsilon"] == member["budget_epsilon"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "what sharing the noise brings" in page
    assert "against everyone" in page
    ledgers = out / "ledgers"
    audit = hansa(
        "audit", "verify", ledgers, "--keys", ledgers / "keys.json", "--report", out / "report.json"
    )
    assert audit.status == 0, audit.stdout


def test_interrupting_a_run_leaves_a_partial_report(tmp_path: Path) -> None:
    terms = TERMS.replace("rounds = 4", f"rounds = {MANY}").replace("steps = 8", f"steps = {MANY}")
    agreement = league_on_disk(tmp_path, terms=terms)
    home = tmp_path / "home"
    process = hansa_process(
        "simulate",
        agreement,
        "--data",
        tmp_path,
        "--out",
        tmp_path / "o",
        "--members-home",
        home,
        "--format",
        "json",
    )
    until = time.monotonic() + 1000
    while entries_in(home, "c") < SOME and time.monotonic() < until and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    called = finished(process)
    assert called.status == 1, called.stderr
    assert "Traceback" not in called.stderr
    report = read_report(tmp_path / "o" / "report.json")
    assert called.data["status"] == report.status == "partial"
    assert report.stopped_because is not None
    assert "by a person" in report.stopped_because
    assert report.stopped_by == "person"
    assert 0 < report.rounds < MANY
    assert all(member.noisy_steps >= report.rounds for member in report.members)
    assert all(0 < member.epsilon < 5 for member in report.members if member.epsilon is not None)
