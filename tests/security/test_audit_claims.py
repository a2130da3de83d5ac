"""What is published about a run against what the logs lead to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hansa.audit.findings import Notebook
from hansa.audit.mechanism import contradiction
from hansa.audit.spending import RunSpend
from hansa.ledger import Charging, Spending
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.charges import Charge
from hansa.privacy.events import Spend, poisson_gaussian, rate_and_multiplier
from hansa.privacy.group_rates import epsilon_at_rate
from hansa.report import MitigationReport
from support.auditing import audited, failure_of
from support.audits import (
    CHARGE,
    DELTA,
    EVENT,
    LATE,
    MEMBERS,
    STEPS,
    changed,
    entry_of,
    story,
)
from support.published import report_of, write_report_json

TRUTH = story()
VICTIM = MEMBERS[1]


class TestClaims:
    """What was published against what the logs lead to."""

    def claim(self, tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        tree = report_of(TRUTH).model_dump(mode="json")
        change(tree)
        path = tmp_path / "claimed.json"
        path.write_text(json.dumps(tree))
        return failure_of(audited(TRUTH.write(tmp_path), "--report", path), "report.json")

    def test_a_lower_epsilon(self, tmp_path: Path) -> None:
        def lower(tree: dict[str, Any]) -> None:
            tree["members"][1]["epsilon"] *= 0.9

        failure = self.claim(tmp_path, lower)
        assert failure["what"].startswith(f"members.{VICTIM}.epsilon is ")
        assert "lower" in failure["what"]
        assert failure["type"] == "claim"

    def test_rates_by_group_are_held_to_the_rate_that_is_charged(self, tmp_path: Path) -> None:
        rate = rate_and_multiplier(EVENT)[0]
        report = report_of(TRUTH)
        spends = [Spend(one.event, one.count) for one in report.events if one.member == VICTIM]
        most = max(member.epsilon for member in report.members)
        lower = epsilon_at_rate(spends, DELTA, rate / 4)
        groups = [
            {"value": "f", "rate": rate, "epsilon": most},
            {"value": "m", "rate": rate / 4, "epsilon": lower},
        ]
        told = {"attribute": "sex", "accounted_rate": rate, "groups": groups}
        honest = report.model_copy(update={"mitigation": MitigationReport.model_validate(told, strict=False)})
        called = audited(TRUTH.write(tmp_path), "--report", write_report_json(honest, tmp_path))
        assert called.status == 0, called.stdout
        assert any("rates by group" in one for one in called.stdout.splitlines())
        for change, place in (
            ({"accounted_rate": rate / 2}, "mitigation.accounted_rate"),
            ({"groups": [{**groups[0], "rate": rate * 2}, groups[1]]}, "mitigation.groups.f.rate"),
            ({"groups": [groups[0], {**groups[1], "epsilon": lower / 2}]}, "mitigation.groups.m.epsilon"),
        ):
            notebook = Notebook()
            false = MitigationReport.model_validate({**told, **change}, strict=False)
            reserved = RunSpend(VICTIM, "", "", "", 0, {"training": CHARGE})
            wrong = contradiction(report.model_copy(update={"mitigation": false}), [reserved], notebook)
            assert wrong is not None
            assert wrong[0] == place

    def test_rounds_of_which_a_whole_log_holds_no_sum(self, tmp_path: Path) -> None:
        report = write_report_json(report_of(TRUTH), tmp_path)
        summed = {TRUTH.find("federation", "aggregate", round=number) for number in range(1, 5)}
        entries = [data for index, data in enumerate(TRUTH.federation) if index not in summed]
        ledgers = TRUTH.with_federation(entries).write(tmp_path)
        (ledgers / "rounds.jsonl").unlink()
        failure = failure_of(audited(ledgers, "--report", report), "report.json")
        assert failure["what"] == "rounds is 4, and the log holds 0 sums"

    def test_without_a_log_of_the_federation_its_rounds_are_not_checked(self, tmp_path: Path) -> None:
        report = write_report_json(report_of(TRUTH), tmp_path)
        ledgers = TRUTH.write(tmp_path)
        shutil.rmtree(ledgers / "federation")
        called = audited(ledgers, "--report", report)
        assert called.status == 0, called.stdout
        whys = {one["why"] for one in called.data["not_checked"]}
        assert "no whole copy of the federation's log was given" in whys

    def test_a_lower_epsilon_with_fewer_events(self, tmp_path: Path) -> None:
        def fewer(tree: dict[str, Any]) -> None:
            tree["members"][1]["epsilon"] = epsilon_spent([Spend(EVENT, STEPS)], DELTA)
            tree["members"][1]["noisy_steps"] = tree["events"][1]["count"] = STEPS

        assert self.claim(tmp_path, fewer)["what"].startswith(f"events of {VICTIM}")

    def test_a_lower_epsilon_at_another_delta(self, tmp_path: Path) -> None:
        def other(tree: dict[str, Any]) -> None:
            for member in tree["members"]:
                member["delta"] = 1e-9

        assert f"members.{MEMBERS[0]}.epsilon" in self.claim(tmp_path, other)["what"]

    def test_a_lower_epsilon_by_round(self, tmp_path: Path) -> None:
        def lower(tree: dict[str, Any]) -> None:
            tree["history"][3]["epsilon"] *= 0.9

        assert "history.3.epsilon" in self.claim(tmp_path, lower)["what"]

    def test_what_no_log_can_tell_is_said_to_be_not_checked(self, tmp_path: Path) -> None:
        tree = report_of(TRUTH).model_dump(mode="json")
        tree.update(clipping_norm=1e9, randomness="dice", history=[])
        path = tmp_path / "report.json"
        path.write_text(json.dumps(tree))
        called = audited(TRUTH.write(tmp_path), "--report", path)
        assert called.status == 0
        said = " ".join(one["what"] for one in called.data["not_checked"])
        for words in (
            "the clipping norm, whether sums were rotated, where randomness came from",
            "ε by round",
        ):
            assert words in said

    @pytest.mark.parametrize(
        ("change", "what"),
        [
            (lambda t: t.update(model_sha256="e5" * 32), "model_sha256"),
            (lambda t: t.update(last_model_sha256="e5" * 32), "last_model_sha256"),
            (lambda t: t.update(agreement_id="e5" * 32), "agreement_id"),
            (lambda t: t.update(terms_id="e5" * 32), "terms_id"),
            (lambda t: t.update(rounds=3), "rounds is 3"),
            (lambda t: t.update(unit="record"), "unit"),
            (lambda t: t["members"][0].update(budget_epsilon=1.0), "budget_epsilon"),
            (lambda t: t["members"][0].update(noisy_steps=1), "noisy_steps"),
            (lambda t: t["members"][0].update(epsilon=None), "is not claimed"),
            (lambda t: t["members"][0].update(epsilon=9.0), "higher"),
            (lambda t: t["members"].reverse(), "members are not those"),
            (lambda t: t["round_log"][1]["present"].append(LATE), "round_log.2.present"),
            (lambda t: t["events"][0]["event"].update(sampling_probability=0.01), "events of"),
            (lambda t: t["events"][0].update(event={"type": "Magic"}), "no event"),
            (
                lambda t: t.update(noise_multiplier=200.0),
                "noise_multiplier is 200, and events were reserved at 2",
            ),
            (lambda t: t.update(noise_multiplier=None), "noise_multiplier is missing"),
            (lambda t: t.update(sampling_rate=0.0001), "sampling_rate is 0.0001"),
            (lambda t: t.update(mechanism="distributed"), "members reserved their own noise"),
            (lambda t: t.update(mechanism="none"), "mechanism is none"),
            (lambda t: t["members"][0].update(rounds_present=0), "rounds_present is 0, and 4 sums"),
            (lambda t: t["members"][0].update(budget_epsilon=None), "budget_epsilon is not named"),
            (
                lambda t: t["members"][0].update(delta=0.9999, epsilon=0.0),
                "delta is 0.9999, and 1e-05 was granted",
            ),
            (lambda t: t["history"][2].update(epsilon=None), "history.2.epsilon is missing"),
            (lambda t: t["history"].pop(), "history ends at round 3"),
            (lambda t: [one.update(round=0, epsilon=0.0) for one in t["history"]], "history does not go"),
            (lambda t: t.update(round_log=[]), "round_log tells of 0 sums"),
            (lambda t: t.update(round_log=[t["round_log"][0]] * 4), "round_log tells of 4 sums"),
            (lambda t: [one.update(present=[]) for one in t["round_log"]], "round_log tells of 0 sums"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_another_claim(self, tmp_path: Path, change: Callable[[dict[str, Any]], Any], what: str) -> None:
        assert what in self.claim(tmp_path, change)["what"]

    @pytest.mark.parametrize(
        ("weak", "why"),
        [
            ({"type": "NonPrivate"}, "lower than the inf"),
            (poisson_gaussian(0.1, 0.01), "no accountant of record can tell"),
        ],
        ids=["none", "next to none"],
    )
    def test_a_finite_epsilon_of_events_that_bound_nothing(
        self, tmp_path: Path, weak: dict[str, Any], why: str
    ) -> None:
        charge = Charging.of(Charge("training", weak, CHARGE.count))
        said = {
            "reservation": {"charges": (charge,)},
            "release": {"spends": (Spending.of(Spend(weak, STEPS)),)},
        }
        entries = [changed(data, **said.get(entry_of(data).type, {})) for data in TRUTH.federation]
        ledgers = replace(TRUTH, federation=tuple(entries), own={}, records=()).write(tmp_path)
        (ledgers / "rounds.jsonl").unlink()
        tree = report_of(TRUTH).model_dump(mode="json")
        for event in tree["events"]:
            event["event"] = dict(weak)
        for member in tree["members"]:
            member["epsilon"] = 0.5
        path = tmp_path / "claimed.json"
        path.write_text(json.dumps({**tree, "noise_multiplier": 0.01}))
        failure = failure_of(audited(ledgers, "--report", path), "report.json")
        assert failure["what"].startswith(f"members.{MEMBERS[0]}.epsilon is 0.5")
        assert why in failure["what"]

    def test_an_event_with_an_integer_that_no_float_holds(self, tmp_path: Path) -> None:
        def large(tree: dict[str, Any]) -> None:
            tree["events"][0]["event"]["event"]["noise_multiplier"] = 10**30

        assert "no event" in self.claim(tmp_path, large)["what"]

    def test_a_mean_of_models_is_told_to_be_unchecked(self, tmp_path: Path) -> None:
        ledgers = TRUTH.write(tmp_path)
        honest = report_of(TRUTH)
        mean = honest.model_copy(update={"model_sha256": "e5" * 32, "last_model_sha256": honest.model_sha256})
        called = audited(ledgers, "--report", write_report_json(mean, tmp_path))
        assert called.status == 0, called.stdout
        assert "the hash of the published model" in [one["what"] for one in called.data["not_checked"]]

    def test_claims_of_who_gave_no_own_log_are_read_in_the_federations(self, tmp_path: Path) -> None:
        ledgers = TRUTH.write(tmp_path)
        shutil.rmtree(ledgers / "members")
        report = write_report_json(report_of(TRUTH), tmp_path)
        called = audited(ledgers, "--report", report)
        assert called.status == 0, called.stdout
        assert called.data["passed"]["claims: ε of members"] == len(MEMBERS)
        assert called.data["spent"] == []  # what was granted stands in the members' own logs
        said = [one["what"] for one in called.data["not_checked"]]
        assert sum("in its own log" in what for what in said) == len(MEMBERS)

    def test_nothing_is_claimed_without_logs(self, tmp_path: Path) -> None:
        ledgers = TRUTH.write(tmp_path)
        shutil.rmtree(ledgers / "federation")
        shutil.rmtree(ledgers / "members" / VICTIM)
        called = audited(ledgers, "--report", write_report_json(report_of(TRUTH), tmp_path))
        assert called.status == 0, called.stdout
        said = [one["what"] for one in called.data["not_checked"]]
        assert f"what report.json claims about {VICTIM!r}" in said
        assert any("hash of the model" in what for what in said)
        assert any("federation's log shows what the members released" in what for what in said)
