"""A member's process is killed while a federation runs: the run ends all the same, and says who was missing."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from hansa.report import read_report
from support.cli import finished, hansa_process, league_on_disk
from support.durable import entries_in
from support.leagues import TERMS

ROUNDS, BEFORE = 60, 5  # of a run, and entries in every ledger before a member is killed
LONG = TERMS.replace("rounds = 4", f"rounds = {ROUNDS}").replace("steps = 8", f"steps = {ROUNDS}")
FOURTH = '[[members]]\nname = "d"\nunits = 30\n\n[data]'
NAMES, PROCESSES = "abcd", 3  # the first and the last share one; three are enough for a sum


def workers_of(pid: int) -> list[int]:
    """The worker processes of a simulation, by process id."""
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    return [c for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]


def test_a_member_killed_with_signal_9_is_absent_and_the_run_goes_on(tmp_path: Path) -> None:
    agreement = league_on_disk(tmp_path, terms=LONG.replace("[data]", FOURTH, 1))
    files = agreement.read_text().replace('c = "c.csv" }', 'c = "c.csv", d = "a.csv" }')
    agreement.write_text(files)
    home = tmp_path / "home"
    process = hansa_process(
        "simulate", agreement, "--data", tmp_path, "--out", tmp_path / "o", "--processes", str(PROCESSES),
        "--members-home", home, "--format", "json",
    )  # fmt: skip
    until = time.monotonic() + 1000
    while (
        min(entries_in(home, name) for name in NAMES) < BEFORE
        and time.monotonic() < until
        and process.poll() is None
    ):
        time.sleep(0.02)
    _, second, _ = workers_of(process.pid)
    os.kill(second, signal.SIGKILL)
    called = finished(process)
    assert called.status == 0, called.stderr
    assert called.stderr.count("ended; it is absent from now on") == 1
    assert "Traceback" not in called.stderr
    report = read_report(tmp_path / "o" / "report.json")
    assert (report.status, report.rounds) == ("done", ROUNDS)
    missing = {name for entry in report.round_log for name in entry.absent}
    assert len(missing) == 1
    (victim,) = missing
    present = {member.name: member.rounds_present for member in report.members}
    assert 0 < present.pop(victim) < ROUNDS
    assert set(present.values()) == {ROUNDS}
    # nobody closed its reservation, so all of it stays spent
    assert {member.noisy_steps for member in report.members} == {ROUNDS}
    assert report.round_log[-1].secure_sum is not None
    assert set(report.round_log[-1].secure_sum.dropped) == {victim}
