"""How the federation's log is shown to members until a quorum has cosigned what something is to rest on.

Whoever lacks entries is sent them piece by piece, and whoever has something to say is heard before the log is shown once more.
No member makes that last as long as it likes: all of it has one deadline of the agreement, a member is heard with something
new once, and further is who says that it has more of the log than it ever said before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import TypeAlias

from hansa.agreement import Agreement
from hansa.errors import HansaError, MachineError
from hansa.protocol import PolicyCode, read_word_reply, witness_request
from hansa.wire import Message
from hansa_server.history import History

MAX_PIECES = 64  # of a log, to members that lack more than a message holds
IN_VAIN = 3  # exchanges that brought nobody further

Shown: TypeAlias = tuple[Mapping[str, Message], bool]  # replies, and whether anybody was asked for them now
Exchange: TypeAlias = Callable[[Mapping[str, Message], float, int], Shown]
_LOG = logging.getLogger("hansa.coordinator")


@dataclass(frozen=True)
class Showing:
    """Shows one run's members the log.

    Attributes:
        agreement: frozen.
        run: the run's name.
        history: the federation's log.
        clock: seconds, for how long members are waited for.
    """

    agreement: Agreement
    run: str
    history: History
    clock: Callable[[], float]

    def until(
        self, enough: Callable[[], bool], whom: Callable[[], Iterable[str]], exchange: Exchange
    ) -> None:
        """Show the log again while that may bring it to be cosigned.

        An exchange is given half of the time that is left: who is slow in one leaves some to the others in the next.

        Args:
            enough: whether it is.
            whom: who is asked next.
            exchange: requests, seconds and the number of the exchange, from 0, to replies. Those that a journal has kept are
                taken once more, and then members are asked anew: who was away then may be there now.

        Guarantees: less than one deadline passes, whatever is answered. What a member says beyond the first time that it has
            something new waits until it is asked the next time, so that it leaves nothing uncovered here.

        Raises:
            MachineError: what was said cannot be logged, or the carrier failed.
        """
        ends, heard = self.clock() + self.agreement.terms.training.deadline_s, set[str]()
        pieces = in_vain = 0
        for turn in count():
            left = ends - self.clock()
            if enough() or pieces == MAX_PIECES or in_vain == IN_VAIN or left <= 0:
                return
            requests, reached = self.requests(whom()), self.history.reached
            if not requests:
                return
            replies, asked = exchange(requests, left / 2, turn)
            heard |= self.take(requests, replies, heard)
            pieces += asked
            in_vain += asked and self.history.reached <= reached

    def requests(self, names: Iterable[str]) -> dict[str, Message]:
        """What shows members the log and asks for their cosignatures."""
        return {name: witness_request(self.agreement, self.run, self.history.news(name)) for name in names}

    def take(
        self, requests: Mapping[str, Message], replies: Mapping[str, Message], heard: Collection[str] = ()
    ) -> set[str]:
        """Take members' words.

        Args:
            requests: that they answer: to witness the log, or to close a run.
            replies: their answers.
            heard: members of whom nothing new is taken any more.

        Returns:
            Members that have said something new, or something that could not be taken.

        Raises:
            MachineError: it cannot be logged, or a reply that was kept cannot be read.
        """
        new = set[str]()
        with self.history.gathering():
            for name, request in requests.items():
                try:
                    said = read_word_reply(request, replies[name]) if name in replies else PolicyCode.ABSENT
                    if not isinstance(said, PolicyCode) and self.history.take(
                        name, said, new=name not in heard
                    ):
                        new.add(name)
                except MachineError:
                    raise  # no word of the member's
                except HansaError as error:
                    new.add(name)
                    _LOG.warning("%(member)s: %(error)s", {"member": name, "error": error})
        return new
