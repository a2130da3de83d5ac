"""Flower's SuperExec, which starts the process of a run: `python -m hansa_server.flower_app.superexec ARGUMENTS OF flower-superexec`.

It goes at once when its SuperLink goes, so that none is left that takes a run from the next one; and a SuperLink
whose SuperExec has gone ends as well, so that the coordinator starts both again. This file uses what Flower keeps to itself;
`tests/e2e/test_league_killed.py` runs it.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from typing import Any

from flwr.superlink.cli.flower_superlink import SuperLinkLifespan, _get_superexec_command

from hansa_server.parent import follow, started_by

_LOG = logging.getLogger("flwr")
_WHERE_IT_LOOKS: Any = sys.modules[SuperLinkLifespan.__module__]


class Lifespan(SuperLinkLifespan):
    """What a SuperLink starts and ends with."""

    _ending = False

    def shutdown(self) -> None:
        """See `SuperLinkLifespan.shutdown`."""
        self._ending = True
        super().shutdown()

    def _start_superexec_if_needed(self) -> None:
        _WHERE_IT_LOOKS._get_superexec_command = _command  # noqa: SLF001  # see above
        super()._start_superexec_if_needed()
        if self.superexec_process is not None:
            threading.Thread(target=self._watch, args=(self.superexec_process,), daemon=True).start()

    def _watch(self, superexec: subprocess.Popen[bytes]) -> None:
        status = superexec.wait()
        if not self._ending:
            _LOG.error("the SuperExec ended with status %d, and the SuperLink ends with it", status)
            os.kill(os.getpid(), signal.SIGTERM)


def _command(*args: Any, **named: Any) -> list[str]:
    return [sys.executable, "-m", __name__, *_get_superexec_command(*args, **named)[1:]]


def main() -> None:
    """Run until SIGTERM, or until the SuperLink is gone."""
    from flwr.supercore.cli.flower_superexec import flower_superexec

    follow(started_by())
    flower_superexec()


if __name__ == "__main__":
    sys.argv[0] = "flower-superexec"
    main()
