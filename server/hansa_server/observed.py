"""The league as it is watched: what each exchange cost, and who answered in it.

`ObservedMembers` stands between a run and its carrier. What it counts is public: sizes, times, who answered; it goes to the
run's log and to the register of runs, where `hansa coordinator status --watch` and the metrics read it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

from hansa.observing import about, about_request
from hansa.wire import Message
from hansa_server.members import Members
from hansa_server.runs import Attendance, Exchanged, Runs

Here: TypeAlias = Callable[[], set[str]]
_LOG = logging.getLogger("hansa.coordinator")


class ObservedMembers:
    """See above; a `Members` around another.

    Args:
        members: the carrier.
        runs: the register.
        run: a name in it.
        agreement_id: that it runs under.
        here: the members that have a place at the carrier now.
        clock: seconds.
    """

    def __init__(
        self,
        members: Members,
        runs: Runs,
        run: str,
        agreement_id: str,
        here: Here,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._members, self._runs, self._run, self._here, self._clock = members, runs, run, here, clock
        self._agreement = agreement_id[:16]

    def exchange(self, requests: Mapping[str, Message], deadline_s: float) -> Mapping[str, Message]:
        """See `Members.exchange`."""
        asked = [about_request(request) for request in requests.values()]
        phase = asked[0].phase if asked else "nobody"
        number = max((one.round for one in asked if one.round is not None), default=None)
        self._runs.in_phase(self._run, phase)
        started = self._clock()
        with about(agreement=self._agreement, run=self._run, round=number, phase=phase):
            replies = self._members.exchange(requests, deadline_s)
            seconds = self._clock() - started
            attendance = self._attendance(requests, replies)
            cost = Exchanged(
                phase,
                seconds,
                sum(request.payload_bytes for request in requests.values()),
                sum(reply.payload_bytes for reply in replies.values()),
            )
            counted = list(attendance.values())
            _LOG.info(
                "%(members_present)d of %(members)d members answered after %(seconds).3f s",
                {
                    "members": len(requests),
                    "members_present": counted.count("present"),
                    "members_late": counted.count("late"),
                    "members_absent": counted.count("absent"),
                    "seconds": seconds,
                    "bytes_out": cost.sent_bytes,
                    "bytes_in": cost.received_bytes,
                },
            )
        self._runs.exchanged(self._run, cost, attendance)
        return replies

    def _attendance(self, requests: Mapping[str, Message], replies: Mapping[str, Message]) -> Attendance:
        here = self._here()

        def state(name: str) -> Literal["present", "late", "absent"]:
            if name in replies:
                return "present"
            return "late" if name in here else "absent"

        return {name: state(name) for name in requests}
