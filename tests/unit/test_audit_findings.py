"""Findings: which failures are told, and how they are said."""

from __future__ import annotations

import json
import math

from hansa.audit.findings import (
    CHECKPOINT,
    FEDERATION,
    RECORDS,
    REPORT,
    Failure,
    Findings,
    LogSeen,
    Notebook,
    Place,
    Spent,
    log_name,
)
from hansa.audit.text import render_text


def spent(run: str = "", epsilon: float = 1.23456, limit: float | None = 3.0) -> Spent:
    return Spent("alpha", "f" * 32, run, "everyone", epsilon, 1e-5, limit, 20)


def found(*failures: Failure) -> Findings:
    notebook = Notebook()
    for failure in failures:
        notebook.failed(failure)
    return notebook.findings("aaaa-bbbb")


class TestWhichAreTold:
    def test_the_first_entry_of_each_copy_and_its_first_checkpoint(self) -> None:
        findings = found(
            Failure(FEDERATION, None, CHECKPOINT, "first note", "a"),
            Failure(FEDERATION, None, CHECKPOINT, "second note", "a"),
            Failure(FEDERATION, 9, "release", "later", "a"),
            Failure(FEDERATION, 4, "release", "first", "a"),
            Failure(FEDERATION, 7, "release", "in a copy", "b"),
            Failure(log_name("alpha"), None, "", "somewhere", "c"),
            Failure(log_name("alpha"), 2, "budget", "there", "c"),
        )
        assert [failure.what for failure in findings.failures] == [
            "first",
            "in a copy",
            "there",
            "first note",
        ]
        assert not findings.verified

    def test_none_is_verified_and_what_was_not_checked_is_told_once(self) -> None:
        notebook = Notebook()
        notebook.not_checked("x", "y")
        notebook.not_checked("x", "y")
        notebook.passed("z", 3)
        notebook.passed("z")
        findings = notebook.findings("k")
        assert findings.verified
        assert len(findings.not_checked) == 1
        assert findings.passed == {"z": 4}


class TestWords:
    def test_where(self) -> None:
        assert Failure(FEDERATION, 3, "release", "").where == "federation, entry 3 (release)"
        assert Failure(FEDERATION, 3, "", "").where == "federation, entry 3"
        assert Failure(FEDERATION, None, CHECKPOINT, "").where == "federation, checkpoint"
        assert Failure(RECORDS, 2, "record", "").where == "rounds.jsonl, line 2 (record)"
        assert Failure(REPORT, None, "claim", "").where == "report.json, claim"
        assert Failure("/a/b", None, "", "").where == "/a/b"

    def test_a_verdict_with_everything(self) -> None:
        notebook = Notebook()
        notebook.failed(
            Failure(FEDERATION, 3, "release", "is false", "/copies/one", Place(log_name("alpha"), 7))
        )
        notebook.failed(Failure(REPORT, None, "claim", "is lower"))
        notebook.remark(FEDERATION, 5, "the clock went back")
        notebook.remark("members/alpha", None, "two budgets")
        notebook.not_checked("the sums", "no vectors")
        notebook.passed("signatures", 12)
        notebook.passed("none at all", 0)
        notebook.logs.append(LogSeen(FEDERATION, "/copies/one", 9, 8, ("alpha", "beta")))
        notebook.spent += [spent("r"), spent()]
        text = render_text(notebook.findings("aaaa-bbbb"))
        assert text.splitlines()[:2] == [
            "NOT VERIFIED. 2 things are wrong.",
            "The first: federation, entry 3 (release): is false",
        ]
        for line in (
            "fingerprint aaaa-bbbb.",
            "    compare with members/alpha, entry 7",
            "    in the copy /copies/one",
            "  - report.json, claim: is lower",
            "  alpha, dataset ffffffff, all runs: ε = 1.235 of 3 allowed at δ = 1e-05 against everyone",
            "  12  signatures",
            "  - the sums: no vectors",
            "  - federation, entry 5: the clock went back",
            "  - members/alpha: two budgets",
            "  federation: 9 entries, 8 under its checkpoint, cosigned by alpha, beta (/copies/one)",
        ):
            assert line in text
        assert "run r" not in text  # of one run, the line about all runs says the same
        assert "none at all" not in text

    def test_several_runs_are_told_one_by_one(self) -> None:
        notebook = Notebook(spent=[spent("r"), spent("s", math.inf, None), spent()])
        text = render_text(notebook.findings("k"))
        assert "run r: ε = 1.235" in text
        assert "run s: ε = without a bound at δ" in text
        assert text.startswith("VERIFIED.")

    def test_one_thing_that_is_wrong(self) -> None:
        assert render_text(found(Failure(REPORT, None, "claim", "x"))).startswith(
            "NOT VERIFIED. 1 thing is wrong."
        )

    def test_as_json_nothing_is_infinite(self) -> None:
        notebook = Notebook(spent=[spent(epsilon=math.inf)])
        notebook.failed(Failure(FEDERATION, 3, "release", "is false", "", Place("members/alpha", 7)))
        tree = json.loads(json.dumps(notebook.findings("k").as_dict(), allow_nan=False))
        assert tree["spent"][0]["epsilon"] is None
        assert tree["failures"][0]["beside"] == {"log": "members/alpha", "entry": 7}
        assert tree["verified"] is False
