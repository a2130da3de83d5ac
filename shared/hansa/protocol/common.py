"""What every request and reply of a run has in common: who asks about what, refusals, hello and close."""

from __future__ import annotations

from enum import StrEnum

from hansa.agreement import Agreement
from hansa.errors import WireError
from hansa.wire import Message

REFERENCE = ("agreement_id", "run", "round")


class PolicyCode(StrEnum):
    """Why a member does not take part. A code is all that the wire knows; none depends on data."""

    ABSENT = "absent"
    AGREEMENT = "agreement-unknown"
    ROUND = "round-not-new"
    MODEL = "model-mismatch"
    BUDGET = "budget-spent"
    MESSAGE = "message-malformed"
    GATE = "gate-not-recomputed"


def reference(request: Message) -> dict[str, str | int]:
    """What a reply repeats of its request."""
    return {
        "agreement_id": request.text("agreement_id"),
        "run": request.text("run"),
        "round": request.integer("round"),
    }


def refusal(request: Message, code: PolicyCode) -> Message:
    """A member's answer when it does not take part: a code, and no word more."""
    return Message("refusal", {**reference(request), "code": code.value})


def close_request(agreement: Agreement, run: str) -> Message:
    """Tell members that a run is over, so that reserved and unused budget is free again."""
    return Message("close", {"agreement_id": agreement.agreement_id, "run": run, "round": 0})


def hello_request(agreement: Agreement, run: str) -> Message:
    """Ask who a node is, before the first round."""
    return Message("hello", {"agreement_id": agreement.agreement_id, "run": run, "round": 0})


def hello_reply(request: Message, member: str) -> Message:
    """A member's answer to `hello_request`: its name in the agreement."""
    return Message("member", {**reference(request), "member": member})


def read_hello(request: Message, reply: Message) -> str:
    """The member's name; `WireError` if the reply is something else."""
    if reply.kind != "member" or {key: reply.body.get(key) for key in REFERENCE} != reference(request):
        raise WireError("a reply does not say who the node is")
    return reply.text("member")


def read_refusal(request: Message, reply: Message) -> PolicyCode | None:
    """Why a member does not take part; `None` if it does.

    Raises:
        WireError: the reply answers another request, or names an unknown code.
    """
    if {key: reply.body.get(key) for key in REFERENCE} != reference(request):
        raise WireError("a reply answers another request")
    if reply.kind != "refusal":
        return None
    try:
        return PolicyCode(reply.text("code"))
    except ValueError:
        raise WireError("a refusal names a code that this release does not know") from None
