"""The member's own rules: what they say about agreements, and that a request meets them before anything else."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from hansa.errors import WireError
from hansa.protocol import PolicyCode
from hansa.wire import Message
from hansa_client.desk import Desk
from hansa_client.policy import Policy
from support.leagues import terms_of


class Node:
    def __init__(self) -> None:
        self.asked = 0

    def handle(self, request: Message) -> Message:
        self.asked += 1
        return Message("answered", request.body)


def request(agreement: str = "mine") -> Message:
    return Message("sum", {"agreement_id": agreement, "run": "r", "round": 1})


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 11, 29, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize(
    ("hours", "hour", "minute", "open_then"),
    [
        (None, 3, 0, True),
        ("08:00-18:00", 8, 0, True),
        ("08:00-18:00", 17, 59, True),
        ("08:00-18:00", 18, 0, False),
        ("08:00-18:00", 7, 59, False),
        ("22:00-06:00", 23, 0, True),
        ("22:00-06:00", 5, 59, True),
        ("22:00-06:00", 6, 0, False),
        ("22:00-06:00", 12, 0, False),
    ],
)
def test_hours_are_half_open_and_may_pass_midnight(hours, hour, minute, open_then):
    assert Policy(hours=hours).open_at(at(hour, minute)) is open_then


@pytest.mark.parametrize("hours", ["8:00-18:00", "24:00-06:00", "08:00–18:00", "08:00", ""])
def test_hours_that_are_none_are_refused(hours):
    with pytest.raises(ValidationError):
        Policy(hours=hours)


@pytest.mark.parametrize(
    ("policy", "changes", "places"),
    [
        (Policy(), {}, []),
        (Policy(smallest_league=4), {}, ["policy.smallest_league"]),
        (Policy(mechanisms=("distributed",)), {}, ["policy.mechanisms"]),
        (Policy(), {"privacy": {"mechanism": "none", "epsilon": None, "delta": None}}, ["policy.mechanisms"]),
        (Policy(), {"baseline": "local-only"}, ["baseline"]),
        (
            Policy(mechanisms=("none",), smallest_league=9),
            {},
            ["policy.mechanisms", "policy.smallest_league"],
        ),
    ],
)
def test_everything_that_keeps_a_member_out_is_told(policy, changes, places):
    assert [problem.place for problem in policy.problems(terms_of(**changes))] == places


@pytest.mark.parametrize(
    ("agreement", "hour", "paused", "code"),
    [
        ("other", 9, False, PolicyCode.AGREEMENT),
        ("mine", 20, False, PolicyCode.ABSENT),
        ("mine", 9, True, PolicyCode.ABSENT),
        ("mine", 9, False, None),
    ],
)
def test_a_request_meets_the_members_rules_first(agreement, hour, paused, code):
    node = Node()
    desk = Desk({"mine": node}, Policy(hours="08:00-18:00"), lambda: at(hour), lambda: paused)
    reply = desk.handle(request(agreement))
    assert (reply.body.get("code"), node.asked) == (code, int(code is None))


def test_a_request_that_says_nothing_cannot_be_refused(caplog):
    desk = Desk({}, Policy(), lambda: at(9))
    with pytest.raises(WireError):
        desk.handle(Message("sum", {}))
    for _ in range(3):
        desk.handle(request())
    assert caplog.text.count("was not accepted here") == 1  # whoever asks on and on fills no log
