"""What is said of logs in an exchange: news of the federation's log to a member, and the member's word to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from hansa.canonical import Json
from hansa.errors import WireError
from hansa.wire import Array

ENTRIES = "log.entries"  # the array that holds entries, in either direction
MAX_NEWS = (
    16 * 1024 * 1024
)  # bytes of entries in one message; a member that lacks more catches up over several
MAX_SAID = 256  # entries of a member in one word; a round of a run is one or two, and what is left comes with the next
_LENGTH_BYTES = 4
Counter = Annotated[int, Field(ge=0, lt=2**53)]


@dataclass(frozen=True)
class News:
    """What a member is told of the federation's log.

    Attributes:
        start: the place of the first entry in the log.
        entries: that follow, as they lie in the log.
        checkpoint: a signed note over all entries up to and with these; the log's newest, unless more is to come.
    """

    start: int
    entries: tuple[bytes, ...]
    checkpoint: str


@dataclass(frozen=True)
class Word:
    """What a member says to the federation's log.

    Attributes:
        mirrored: how many entries of the log it has and has checked.
        entries: of its own log, which the federation's does not show yet; the first `MAX_SAID` of them.
        cosignature: of the checkpoint in `News`, as a line of a note; absent where it was shown none.
        nonce: from a process that has just started, 32 hexadecimal digits, until a cosigned checkpoint holds it.
    """

    mirrored: int = 0
    entries: tuple[bytes, ...] = ()
    cosignature: str | None = None
    nonce: str | None = None


def fresh_line(member: str, nonce: str) -> str:
    """The extension line of a checkpoint that shows a member that it is newer than the member's process."""
    return f"fresh {member} {nonce}"


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _NewsForm(_Form):
    start: Counter
    checkpoint: Annotated[str, StringConstraints(max_length=1 << 20)]


class _WordForm(_Form):
    mirrored: Counter
    cosignature: Annotated[str, StringConstraints(max_length=4096)] | None
    nonce: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")] | None


def first_of(entries: Iterable[bytes], most_bytes: int) -> tuple[bytes, ...]:
    """As many entries as have room in a message, at least one."""
    taken, room = list[bytes](), most_bytes
    for entry in entries:
        room -= len(entry)
        if taken and room < 0:
            break
        taken.append(entry)
    return tuple(taken)


def news_body(news: News) -> dict[str, Json]:
    """The news without its entries."""
    return {"start": news.start, "checkpoint": news.checkpoint}


def word_body(word: Word) -> dict[str, Json]:
    """The word without its entries."""
    return {"mirrored": word.mirrored, "cosignature": word.cosignature, "nonce": word.nonce}


def read_news(body: Json, entries: tuple[bytes, ...]) -> News:
    """The inverse of `news_body`; `WireError` for anything else."""
    try:
        form = _NewsForm.model_validate(body)
    except ValidationError:
        raise WireError("news of a log is not told by start and checkpoint") from None
    return News(form.start, entries, form.checkpoint)


def read_word(body: Json, entries: tuple[bytes, ...]) -> Word:
    """The inverse of `word_body`; `WireError` for anything else."""
    try:
        form = _WordForm.model_validate(body)
    except ValidationError:
        raise WireError("a member's word to a log is not what it must be") from None
    if len(entries) > MAX_SAID:
        raise WireError(f"a member says {len(entries)} entries at once; at most {MAX_SAID} are heard")
    return Word(form.mirrored, entries, form.cosignature, form.nonce)


def pack_entries(entries: Sequence[bytes]) -> Array:
    """Entries as one array of bytes: the length of each in four bytes, then the entry."""
    packed = b"".join(len(entry).to_bytes(_LENGTH_BYTES, "big") + entry for entry in entries)
    return np.frombuffer(packed, dtype=np.uint8)


def unpack_entries(array: Array) -> tuple[bytes, ...]:
    """The inverse of `pack_entries`.

    Raises:
        WireError: the bytes are not whole entries.
    """
    if array.dtype != np.uint8 or array.ndim != 1:
        raise WireError("entries of a log travel in one array of bytes")
    data, at, entries = array.tobytes(), 0, list[bytes]()
    while at < len(data):
        size = int.from_bytes(data[at : at + _LENGTH_BYTES], "big")
        entry = data[at + _LENGTH_BYTES : at + _LENGTH_BYTES + size]
        if len(data) - at < _LENGTH_BYTES or len(entry) != size or not size:
            raise WireError("entries of a log are cut short")
        entries.append(entry)
        at += _LENGTH_BYTES + size
    return tuple(entries)
