"""What a frozen agreement may say about keys, as far as it is seen without cryptography.

Keys are pinned for all parties or for none. An agreement without keys is a simulation's: its parties make identities
that live as long as the run. Whether a key is a point of the curve is checked where it is used
(`hansa.agreement.roster`), so that reading an agreement stays fast.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, TypeAlias

from pydantic import StringConstraints

from hansa.errors import Problem

PublicKey: TypeAlias = Annotated[str, StringConstraints(pattern=r"^p256:0[23][0-9a-f]{64}$")]
COORDINATOR = "coordinator"  # the reserved name, as in hansa.identity, which brings cryptography


def key_problems(
    members: Sequence[str],
    member_keys: Mapping[str, str],
    coordinator_key: str | None,
    auditor_keys: Mapping[str, str],
) -> Iterator[Problem]:
    """Everything that is wrong with the pinned keys of an agreement.

    Args:
        members: names, in the agreement's order.
        member_keys, coordinator_key, auditor_keys: as in `[frozen]`.
    """
    if not member_keys and coordinator_key is None and not auditor_keys:
        return
    rule = "keys are pinned for every party or for none"
    for name in members:
        if name not in member_keys:
            yield Problem(f"frozen.member_keys.{name}", "is missing", rule)
    for name in member_keys:
        if name not in members:
            yield Problem(f"frozen.member_keys.{name}", "is no member of the agreement")
    if coordinator_key is None:
        yield Problem("frozen.coordinator_key", "is missing", rule)
    for name in auditor_keys:
        if name in members or name == COORDINATOR:
            yield Problem(f"frozen.auditor_keys.{name}", "is the name of another party")
    counted = Counter([*member_keys.values(), *auditor_keys.values(), *filter(None, [coordinator_key])])
    if counted and max(counted.values()) > 1:
        yield Problem("frozen", "two parties have the same key", "each party has its own")
