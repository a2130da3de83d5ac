"""What is tried until it succeeds: after each failure there is a pause, and what stood in the way is told once."""

from __future__ import annotations

import time
from collections.abc import Callable

from hansa.errors import HansaError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 60.0


class Attempts:
    """See above; of any number of things.

    Args:
        told: called with a line when something fails for another reason than the last time.
        clock: seconds, as `time.monotonic`.
    """

    def __init__(self, told: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._told, self._clock = told, clock
        self._failed: dict[str, tuple[str, float, float]] = {}  # by thing: the line, the pause, when it ends

    def made(self, thing: str, attempt: Callable[[], None]) -> bool:
        """Try a thing, unless it failed a moment ago.

        Args:
            thing: that fails, as a line begins: ``run 7 cannot go on``.
            attempt: raises `HansaError` where it fails.

        Returns:
            Whether it succeeded now.
        """
        line, pause, until = self._failed.get(thing, ("", 0.0, 0.0))
        if pause and self._clock() < until:
            return False
        try:
            attempt()
        except HansaError as error:
            if line != error.cause:
                self._told(f"{thing}: {error.cause}; trying again")
            pause = min(max(2 * pause, FIRST_PAUSE_S), LONGEST_PAUSE_S)
            self._failed[thing] = error.cause, pause, self._clock() + pause
            return False
        self.forget(thing)
        return True

    def forget(self, thing: str) -> None:
        """Let the next failure of a thing be the first."""
        self._failed.pop(thing, None)
