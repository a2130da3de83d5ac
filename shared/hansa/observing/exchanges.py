"""What a request is about, for those who watch: its kind, and the round and phase of the secure sum that it carries.

Read without believing it: a request that says nonsense is about nothing in particular.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hansa.errors import HansaError
from hansa.identity import Statement
from hansa.wire import Message

KINDS = frozenset({"sum", "witness", "close", "hello"})
# what the coordinator sends, and what the phase is called in which it does
PHASES: Mapping[str, str] = {
    "secagg.keys-request": "keys",
    "secagg.shares-request": "shares",
    "secagg.delivery": "delivery",
    "secagg.manifest": "masked",
    "secagg.survivors": "confirm",
    "secagg.unmask-request": "unmask",
}
_ORDER = tuple(PHASES.values())


@dataclass(frozen=True)
class About:
    """What a request is about.

    Attributes:
        kind: of the request; ``other`` for a kind that nobody serves.
        phase: of the secure sum; the kind where there is none. One of a fixed list.
        round: the secure sum's, the furthest phase's first; `None` where none is said.
    """

    kind: str
    phase: str
    round: int | None


def about_request(request: Message) -> About:
    """What a request is about; see `About`."""
    kind = request.kind if request.kind in KINDS else "other"
    bundle = request.body.get("bundle")
    parts = bundle.get("parts") if isinstance(bundle, Mapping) else None
    found = (
        [_about_part(part) for part in parts if isinstance(part, Mapping)] if isinstance(parts, list) else []
    )
    # two rounds may share an exchange: the one that is being summed, and the next one's preparation
    named = sorted((phase for phase in found if phase is not None), key=lambda one: -_ORDER.index(one[0]))
    if kind != "sum" or not named:
        return About(kind, kind, None)
    return About(kind, named[0][0], named[0][1])


def _about_part(part: Mapping[str, object]) -> tuple[str, int | None] | None:
    phase, body = PHASES.get(str(part.get("kind"))), part.get("body")
    if phase is None:
        return None
    return phase, _round(body) if isinstance(body, Mapping) else None


def _round(body: Mapping[str, object]) -> int | None:
    """The round in the statement that a part carries."""
    line = body.get("signed")
    if not isinstance(line, str):
        return None
    try:
        said = Statement.parse(line).value.get("round")
    except HansaError:
        return None
    return said if isinstance(said, int) and not isinstance(said, bool) and said >= 0 else None
