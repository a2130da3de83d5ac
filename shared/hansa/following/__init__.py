"""Following a log from afar: what comes is checked before it is kept, and what was seen is never forgotten.

`LogMirror` is an auditor's copy of the federation's log, `follow` keeps it up to date from any `Source`, and
`hansa.following.remote` is the source that asks a `hansa.v1.LedgerService`; it alone needs grpcio.
"""

from hansa.following.errors import LedgerServiceError, MirrorError
from hansa.following.follower import Patience, Source, follow
from hansa.following.mirror import LogMirror, News, Standing

__all__ = [
    "LedgerServiceError",
    "LogMirror",
    "MirrorError",
    "News",
    "Patience",
    "Source",
    "Standing",
    "follow",
]
