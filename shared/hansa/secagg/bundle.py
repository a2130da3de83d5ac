"""Several messages in one exchange, so that one round's summing and the next one's preparing travel together.

A refusal takes the place of the reply that it refuses: it carries the kind that was asked and the error's code,
nothing else. The text of the error stays with the member, and so does a code that could depend on data: then there
is no reply at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hansa.canonical import Json
from hansa.errors import HansaError, WireError
from hansa.secagg.member import Member
from hansa.wire import MAX_ARRAYS, Array, Message

BUNDLE, REFUSAL = "secagg.bundle", "secagg.refusal"
MAX_PARTS = 8


def bundle(parts: Sequence[Message]) -> Message:
    """One message that holds others, their arrays under ``INDEX.NAME``."""
    arrays: dict[str, Array] = {}
    hashed: dict[str, str] = {}
    for index, part in enumerate(parts):
        for name, array in part.arrays.items():
            arrays[f"{index}.{name}"] = array
            hashed[f"{index}.{name}"] = part.array_hashes[name]
    described: list[Json] = [
        {"kind": part.kind, "body": part.body, "arrays": sorted(part.arrays)} for part in parts
    ]
    return Message(BUNDLE, {"parts": described}, arrays, hashed=hashed)


def unbundle(message: Message) -> list[Message]:
    """The messages that a bundle holds, in order.

    Raises:
        WireError: it is no bundle, or its arrays are not exactly those of its parts.
    """
    described = message.body.get("parts")
    if message.kind != BUNDLE or set(message.body) != {"parts"} or not isinstance(described, list):
        raise WireError("a bundle of messages was expected")
    if len(described) > MAX_PARTS or len(message.arrays) > MAX_ARRAYS:
        raise WireError(f"a bundle holds more than {MAX_PARTS} messages")
    parts: list[Message] = []
    used = 0
    for index, part in enumerate(described):
        if not isinstance(part, dict) or set(part) != {"kind", "body", "arrays"}:
            raise WireError("a part of a bundle does not have its three members")
        kind, body, names = part["kind"], part["body"], part["arrays"]
        if not isinstance(kind, str) or not isinstance(body, dict) or not isinstance(names, list):
            raise WireError("the members of a part of a bundle have the wrong types")
        keys = {name: f"{index}.{name}" for name in names if isinstance(name, str)}
        if len(keys) != len(names) or not set(keys.values()) <= set(message.arrays):
            raise WireError("a part of a bundle names arrays that did not come with it")
        used += len(keys)
        arrays = {name: message.arrays[key] for name, key in keys.items()}
        hashed = {name: message.array_hashes[key] for name, key in keys.items()}
        parts.append(Message(kind, body, arrays, hashed=hashed))
    if used != len(message.arrays):
        raise WireError("a bundle holds arrays that no part names")
    return parts


def answer(member: Member, request: Message, refused: Callable[[HansaError], None]) -> Message:
    """A member's replies to all parts of a bundle.

    Args:
        member: the machine.
        request: from `Coordinator.requests`.
        refused: gets every error, for the member's own log.

    Raises:
        WireError: the request is no bundle.
    """
    parts = unbundle(request)
    try:
        with member.together():
            replies = [_answered(member, part, refused) for part in parts]
    except HansaError as error:  # what was answered cannot be stored, so that nobody may hear of it
        replies = [_refused(part, error, refused) for part in parts]
    return bundle([reply for reply in replies if reply is not None])


def _answered(member: Member, part: Message, refused: Callable[[HansaError], None]) -> Message | None:
    try:
        return member.handle(part)
    except HansaError as error:
        return _refused(part, error, refused)


def _refused(part: Message, error: HansaError, refused: Callable[[HansaError], None]) -> Message | None:
    """The reply to what was refused, if the refusal may be told."""
    refused(error)
    return Message(REFUSAL, {"of": part.kind, "code": error.code}) if error.travels else None
