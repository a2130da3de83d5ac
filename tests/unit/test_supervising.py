"""A SuperLink that is killed while it starts is started again; one that has never been there is a mistake that is told."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from hansa.errors import CoordinatorError, EngineError
from hansa_server import supervising
from hansa_server.flower_app.superlink import REPLY_BYTES
from hansa_server.home import FILE, CoordinatorFile, CoordinatorHome, coordinator_toml, read_home
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


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "_require_free", lambda _: None)
    monkeypatch.setattr(supervising, "_AGAIN_S", 0.0)
    monkeypatch.setattr(supervising, "links_of", lambda _: [])
    control = SimpleNamespace(admit=lambda _: None)
    monkeypatch.setattr(supervising, "control_of", lambda _: nullcontext(control))


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
