"""Peers run in processes of their own; what goes wrong there is told with the end of what they said."""

from __future__ import annotations

import textwrap
import time
from pathlib import Path

import pytest

from hansa.errors import EngineError
from hansa_simulations.bench.peers import run_peer

HEAD = "import json, os, pathlib, sys\nout = pathlib.Path(sys.argv[sys.argv.index('--out') + 1])\n"


@pytest.fixture
def peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module `stand_in_peer` that a test fills."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "stand_in_peer.py"


def write(peer: Path, body: str) -> None:
    peer.write_text(HEAD + textwrap.dedent(body))


def test_a_peer_gets_its_arguments_and_says_what_it_measured(peer: Path) -> None:
    write(peer, "print('noise')\nout.write_text(json.dumps({'arguments': sys.argv[1:-2]}))")
    assert run_peer("stand_in_peer", ["--n", "3"], timeout_s=60) == {"arguments": ["--n", "3"]}


def test_a_peer_reports_home_to_nobody_and_reads_no_settings_of_the_user(peer: Path) -> None:
    names = ("FLWR_TELEMETRY_ENABLED", "RAY_USAGE_STATS_ENABLED", "FLWR_HOME", "HOME")
    write(peer, f"out.write_text(json.dumps({{n: os.environ.get(n, '') for n in {names!r}}}))")
    seen = run_peer("stand_in_peer", [], timeout_s=60)
    assert seen["FLWR_TELEMETRY_ENABLED"] == seen["RAY_USAGE_STATS_ENABLED"] == "0"
    assert seen["FLWR_HOME"] != seen["HOME"]
    assert not Path(seen["FLWR_HOME"]).exists()  # it was a folder of this one run


def test_a_peer_that_fails_is_quoted(peer: Path) -> None:
    write(peer, "print('first I did this')\nraise ValueError('then that went wrong')")
    with pytest.raises(EngineError, match="status 1") as failure:
        run_peer("stand_in_peer", [], timeout_s=60)
    assert "first I did this" in failure.value.cause
    assert "then that went wrong" in failure.value.cause


def test_only_the_end_of_a_long_log_is_quoted(peer: Path) -> None:
    write(peer, "print(*(f'line {i}' for i in range(1000)), sep='\\n')\nsys.exit(3)")
    with pytest.raises(EngineError, match="status 3") as failure:
        run_peer("stand_in_peer", [], timeout_s=60)
    assert "line 999" in failure.value.cause
    assert len(failure.value.cause.splitlines()) < 20


def test_a_peer_that_measured_nothing_is_a_failure(peer: Path) -> None:
    write(peer, "print('done, but where?')")
    with pytest.raises(EngineError, match="status 0") as failure:
        run_peer("stand_in_peer", [], timeout_s=60)
    assert "but where?" in failure.value.cause


@pytest.mark.parametrize("content", ["[1, 2]", "{", ""])
def test_a_peer_that_wrote_no_json_object_is_a_failure(peer: Path, content: str) -> None:
    write(peer, f"out.write_text({content!r})")
    with pytest.raises(EngineError, match="wrote no JSON object"):
        run_peer("stand_in_peer", [], timeout_s=60)


def test_a_peer_that_hangs_is_ended(peer: Path) -> None:
    write(peer, "print('waiting', flush=True)\nimport time\ntime.sleep(600)")
    with pytest.raises(EngineError, match="took longer than 6 s") as failure:
        run_peer("stand_in_peer", [], timeout_s=6)
    assert "waiting" in failure.value.cause


def is_running(process: int) -> bool:
    """Whether a process exists and is more than an entry that nobody has collected yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see a process")
def test_what_a_hanging_peer_has_started_ends_with_it(peer: Path) -> None:
    note = peer.with_name("child.txt")
    write(
        peer,
        f"""
        import subprocess, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        pathlib.Path({str(note)!r}).write_text(str(child.pid))
        time.sleep(600)
        """,
    )
    with pytest.raises(EngineError, match="took longer"):
        run_peer("stand_in_peer", [], timeout_s=6)
    child = int(note.read_text())
    until = time.monotonic() + 60
    while is_running(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_running(child)
