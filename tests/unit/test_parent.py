"""No process of a coordinator's outlives the one that started it, whoever is killed first and whatever it is doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from hansa_server.parent import PARENT

DEAF = """
import threading
from hansa_server.parent import follow, started_by
follow(started_by())
lock = threading.Lock()
lock.acquire()
print("waiting", flush=True)
lock.acquire()  # as a thread's result: no signal that another thread raises is noticed here
"""
SOUND = """
import signal, sys, time
from hansa_server.parent import follow, started_by
signal.signal(signal.SIGTERM, lambda *_: (print("ended in order", flush=True), sys.exit(0)))
follow(started_by(), goes_within_s=60.0)
print("waiting", flush=True)
while True:
    time.sleep(0.05)
"""
PARENT_OF = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1], "--parent-pid", str(os.getpid())])
time.sleep(600)
"""


@contextmanager
def process(program: str, arguments: Sequence[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
    made = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        yield made
    finally:
        made.kill()
        made.communicate()


@pytest.mark.parametrize(("program", "last"), [(DEAF, ""), (SOUND, "ended in order\n")])
def test_it_goes_when_its_parent_is_killed(program: str, last: str) -> None:
    with process(PARENT_OF, [program]) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "waiting\n"
        parent.send_signal(signal.SIGKILL)
        said, _ = parent.communicate(timeout=120)  # up to where nobody holds the other end
        assert said == last


def test_it_goes_where_its_parent_was_killed_before_it_could_look() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with process(DEAF, [], **{PARENT: str(gone.pid)}) as one:
        assert one.wait(120) == 1
    with process(DEAF, ["--parent-pid", str(gone.pid)], **{PARENT: str(os.getpid())}) as one:
        assert one.wait(120) == 1
