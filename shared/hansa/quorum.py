"""How many members a secure sum needs: the one number that agreements, budgets and the protocol share."""

from __future__ import annotations

MAX_MEMBERS = 100  # the secure sum is built and tested for leagues up to this size


def threshold(members: int) -> int:
    """Quorum t = floor(2n/3) + 1: with at most n - t colluders, any two sets of t members share an honest one."""
    return 2 * members // 3 + 1


def smallest_sum(members: int, min_members: int) -> int:
    """No sum is over fewer members: max(t, min_members)."""
    return max(threshold(members), min_members)


def members_for(honest: int, colluding: int, min_members: int) -> int:
    """The smallest league whose every sum keeps `honest` members beside `colluding` others."""
    members = max(honest + colluding, min_members)
    while smallest_sum(members, min_members) - colluding < honest:
        members += 1
    return members
