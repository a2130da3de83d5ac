"""A process that goes once the one that started it has gone, whatever it is doing just then.

The coordinator starts the SuperLink, that its SuperExec, and that the process of a run; each follows the one before, so that none
outlives a coordinator that was killed. Flower has a run's process raise a signal in itself, which its main thread does not
notice while it waits for threads that ask a SuperLink that is gone, again and again.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

PARENT = "HANSA_COORDINATOR_PID"  # of the process that starts the SuperLink
_FLOWERS = "--parent-pid"  # the same, in the arguments of processes that Flower starts
_WATCH_S = 0.2


def started_by() -> int:
    """The id of the process that started this one, as that one has said; it may be gone already."""
    if _FLOWERS in sys.argv[:-1]:
        return int(sys.argv[sys.argv.index(_FLOWERS) + 1])
    return int(os.environ.get(PARENT) or os.getppid())


def follow(parent: int, *, goes_within_s: float = 0.0) -> None:
    """Watch the parent from a thread of its own, and end this process once it is gone.

    Args:
        parent: its id.
        goes_within_s: how long this process may take to end by SIGTERM; with 0 it is ended at once, as a kill would.
    """
    threading.Thread(target=_follow, args=(parent, goes_within_s), daemon=True).start()


def _follow(parent: int, goes_within_s: float) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_S)
    if goes_within_s:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(goes_within_s)
    os._exit(1)
