"""A SuperLink that is killed while it starts is started again, and one that answers nothing killed; what it does not take now, it is given later."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Event, Timer
from types import SimpleNamespace
from typing import Any, Self

import httpx
import pytest
from flwr.proto.control_pb2 import ListNodesRequest
from flwr.supercore.protobuf.client import ProtobufRequestContext

from hansa.errors import CoordinatorError, EngineError, LinkError
from hansa_server import pulse, supervising
from hansa_server.attempts import FIRST_PAUSE_S, LONGEST_PAUSE_S, Attempts
from hansa_server.flower_app.control import _Admitted
from hansa_server.flower_app.superlink import REPLY_BYTES
from hansa_server.home import FILE, CoordinatorFile, CoordinatorHome, coordinator_toml, read_home
from hansa_server.pulse import MISSES_IN_A_ROW, SILENT_S, Pulse
from hansa_server.runs import Runs
from hansa_server.supervising import Supervisor


def test_what_replies_may_take_follows_from_the_model_and_can_be_set(tmp_path: Path) -> None:
    home = CoordinatorHome(tmp_path, CoordinatorFile(listen="127.0.0.1:1"))
    assert home.reply_bytes == 2**28
    home.league.mkdir()
    with home.model_zero.open("wb") as file:
        file.truncate(2**30)  # of holes
    assert supervising.environment(home)[REPLY_BYTES] == str(home.reply_bytes) == str(2**31)
    file_text = coordinator_toml("127.0.0.1:1", "").replace(
        "# reply_bytes = 268435456", "reply_bytes = 300000000"
    )
    (tmp_path / FILE).write_text(file_text)
    assert read_home(tmp_path).reply_bytes == 300_000_000
    (tmp_path / FILE).write_text(file_text.replace("300000000", "3"))
    with pytest.raises(CoordinatorError) as refused:
        read_home(tmp_path)
    assert any("reply_bytes" in str(problem) for problem in refused.value.problems)


class Watched(Supervisor):
    """Without processes: each SuperLink comes or is killed as `story` says; the coordinator is stopped after it."""

    def __init__(self, folder: Path, story: str) -> None:
        self._home: Any = SimpleNamespace(state=folder, listen=None)
        self.story, self.said, self.stop = list(story), list[str](), Event()
        self._told = self.said.append
        self._attempts = Attempts(self._told)

    @contextmanager
    def _superlink(self) -> Iterator[Any]:
        yield SimpleNamespace(poll=lambda: -9, returncode=-9)

    def _services(self, _stack: Any) -> int:
        return 8443

    def _wait_for(self, _process: Any, _control: Any) -> None:
        came = self.story.pop(0) == "c"
        if not self.story:
            self.stop.set()
        if not came:
            raise EngineError("the SuperLink ended with status -9 before it was ready")

    def served(self) -> list[int]:
        ready: list[int] = []
        self.serve(self.stop, ready.append)
        return ready


class Connection:
    """To a SuperLink that answers, unless it is said to be down."""

    def __init__(self, down: Callable[[], bool] = lambda: False) -> None:
        self._down = down
        self.asked, self.ended = list[str](), list[str]()
        self.unfinished: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        pass

    def wait(self, _until: float) -> None:
        self._ask("wait")

    def admit(self, _keys: Any) -> None:
        self._ask("admit")

    def carrying(self, run: str) -> list[str]:
        self._ask(f"carrying {run}")
        return [one for one in self.unfinished if one not in self.ended]

    def stop(self, flower_run: str) -> None:
        self._ask(f"stop {flower_run}")
        self.ended.append(flower_run)

    def start(self, run: str) -> str:
        self._ask(f"start {run}")
        return str(len(self.asked))

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self._down():
            raise LinkError("the SuperLink cannot be reached: timed out")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "_require_free", lambda _: None)
    monkeypatch.setattr(supervising, "_AGAIN_S", 0.0)
    monkeypatch.setattr(supervising, "links_of", lambda _: [])
    monkeypatch.setattr(supervising, "control_of", lambda *_: Connection())


def test_one_that_is_killed_while_it_starts_again_is_started_again(tmp_path: Path) -> None:
    made = Watched(tmp_path, "ckkckc")
    assert made.served() == [8443]
    assert made.story == []
    assert sum("before it was ready; starting it again" in line for line in made.said) == 3


def test_one_that_never_comes_is_told_at_once(tmp_path: Path) -> None:
    made = Watched(tmp_path, "kc")
    with pytest.raises(EngineError, match="before it was ready"):
        made.served()
    assert made.story == ["c"]


def test_not_for_ever(tmp_path: Path) -> None:
    made = Watched(tmp_path, "c" + "k" * 20)
    with pytest.raises(EngineError, match="before it was ready"):
        made.served()
    assert len(made.story) == 20 - supervising._STARTS_AGAIN - 1


def test_a_full_disk_is_told_once_and_the_coordinator_goes_on(tmp_path: Path) -> None:
    made, runs = Watched(tmp_path, "c"), Runs(tmp_path / "runs")
    made._runs, made._seen, made._tried = runs, set(), {}
    control: Any = None
    run = runs.begin("a" * 64, 3)
    runs.tell(run, "running")
    made._resume(control)
    register = tmp_path / "runs" / "runs.sqlite"
    kept = register.read_bytes()
    register.write_bytes(b"no database" * 100)  # as far as SQLite can tell, a disk that fails
    for _ in range(3):
        made._resume(control)
    (line,) = made.said
    assert "the register of runs" in line
    assert "Make room" in line
    with pytest.raises(EngineError, match="cannot be used"):
        runs.tell(run, "running")
    register.write_bytes(kept)
    runs.tell(run, "done")
    made._resume(control)
    assert made.said == [line]


def test_a_register_that_takes_no_run_is_told(tmp_path: Path) -> None:
    runs = Runs(tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs")
    with pytest.raises(EngineError, match="cannot be used: No such file"):
        runs.begin("a" * 64, 3)


class Interrupted:
    """A register of one run whose process is gone, with a clock that goes when it is told to."""

    def __init__(self, folder: Path) -> None:
        self.now, self.down = 0.0, False
        self.made = Watched(folder, "c")
        self.made._runs, self.made._seen, self.made._tried = Runs(folder / "runs"), set(), {}
        self.made._attempts = Attempts(self.made._told, lambda: self.now)
        self.run = self.made._runs.begin("a" * 64, 3)
        self.made._runs.tell(self.run, "running")
        self.control: Any = Connection(lambda: self.down)
        with self.made._runs.held(self.run, 0.0):
            self.look()

    def look(self) -> None:
        self.made._resume(self.control)

    @property
    def started(self) -> int:
        return sum(asked.startswith("start") for asked in self.control.asked)


def test_a_run_that_a_busy_superlink_did_not_take_is_tried_again(tmp_path: Path) -> None:
    one = Interrupted(tmp_path)
    one.down = True
    for _ in range(100):  # as often as it looks in 50 s, during which no time goes by
        one.look()
    assert len(one.control.asked) == 1
    assert one.made.said == [
        f"run {one.run} cannot go on: the SuperLink cannot be reached: timed out; trying again"
    ]
    one.now += FIRST_PAUSE_S
    one.look()
    assert (len(one.control.asked), len(one.made.said)) == (2, 1)  # for the same reason
    one.down, one.now = False, one.now + LONGEST_PAUSE_S
    one.look()
    assert one.started == 1
    assert one.made.said[1:] == [f"run {one.run} was interrupted, and goes on"]


def test_a_start_whose_answer_was_lost_is_no_second_process_of_the_run(tmp_path: Path) -> None:
    """It waits at the SuperLink, and no row of the register knows it."""
    one = Interrupted(tmp_path)
    one.control.unfinished = ("5",)
    one.look()
    assert [asked.split()[0] for asked in one.control.asked] == ["carrying", "stop", "start"]
    assert one.control.ended == ["5"]


def test_a_run_that_ended_twice_at_the_same_place_is_left(tmp_path: Path) -> None:
    one = Interrupted(tmp_path)
    one.look()
    assert one.started == 1
    one.made._runs.tell(one.run, "running")  # its process came, and is gone again
    for _ in range(5):
        one.now += LONGEST_PAUSE_S
        one.look()
    assert one.started == 1


def test_a_journal_that_is_none_ends_no_coordinator(tmp_path: Path) -> None:
    one = Interrupted(tmp_path)
    (one.made._runs.folder(one.run) / "journal.sqlite").write_bytes(b"no database" * 100)
    one.look()
    (line,) = one.made.said
    assert "cannot go on: the journal in" in line
    assert one.started == 0


def test_nodes_that_cannot_be_admitted_after_a_restart_are_admitted_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Watched(tmp_path, "cc")
    refusals = iter([False, True, True, False])  # the first time all is well
    connection = Connection(lambda: next(refusals))
    now = iter(float(number) for number in range(0, 100_000, 100))
    made._attempts = Attempts(made._told, lambda: next(now))
    monkeypatch.setattr(supervising, "_LOOK_S", 0.0)
    monkeypatch.setattr(
        supervising, "control_of", lambda _, *patience: Connection() if patience else connection
    )
    monkeypatch.setattr(
        made, "_resume", lambda _: made.stop.set() if connection.asked.count("admit") == 4 else None
    )
    ended = iter([-9])
    monkeypatch.setattr(
        made,
        "_superlink",
        lambda: nullcontext(SimpleNamespace(poll=lambda: next(ended, None), returncode=-9)),
    )
    monkeypatch.setattr(made, "_wait_for", lambda *_: None)
    assert made.served() == [8443]
    assert connection.asked == ["admit"] * 4
    assert sum("cannot be admitted" in line for line in made.said) == 1


def test_a_superlink_that_lives_and_answers_nothing_is_killed_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = list[subprocess.Popen[bytes]]()

    class Real(Watched):
        """With a process in the place of each SuperLink."""

        @contextmanager
        def _superlink(self) -> Iterator[Any]:
            with subprocess.Popen(["sleep", "600"]) as process:
                started.append(process)
                try:
                    yield process
                finally:
                    process.kill()

        def _resume(self, _control: Any) -> None:
            if len(started) == 2:
                self.stop.set()

    monkeypatch.setattr(supervising, "_LOOK_S", 0.01)
    monkeypatch.setattr(pulse, "EVERY_S", 0.01)
    monkeypatch.setattr(pulse, "SILENT_S", 0.0)
    monkeypatch.setattr(supervising, "control_of", lambda *_: Connection(lambda: stands(started[-1].pid)))
    made = Real(tmp_path, "cc-")  # the last is never asked for: the coordinator is stopped by hand
    guard = Timer(120.0, made.stop.set)  # so that one that is not killed fails, and does not hang
    guard.daemon = True
    guard.start()
    made.serve(made.stop, lambda _: started[0].send_signal(signal.SIGSTOP))
    guard.cancel()
    assert [process.returncode for process in started] == [-signal.SIGKILL, -signal.SIGKILL]
    assert "answered nothing" in made.said[0]
    assert made.said[1] == "the SuperLink ended with status -9; starting it again"
    assert "there again" in made.said[2]


def stands(pid: int) -> bool:
    """Whether a process was stopped, and is there."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return told.rpartition(")")[2].split()[0] == "T"


class TestPulse:
    def made(self, answers: str) -> tuple[Pulse, list[float]]:
        """One that is asked every 100 s, and gets answers (a), refusals (r) or none (n)."""
        now, said = [0.0], iter(answers)

        def wait(_until: float) -> None:
            now[0] += 100.0
            answer = next(said)
            if answer == "n":
                raise LinkError("timed out")
            if answer == "r":
                raise EngineError("the SuperLink refuses with status 500: disk full")

        asked: Any = SimpleNamespace(wait=wait, close=lambda: None)
        made = Pulse(asked, lambda: now[0])
        for _ in answers:
            made.ask()
        return made, now

    @pytest.mark.parametrize("answers", ["nnnn", "nnnnannnn", "nnnnnnnna", "nnnnrnnnn", "rrrrrrrrrr"])
    def test_one_that_answers_now_and_then_is_there(self, answers: str) -> None:
        assert not self.made(answers)[0].lost

    def test_one_that_answers_nothing_often_and_for_long_is_lost(self) -> None:
        made, _ = self.made("ann" + "n" * (MISSES_IN_A_ROW - 2))
        assert made.lost
        assert made.silent_s == 100.0 * MISSES_IN_A_ROW

    def test_often_is_not_enough(self) -> None:
        """A port at which nobody listens for a moment says so at once."""
        made, now = self.made("n" * 50)
        now[0] = SILENT_S - 1
        assert not made.lost
        now[0] = SILENT_S
        assert made.lost


def test_how_long_an_answer_is_waited_for_is_said_with_each_question() -> None:
    asked = httpx.Client(timeout=30.0).build_request("POST", "https://127.0.0.1/")
    context = ProtobufRequestContext("/flwr.proto.Control/ListNodes", ListNodesRequest(), asked)
    _Admitted(b"secret", 60.0).intercept(context, lambda _: httpx.Response(200))
    assert set(asked.extensions["timeout"].values()) == {60.0}
