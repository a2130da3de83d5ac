"""One exchange of a federation: a bundle of the secure sum, sums for the model, and what is said of logs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from hansa.agreement import Agreement
from hansa.canonical import Json
from hansa.errors import WireError
from hansa.protocol.common import REFERENCE, PolicyCode, read_refusal, reference
from hansa.protocol.derivation import Aggregate
from hansa.protocol.history import (
    ENTRIES,
    News,
    Word,
    news_body,
    pack_entries,
    read_news,
    read_word,
    unpack_entries,
    word_body,
)
from hansa.secagg.bundle import BUNDLE
from hansa.wire import Array, Message

MAX_FILES = 2  # that a request brings to be judged; their bytes are held to the limits of whoever runs them
MAX_AGGREGATES = 16  # in one request; a member that is further behind catches up over several exchanges


@dataclass(frozen=True, eq=False)
class Asked:
    """What a request of a federation asks and tells.

    Attributes:
        bundle: the secure sum's messages for one member.
        aggregates: that the member lacks, in order of their steps; at most `MAX_AGGREGATES`.
        news: of the federation's log, where there is one.
        files: to be judged, as bytes in an array uint8, by their SHA-256.
    """

    bundle: Message
    aggregates: tuple[Aggregate, ...] = ()
    news: News | None = None
    files: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Answered:
    """What a member answers.

    Attributes:
        bundle: its replies to the secure sum.
        model_round: how many sums its model has followed, so that it is sent those it lacks.
        word: to the federation's log.
    """

    bundle: Message
    model_round: int
    word: Word


def sum_request(agreement: Agreement, run: str, number: int, asked: Asked) -> Message:
    """One exchange of a federation.

    Args:
        number: of the exchange in this run.
        asked: of one member.
    """
    listed: list[Json] = [
        {"step": a.step, "round": a.round, "survivors": list(a.survivors), "verified": a.verified}
        for a in asked.aggregates
    ]
    body: Mapping[str, Json] = {
        "agreement_id": agreement.agreement_id, "run": run, "round": number, "bundle": asked.bundle.body,
        "aggregates": listed, "log": None if asked.news is None else news_body(asked.news),
        "files": sorted(asked.files),
    }  # fmt: skip
    totals = {f"total.{a.step}": a for a in asked.aggregates}
    arrays = {**asked.bundle.arrays, **{name: a.total for name, a in totals.items()}}
    hashed = {**asked.bundle.hashed, **{name: a.sha256 for name, a in totals.items()}}
    arrays |= {f"file.{name}": data for name, data in asked.files.items()}
    hashed |= {f"file.{name}": name for name in asked.files}
    if asked.news is not None:
        arrays[ENTRIES] = pack_entries(asked.news.entries)
    return Message("sum", body, arrays, hashed=hashed)


def read_sum_request(request: Message, dimension: int) -> Asked:
    """What a request says.

    Raises:
        WireError: it is malformed, or a sum has another length than the model.
    """
    if set(request.body) != {*REFERENCE, "bundle", "aggregates", "log", "files"}:
        raise WireError("a request for a sum does not have the members of one")
    listed, log = request.body["aggregates"], request.body["log"]
    if not isinstance(listed, list) or len(listed) > MAX_AGGREGATES:
        raise WireError("a request brings a list of earlier sums, and not too many")
    aggregates = tuple(_aggregate(request, item, dimension) for item in listed)
    taken = {f"total.{aggregate.step}" for aggregate in aggregates}
    if len(taken) != len(aggregates):
        raise WireError("a request brings one sum twice")
    news = None if log is None else read_news(log, _entries(request))
    files = _files(request)
    taken |= {f"file.{name}" for name in files}
    bundle = _bundle_of(request, taken if news is None else taken | {ENTRIES})
    return Asked(bundle, aggregates, news, files)


def sum_reply(request: Message, answered: Answered) -> Message:
    """A member's answers to a request."""
    bundle = answered.bundle
    body = {
        **reference(request), "bundle": bundle.body, "model_round": answered.model_round,
        "log": word_body(answered.word),
    }  # fmt: skip
    arrays = {**bundle.arrays, ENTRIES: pack_entries(answered.word.entries)}
    return Message("summed", body, arrays, hashed=bundle.hashed)


def read_sum_reply(request: Message, reply: Message) -> Answered | PolicyCode:
    """What a member answers, or why it does not.

    Raises:
        WireError: the reply answers another request or is malformed.
    """
    refused = read_refusal(request, reply)
    if refused is not None:
        return refused
    if reply.kind != "summed" or set(reply.body) != {*REFERENCE, "bundle", "model_round", "log"}:
        raise WireError(f"a reply of kind {reply.kind!r} does not answer a request for a sum")
    word = read_word(reply.body["log"], _entries(reply))
    return Answered(_bundle_of(reply, {ENTRIES}), reply.integer("model_round"), word)


def bundle_of_reply(reply: Message) -> Message:
    """The secure sum's part of a reply, whatever request it answers.

    Raises:
        WireError: there is none.
    """
    if reply.kind != "summed" or "bundle" not in reply.body:
        raise WireError(f"a reply of kind {reply.kind!r} holds no bundle")
    return _bundle_of(reply, {ENTRIES})


def closed_reply(request: Message, word: Word) -> Message:
    """A member's answer to `close_request`, with what it has put on record."""
    return _word_reply("closed", request, word)


def witness_request(agreement: Agreement, run: str, news: News) -> Message:
    """Show a member the federation's log and ask for its cosignature, with nothing to be summed."""
    body: Mapping[str, Json] = {
        "agreement_id": agreement.agreement_id, "run": run, "round": 0, "log": news_body(news),
    }  # fmt: skip
    return Message("witness", body, {ENTRIES: pack_entries(news.entries)})


def read_witness_request(request: Message) -> News:
    """The news of a request; `WireError` for anything else."""
    if set(request.body) != {*REFERENCE, "log"} or set(request.arrays) != {ENTRIES}:
        raise WireError("a request to witness a log does not have the members of one")
    return read_news(request.body["log"], _entries(request))


def witnessed_reply(request: Message, word: Word) -> Message:
    """A member's answer to `witness_request`."""
    return _word_reply("witnessed", request, word)


def read_word_reply(request: Message, reply: Message) -> Word | PolicyCode:
    """What a member says to the log when a run is closed or a log is witnessed, or why it says nothing.

    Raises:
        WireError: the reply answers another request or is malformed.
    """
    refused = read_refusal(request, reply)
    if refused is not None:
        return refused
    expected = {"close": "closed", "witness": "witnessed"}.get(request.kind)
    if reply.kind != expected or set(reply.body) != {*REFERENCE, "log"}:
        raise WireError(f"a reply of kind {reply.kind!r} does not answer a request of kind {request.kind!r}")
    return read_word(reply.body["log"], _entries(reply))


def _word_reply(kind: str, request: Message, word: Word) -> Message:
    body = {**reference(request), "log": word_body(word)}
    return Message(kind, body, {ENTRIES: pack_entries(word.entries)})


def _entries(message: Message) -> tuple[bytes, ...]:
    array = message.arrays.get(ENTRIES)
    if array is None:
        raise WireError("the entries of a log are missing")
    return unpack_entries(array)


def _aggregate(request: Message, item: Json, dimension: int) -> Aggregate:
    if not isinstance(item, dict) or set(item) != {"step", "round", "survivors", "verified"}:
        raise WireError(
            "an earlier sum is told by its step, its round, its survivors and who has recomputed it"
        )
    at, number, survivors, verified = item["step"], item["round"], item["survivors"], item["verified"]
    if (
        type(at) is not int
        or type(number) is not int
        or min(at, number) < 0
        or not isinstance(survivors, list)
    ):
        raise WireError("an earlier sum is told by a step, a round and a list of survivors")
    names = tuple(name for name in survivors if isinstance(name, str))
    if len(set(names)) != len(survivors) or not isinstance(verified, str):
        raise WireError("the survivors of a sum are distinct names, and a statement is a text")
    total = request.array(f"total.{at}", "<i4", dimension)
    known = request.array_hashes[f"total.{at}"]
    return Aggregate(at, names, total, verified, number, known_sha256=known)


def _files(request: Message) -> dict[str, Array]:
    """The files that a request brings, by the hashes under which it brings them, each that of its bytes."""
    listed = request.body["files"]
    if not isinstance(listed, list) or len(listed) > MAX_FILES or len(set(map(str, listed))) != len(listed):
        raise WireError("a request brings a list of files, each once, and not too many")
    files = dict[str, Array]()
    for name in listed:
        array = request.arrays.get(f"file.{name}")
        if not isinstance(name, str) or array is None or array.dtype != np.uint8 or array.ndim != 1:
            raise WireError("a file travels as bytes under its hash")
        if request.array_hashes[f"file.{name}"] != name:
            raise WireError("a file is not the one whose hash it travels under")
        files[name] = array
    return files


def _bundle_of(message: Message, taken: Collection[str]) -> Message:
    """The bundle inside a request or reply; `hansa.secagg.bundle` judges what it holds."""
    body = message.body["bundle"]
    if not isinstance(body, dict):
        raise WireError("a bundle is missing")
    arrays: dict[str, Array] = {name: array for name, array in message.arrays.items() if name not in taken}
    return Message(BUNDLE, body, arrays, hashed={name: message.array_hashes[name] for name in arrays})
