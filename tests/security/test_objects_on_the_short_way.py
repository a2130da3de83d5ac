"""What takes the short way to the SuperLink's objects: only whom Flower admits, only what it is called, and else nothing changes."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import SUPERLINK_NODE_ID, TIMESTAMP_HEADER, Status
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
    TASK_TOKEN_HEADER,
)
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes, sign_message
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata

from hansa_server.flower_app import admitted, carrying
from hansa_server.flower_app.admitted import Admission, Remembered
from hansa_server.flower_app.bounded import MOST_OBJECT_BYTES
from hansa_server.flower_app.carrying import Carrying
from hansa_server.flower_app.objects import INLINE_BYTES, ObjectFiles
from hansa_server.flower_app.waiting import WAITS

RUN, NODE = 7, 11
LEFT_TO_FLOWER = 418
HELD = {WAITS.decode(): "1"}  # says that it may be
TOKEN = "token"  # of nothing


def thing(length: int) -> tuple[str, bytes]:
    """An object: its id and its content."""
    body = random.Random(length).randbytes(length)  # noqa: S311  # any bytes
    content = f"ArrayChunk  {length}".encode() + b"\x00" + body
    return hashlib.sha256(content).hexdigest(), content


SMALL, LARGE = thing(90), thing(3 * INLINE_BYTES + 5)


@dataclass
class League:
    """Flower's state as far as it is asked, and the application behind, which notes what is left to it."""

    folder: Path
    status: str = Status.RUNNING
    left: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.key, public = generate_key_pairs()
        self.public = public_key_to_bytes(public)
        self.nodes, self.tokens = {self.public: NODE}, {TOKEN: RUN}
        self.store = ObjectFiles(self.folder)
        flower = SimpleNamespace(state=SimpleNamespace(linkstate_factory=SimpleNamespace(state=lambda: self)))
        self.flower, self.state = flower, Admission(flower)
        self.app = Carrying(self._behind, self.state, self.store)

    def get_node_id_by_public_key(self, key: bytes) -> int | None:
        return self.nodes.get(key)

    def get_task_by_token(self, token: str) -> Any:
        return SimpleNamespace(run_id=self.tokens[token]) if token in self.tokens else None

    def get_run_status(self, runs: set[int]) -> dict[int, Any]:
        return {run: SimpleNamespace(status=self.status) for run in runs if run == RUN}

    def store_object(self, run: int, session: str, number: str, content: Any) -> bool:
        assert run == RUN
        if session != "session":
            return False
        try:
            self.store.put(number, content)
        except Exception:  # noqa: BLE001  # as Flower does
            return False
        return True

    def announce(self, *things: tuple[str, bytes]) -> None:
        for number, _ in things:
            self.store.preregister(RUN, ObjectTree(object_id=number))

    async def _behind(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            event = await receive()
            body, more = body + event.get("body", b""), event.get("more_body", False)
        self.left.append(body)
        await send({"type": "http.response.start", "status": LEFT_TO_FLOWER, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def as_node(self, key: ec.EllipticCurvePrivateKey | None = None) -> dict[str, str]:
        at = now().isoformat()
        signature = sign_message(key or self.key, at.encode("ascii"))
        return {
            "content-type": PROTOBUF_MEDIA_TYPE, TIMESTAMP_HEADER: at,
            FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(self.public).decode(),
            FLEET_HTTP_SIGNATURE_HEADER: b64encode(signature).decode(),
        }  # fmt: skip

    def as_run(self, token: str = TOKEN) -> dict[str, str]:
        said = RuntimeVersionMetadata.from_local_component("flwr-serverapp").as_metadata()
        return {"content-type": PROTOBUF_MEDIA_TYPE, TASK_TOKEN_HEADER: token, **dict(said)}

    def ask(self, path: str, body: bytes, headers: dict[str, str], pieces: int = 0) -> httpx.Response:
        async def asked() -> httpx.Response:
            async with self.client() as client:
                return await client.post(path, content=cut(body, pieces) if pieces else body, headers=headers)

        return asyncio.run(asked())

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="https://superlink")


async def cut(body: bytes, piece: int) -> Any:
    for at in range(0, len(body), piece):
        yield body[at : at + piece]


@pytest.fixture
def league(tmp_path: Path) -> League:
    return League(tmp_path / "objects")


def push(one: tuple[str, bytes], node: int = NODE, **changes: Any) -> bytes:
    said: dict[str, Any] = {
        "object_id": one[0],
        "object_content": one[1],
        "session_id": "session",
        "run_id": RUN,
    }
    request = PushObjectRequest(node=Node(node_id=node), **(said | changes))
    return bytes(request.SerializeToString(deterministic=True))


def pull(one: tuple[str, bytes], node: int = NODE) -> bytes:
    request = PullObjectRequest(node=Node(node_id=node), run_id=RUN, object_id=one[0])
    return bytes(request.SerializeToString())


def confirm(one: tuple[str, bytes], node: int = NODE) -> bytes:
    request = ConfirmMessageReceivedRequest(node=Node(node_id=node), run_id=RUN, message_object_id=one[0])
    return bytes(request.SerializeToString())


@pytest.mark.parametrize("one", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("pieces", [0, 1000, 70_000])
def test_what_a_node_pushes_a_run_pulls(league: League, one: tuple[str, bytes], pieces: int) -> None:
    league.announce(one)
    pushed = league.ask("/v1/fleet/push-object", push(one), league.as_node(), pieces)
    assert PushObjectResponse.FromString(pushed.content).stored
    pulled = league.ask("/v1/runtime/pull-object", pull(one, SUPERLINK_NODE_ID), league.as_run())
    assert pulled.headers["content-type"] == PROTOBUF_MEDIA_TYPE
    assert PullObjectResponse.FromString(pulled.content) == PullObjectResponse(
        object_found=True, object_available=True, object_content=one[1]
    )
    assert not league.left


def test_what_a_run_pushes_a_node_pulls(league: League) -> None:
    league.announce(LARGE)
    pushed = league.ask("/v1/runtime/push-object", push(LARGE, SUPERLINK_NODE_ID), league.as_run())
    assert PushObjectResponse.FromString(pushed.content).stored
    pulled = league.ask("/v1/fleet/pull-object", pull(LARGE), league.as_node())
    assert PullObjectResponse.FromString(pulled.content).object_content == LARGE[1]


@pytest.mark.parametrize("part", ["fleet", "runtime"])
def test_what_has_been_received_goes(league: League, part: str) -> None:
    league.announce(SMALL, LARGE)
    for one in (SMALL, LARGE):
        league.store.put(*one)
    headers, node = (league.as_node(), NODE) if part == "fleet" else (league.as_run(), SUPERLINK_NODE_ID)
    answer = league.ask(f"/v1/{part}/confirm-message-received", confirm(LARGE, node), headers)
    assert (answer.status_code, answer.content, league.left) == (200, b"", [])
    assert (league.store.get(LARGE[0]), league.store.get(SMALL[0])) == (None, SMALL[1])
    assert not (league.folder / LARGE[0]).exists()


FORGED: list[Callable[[League], dict[str, str]]] = [
    lambda league: league.as_node(generate_key_pairs()[0]),
    lambda league: league.as_node() | {TIMESTAMP_HEADER: "2020-01-01T00:00:00+00:00"},
    lambda league: {"content-type": PROTOBUF_MEDIA_TYPE},
    lambda league: league.as_node() | {"content-type": "application/json"},
    lambda league: league.as_run(),
]


@pytest.mark.parametrize("headers", FORGED)
def test_whoever_is_not_that_node_gets_no_object_and_gives_none(
    league: League, headers: Callable[[League], dict[str, str]]
) -> None:
    league.announce(SMALL, LARGE)
    league.store.put(*SMALL)
    asked = {
        "push-object": push(LARGE),
        "pull-object": pull(SMALL),
        "confirm-message-received": confirm(SMALL),
    }
    for path, body in asked.items():
        answer = league.ask(f"/v1/fleet/{path}", body, headers(league), 5000)
        left = (
            push((LARGE[0], b"")) if path == "push-object" else body
        )  # what is large Flower gets without its content
        assert (answer.status_code, answer.content, league.left.pop()) == (LEFT_TO_FLOWER, b"", left)
    assert (league.store.get(LARGE[0]), league.store.get(SMALL[0])) == (b"", SMALL[1])


@pytest.mark.parametrize("part", ["fleet", "runtime"])
def test_another_node_in_the_request_than_in_the_proof_is_left_to_flower(league: League, part: str) -> None:
    league.announce(SMALL)
    league.store.put(*SMALL)
    headers = league.as_node() if part == "fleet" else league.as_run()
    answer = league.ask(f"/v1/{part}/pull-object", pull(SMALL, NODE + 1), headers)
    assert answer.status_code == LEFT_TO_FLOWER


def test_a_token_that_nobody_has_and_a_run_that_is_over_are_left_to_flower(league: League) -> None:
    league.announce(SMALL)
    league.store.put(*SMALL)
    question = pull(SMALL, SUPERLINK_NODE_ID)
    assert (
        league.ask("/v1/runtime/pull-object", question, league.as_run("other")).status_code == LEFT_TO_FLOWER
    )
    league.status = Status.FINISHED
    assert league.ask("/v1/fleet/pull-object", pull(SMALL), league.as_node()).status_code == LEFT_TO_FLOWER


def test_a_node_that_is_struck_off_is_refused_once_what_was_said_of_it_is_old(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    league.announce(SMALL)
    league.store.put(*SMALL)
    assert league.ask("/v1/fleet/pull-object", pull(SMALL), league.as_node()).status_code == 200
    league.nodes.clear()
    later = time.monotonic() + admitted._REMEMBERED_S + 0.01
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert league.ask("/v1/fleet/pull-object", pull(SMALL), league.as_node()).status_code == LEFT_TO_FLOWER


def test_no_more_is_remembered_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admitted, "_MOST_REMEMBERED", 3)
    remembered = Remembered(60.0)
    assert [remembered.of(number, lambda: "said") for number in range(10)] == ["said"] * 10
    assert len(remembered._said) <= 3


BAD: list[tuple[str, Callable[[], bytes]]] = [
    ("another content than its name", lambda: push((LARGE[0], LARGE[1][:-1] + b"x"))),
    ("a content that is no object", lambda: push((hashlib.sha256(b"rubbish" * 20_000).hexdigest(), b"rubbish" * 20_000))),
    ("a session that is another's", lambda: push(LARGE, session_id="other")),
    ("an object that nobody announced", lambda: push(thing(2 * INLINE_BYTES))),
]  # fmt: skip


@pytest.mark.parametrize("body", [body for _, body in BAD], ids=[name for name, _ in BAD])
def test_what_is_not_what_it_is_called_is_not_kept(league: League, body: Callable[[], bytes]) -> None:
    league.announce(LARGE)
    answer = league.ask("/v1/fleet/push-object", body(), league.as_node(), 50_000)
    assert not PushObjectResponse.FromString(answer.content).stored
    assert league.store.get(LARGE[0]) == b""
    assert {path.name.split(".")[0] for path in league.folder.iterdir()} == {"objects"}


@pytest.mark.parametrize(
    "change", [lambda body: body[:-40_000], lambda body: body + b"\xff" * 9, lambda body: body * 2]
)
def test_a_push_that_breaks_off_or_goes_on_leaves_nothing(
    league: League, change: Callable[[bytes], bytes]
) -> None:
    league.announce(LARGE)
    answer = league.ask("/v1/fleet/push-object", change(push(LARGE)), league.as_node(), 50_000)
    assert (answer.status_code, league.left) == (400, [])
    assert league.store.get(LARGE[0]) == b""
    assert not list(league.folder.glob("*.part"))


def test_an_object_that_is_announced_is_waited_for(league: League, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrying, "_HELD_S", 60.0)
    league.announce(LARGE)

    async def both() -> bytes:
        async with league.client() as client:
            asked = client.post(
                "/v1/runtime/pull-object",
                content=pull(LARGE, SUPERLINK_NODE_ID),
                headers=league.as_run() | HELD,
            )
            waiting = asyncio.create_task(_whole(asked))
            while not league.app._awaited:  # noqa: ASYNC110  # it is what is looked at
                await asyncio.sleep(0.01)
            await client.post("/v1/fleet/push-object", content=push(LARGE), headers=league.as_node())
            return await waiting

    assert PullObjectResponse.FromString(asyncio.run(both())).object_content == LARGE[1]
    assert not league.app._awaited


async def _whole(asked: Awaitable[httpx.Response]) -> bytes:
    return (await asked).content


def test_what_does_not_come_is_left_to_flower(league: League, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrying, "_HELD_S", 0.01)
    league.announce(LARGE)
    for one in (LARGE, SMALL):  # announced, and never heard of
        for headers in (league.as_node() | HELD, league.as_node()):
            assert league.ask("/v1/fleet/pull-object", pull(one), headers).status_code == LEFT_TO_FLOWER
    assert not league.app._awaited
    assert league.app._held == 0


def test_a_disk_that_is_full_is_no_object_and_no_crash(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    league.announce(LARGE)

    def full(size: int, node: int | None) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(league.store, "receive", full)
    answer = league.ask("/v1/fleet/push-object", push(LARGE), league.as_node())
    assert not PushObjectResponse.FromString(answer.content).stored


def test_what_is_larger_than_an_object_is_refused_and_not_read_into_memory(league: League) -> None:
    """Flower would read it whole before it asks who sends it."""
    begins = PushObjectRequest(node=Node(node_id=NODE), run_id=RUN, object_id=LARGE[0]).SerializeToString()
    said = begins + bytes([carrying._CONTENT_PUSHED]) + carrying._as_number(MOST_OBJECT_BYTES + 1)
    for headers in (league.as_node(), {"content-type": PROTOBUF_MEDIA_TYPE}):
        answer = league.ask("/v1/fleet/push-object", said + bytes(300_000), headers, 50_000)
        assert (answer.status_code, league.left) == (413, [])


@pytest.mark.parametrize(
    "headers", [lambda league: league.as_node(), lambda _: {"content-type": "text/plain"}]
)
def test_a_large_push_whose_fields_come_in_another_order_is_refused(
    league: League, headers: Callable[[League], dict[str, str]]
) -> None:
    league.announce(LARGE)
    last = PushObjectRequest(session_id="session").SerializeToString()
    answer = league.ask("/v1/fleet/push-object", last + push(LARGE), headers(league), 50_000)
    assert (answer.status_code, league.left) == (413, [])
    answer = league.ask("/v1/fleet/push-object", last + push(SMALL), headers(league), 50)
    assert (answer.status_code, league.left) == (LEFT_TO_FLOWER, [last + push(SMALL)])


def test_a_run_that_is_over_is_told_by_flower_without_what_is_large(league: League) -> None:
    league.status = Status.FINISHED
    answer = league.ask("/v1/fleet/push-object", push(LARGE), league.as_node(), 50_000)
    assert (answer.status_code, league.left) == (LEFT_TO_FLOWER, [push((LARGE[0], b""))])


def test_a_node_that_has_as_much_here_as_it_may_stores_no_more(league: League) -> None:
    league.store._node_bytes = len(LARGE[1]) + len(SMALL[1]) - 1
    with league.store.announced_by(NODE):
        league.announce(LARGE, SMALL)
    stored = [
        PushObjectResponse.FromString(
            league.ask("/v1/fleet/push-object", push(one), league.as_node(), 50_000).content
        ).stored
        for one in (LARGE, SMALL)
    ]
    assert (stored, league.left) == ([True, False], [])
    league.store.delete(LARGE[0])
    answer = league.ask("/v1/fleet/push-object", push(SMALL), league.as_node())
    assert PushObjectResponse.FromString(answer.content).stored


def test_what_a_head_proves_is_a_registered_node(league: League) -> None:
    def proved(headers: dict[str, str]) -> int | None:
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        return league.state.node_of({"type": "http", "headers": raw})

    assert proved(league.as_node()) == NODE
    assert [proved(headers(league)) for headers in FORGED if headers is not FORGED[3]] == [None] * 4
    league.nodes.clear()
    assert Admission(league.flower).node_of({"type": "http", "headers": []}) is None
    stranger, league.public = league.as_node(), public_key_to_bytes(generate_key_pairs()[1])
    assert proved(stranger | {FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(league.public).decode()}) is None


@pytest.mark.parametrize("path", sorted(carrying._PATHS))
def test_bytes_that_are_thrown_at_it_are_flowers_to_answer(league: League, path: str) -> None:
    league.announce(SMALL, LARGE)
    rng = random.Random(path)  # noqa: S311  # the same in each run
    headers = league.as_node() if "fleet" in path else league.as_run()
    league.store.put(*LARGE)
    asked = {
        "push-object": push(SMALL),
        "pull-object": pull(SMALL),
        "confirm-message-received": confirm(SMALL),
    }
    right = asked[path.rpartition("/")[2]]
    before = len(league.store)
    for _ in range(60):
        body = bytearray(right)
        for _ in range(rng.randrange(1, 6)):
            match rng.randrange(3):
                case 0:
                    body[rng.randrange(len(body))] = rng.randrange(256)
                case 1:
                    del body[rng.randrange(len(body)) :]
                    body += rng.randbytes(3)
                case _:
                    at = rng.randrange(len(body))
                    body[at:at] = rng.randbytes(rng.randrange(1, 9))
        answer = league.ask(path, bytes(body), headers, rng.choice([0, 7]))
        assert answer.status_code in {200, 400, LEFT_TO_FLOWER}
        if answer.status_code == LEFT_TO_FLOWER:
            assert league.left.pop() == bytes(body)
    assert len(league.store) == before or path.endswith("received")
    assert LARGE[0] in league.store
    assert not list(league.folder.glob("*.part"))
