"""The node's place at a real SuperLink: what `hansa_client.flower_node` assumes about Flower holds for the Flower here."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain, pairwise, repeat
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from flwr.app import Message as FlowerMessage
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node as FlowerNode
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode import node_auth_http_interceptor
from flwr.supernode.fleet_http_client import FleetHttpClient

from hansa.errors import ExitStatus, LinkError
from hansa.identity import Signer
from hansa.identity.link_key import make_link_key, read_link_key
from hansa.wire import Message
from hansa_client.flower_node import Link, LinkTerms, link
from hansa_server.flower_app import league as asks
from hansa_server.flower_app.control import BUNDLE, public_pem
from hansa_server.flower_app.league import LeagueMembers, Patience
from support import linked_node
from support.proxies import Proxy, proxy
from support.superlinks import SuperLink, superlink

REQUEST = Message(
    "sum", {"agreement_id": "a", "run": "r", "round": 1}, {"u": np.arange(200_000, dtype="<u4")}
)
FAILS = Message("sum", {"agreement_id": "a", "run": "fails", "round": 1})
LONG_S = 200.0  # nothing here takes so long


class Node:
    """A node in a process of its own, and the lines that it told."""

    def __init__(self, there: SuperLink, name: str, authority: Path | None = None, address: str = "") -> None:
        files = (
            authority or there.folder / "ca" / "ca.crt",
            there.folder / f"{name}.key",
            there.folder / f"{name}.place",
        )
        self.process = subprocess.Popen(
            [sys.executable, linked_node.__file__, address or there.address, *map(str, files)],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "FLWR_TELEMETRY_ENABLED": "0"},
        )  # fmt: skip

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self, number: int = signal.SIGTERM) -> int:
        with self.process:  # whose pipe is closed whatever comes
            self.process.send_signal(number)
            return self.process.wait(LONG_S)


@contextmanager
def linked(there: SuperLink, name: str = "a") -> Iterator[Node]:
    node = Node(there, name)
    try:
        yield node
    finally:
        assert node.end() == 0


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SuperLink]:
    with superlink(tmp_path_factory.mktemp("superlink")) as made:
        for name in ("a", "stranger"):
            make_link_key(made.folder / f"{name}.key", Signer.generate(name))
        with made.control() as control:
            control.admit({"a": read_link_key(made.folder / "a.key").public_key()})
        yield made


@contextmanager
def league(there: SuperLink, told: list[str] | None = None) -> Iterator[LeagueMembers]:
    said = [] if told is None else told
    names = {public_pem(read_link_key(there.folder / "a.key").public_key()): "a"}
    with there.grid("r") as grid:
        yield LeagueMembers(
            grid, names, Patience(1, 0.0, 0.2), lambda why, _: said.append(why), lambda: False
        )


def link_to(there: SuperLink, told: list[str]) -> Link:
    """A link in this process, which is not at its place."""

    class Nowhere:
        def get(self) -> int | None:
            return None

        def put(self, node_id: int) -> None: ...

    terms = LinkTerms(there.address, there.authority, read_link_key(there.folder / "a.key"), there.folder)
    return Link(terms, linked_node.Doubles(), Nowhere(), told.append)


def doubled(replies: Mapping[str, Message]) -> bool:
    return np.array_equal(replies["a"].arrays["u"], 2 * REQUEST.arrays["u"])


def test_a_node_answers_and_one_that_is_killed_is_followed_at_once(there: SuperLink) -> None:
    connected = f"connected to {there.address}"
    with league(there) as members:
        node = Node(there, "a")
        assert node.line() == connected
        assert doubled(members.exchange({"a": REQUEST}, LONG_S))
        started = time.monotonic()
        assert (
            members.exchange({"a": FAILS}, LONG_S) == {}
        )  # what it raised reaches nobody, and nobody waits for it
        assert time.monotonic() - started < LONG_S
        node.end(signal.SIGKILL)
        with linked(there) as again:  # Flower would hold its place until heartbeats lapse
            assert again.line() == connected
            assert doubled(members.exchange({"a": REQUEST}, LONG_S))


def test_a_member_that_is_not_there_is_waited_for_while_the_deadline_stands_still(
    there: SuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    answered: list[Mapping[str, Message]] = []
    passed_s = 0.0
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed_s, sleep=time.sleep)
    monkeypatch.setattr(asks, "time", clock)
    with league(there, told) as members:
        asking = threading.Thread(target=lambda: answered.append(members.exchange({"a": REQUEST}, LONG_S)))
        asking.start()
        for _ in range(2):  # it goes on waiting however much time has passed
            waited(asking, told)
            passed_s += 2 * LONG_S
        waited(asking, told)
        with linked(there):
            asking.join(LONG_S)
        assert not asking.is_alive()
        assert doubled(answered[0])


def waited(asking: threading.Thread, told: list[str]) -> None:
    """See the league wait, twice: what was told first may have been seen before."""
    seen = len(told)
    while len(told) < seen + 2:
        assert asking.is_alive()
        time.sleep(0.02)
    assert told[-1] == "waiting for 1 of a"


def trees_that_are_no_messages() -> list[ObjectTree]:
    """Flat ones, of which the last mentions make a chain, and a lattice with 2**16 ways through it."""
    name = [hashlib.sha256(bytes([n])).hexdigest() for n in range(150)]
    links = [ObjectTree(object_id=a, children=[ObjectTree(object_id=b)]) for a, b in pairwise(name[1:])]
    rows = list(zip(name[1:33:2], name[2:33:2], strict=True))
    both = [[ObjectTree(object_id=one) for one in row] for row in rows[1:]]
    ways = [
        ObjectTree(object_id=one, children=below)
        for row, below in zip(rows, [*both, []], strict=True)
        for one in row
    ]
    return [ObjectTree(object_id=name[0], children=children) for children in (links, ways)]


@pytest.mark.parametrize("tree", trees_that_are_no_messages(), ids=["chain", "lattice"])
def test_a_node_that_announces_what_is_no_message_is_refused_and_the_run_goes_on(
    there: SuperLink, monkeypatch: pytest.MonkeyPatch, tree: ObjectTree
) -> None:
    told, stop, push = list[int](), threading.Event(), link._push

    def hostile(client: FleetHttpClient, node: FlowerNode, reply: FlowerMessage, seconds: float) -> None:
        proto = message_to_proto(remove_content_from_message(reply))
        proto.metadata.message_id = tree.object_id
        try:
            client.PushMessages(
                PushMessagesRequest(node=node, messages_list=[proto], message_object_trees=[tree])
            )
        except httpx.HTTPStatusError as error:
            told.append(error.response.status_code)
        monkeypatch.setattr(link, "_push", push)  # from then on an honest one

    monkeypatch.setattr(link, "_push", hostile)
    serving = threading.Thread(target=link_to(there, []).serve, args=(stop,))
    with league(there) as members:
        task = TaskIdentity.node_id, TaskIdentity.run_id, TaskIdentity.task_id
        serving.start()
        try:
            assert members.exchange({"a": REQUEST}, 2.0) == {}
            until = time.monotonic() + LONG_S
            while not told and time.monotonic() < until:
                time.sleep(0.02)
            # of this process, in which both ends are
            TaskIdentity.node_id, TaskIdentity.run_id, TaskIdentity.task_id = task
            assert doubled(members.exchange({"a": REQUEST}, LONG_S))
        finally:
            stop.set()
            serving.join()
    assert told == [httpx.codes.BAD_REQUEST]


def test_a_superlink_that_was_killed_is_found_again(there: SuperLink) -> None:
    with linked(there) as node:
        assert node.line() == f"connected to {there.address}"
        there.kill()
        there.start()
        with league(there) as members:
            assert doubled(members.exchange({"a": REQUEST}, LONG_S))


def test_a_node_that_is_not_registered_waits_and_says_why(there: SuperLink) -> None:
    with linked(there, "stranger") as node:
        assert "does not admit this node" in node.line()


def test_another_consortiums_certificate_is_refused_at_once(there: SuperLink, tmp_path: Path) -> None:
    SuperLink(tmp_path)
    node = Node(there, "a", authority=tmp_path / "ca" / "ca.crt")
    assert "certificate" in node.line()
    assert node.process.wait(LONG_S) == ExitStatus.CONNECTION
    node.end()


def test_a_network_that_is_cut_while_a_reply_is_on_its_way_costs_time_alone(there: SuperLink) -> None:
    large = Message("sum", REQUEST.body, {"u": np.arange(2_000_000, dtype="<u4")})
    with proxy(there.port) as between, league(there) as members:
        node = Node(there, "a", address=f"127.0.0.1:{between.port}")
        assert node.line().startswith("connected to")
        cuts = threading.Thread(target=cut_often, args=(between, answered := threading.Event()))
        cuts.start()
        for _ in range(3):
            replies = members.exchange({"a": large}, LONG_S)
            assert np.array_equal(replies["a"].arrays["u"], 2 * large.arrays["u"])
        answered.set()
        cuts.join()
        between.mend()
        assert node.end() == 0


def test_a_request_whose_way_to_the_node_was_cut_is_asked_again(there: SuperLink) -> None:
    """The SuperLink has handed it over; that the node never got it, it does not see."""
    with proxy(there.port) as between, league(there) as members:
        node = Node(there, "a", address=f"127.0.0.1:{between.port}")
        assert node.line().startswith("connected to")
        members.exchange({"a": REQUEST}, LONG_S)
        between.mute()
        cut = threading.Timer(0.5, lambda: (between.cut(), between.mend()))
        cut.start()
        assert set(members.exchange({"a": REQUEST}, 60.0)) == {"a"}
        cut.join()
        assert node.end() == 0


def cut_often(between: Proxy, answered: threading.Event) -> None:
    """Cut the network again and again, each time a little later."""
    pause = 0.05
    while not answered.wait(pause):
        between.cut()
        answered.wait(0.2)
        between.mend()
        pause *= 1.5


def test_a_superlink_of_another_flower_release_is_told_and_no_further_try_is_made(
    there: SuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = link.RuntimeVersionMetadata.from_local_component
    other = partial(_of_another_release, true)
    monkeypatch.setattr(link.RuntimeVersionMetadata, "from_local_component", other)
    with pytest.raises(LinkError, match="another Flower release"):
        link_to(there, []).probe()
    stop = threading.Event()
    giving_up = threading.Timer(LONG_S, stop.set)
    giving_up.start()
    with pytest.raises(LinkError, match="another Flower release") as told:
        link_to(there, []).serve(stop)
    giving_up.cancel()
    assert told.value.exit_status == ExitStatus.CONNECTION


def _of_another_release(true, component):
    return replace(true(component), package_version="1.99.0")


def test_a_clock_that_is_wrong_is_told_and_measured(
    there: SuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    there_is = link_to(there, []).probe()
    assert there_is is not None
    assert abs(there_is) < 60
    monkeypatch.setattr(node_auth_http_interceptor, "now", lambda: datetime.now(UTC) - timedelta(minutes=10))
    told, stop = [], threading.Event()
    serving = threading.Thread(target=link_to(there, told).serve, args=(stop,))
    serving.start()
    until = time.monotonic() + LONG_S
    while not told and time.monotonic() < until:
        time.sleep(0.02)
    stop.set()
    serving.join(LONG_S)
    assert not serving.is_alive()
    assert "is the clock right" in told[0]


def test_a_node_that_does_not_sign_is_refused_whatever_it_asks(there: SuperLink) -> None:
    verify = ssl.create_default_context(cafile=there.folder / "ca" / "ca.crt")
    kinds = {"content-type": "application/protobuf", "accept": "application/protobuf"}
    with httpx.Client(verify=verify, timeout=30.0, headers=kinds) as client:
        for path in ("pull-messages", "push-messages", "pull-object", "push-object", "send-node-heartbeat"):
            asked = client.post(f"https://{there.address}/v1/fleet/{path}", content=b"")
            assert asked.status_code == httpx.codes.UNAUTHORIZED, (path, asked.text)


def test_a_strangers_request_that_never_ends_is_cut_off(there: SuperLink) -> None:
    verify = ssl.create_default_context(cafile=there.folder / "ca" / "ca.crt")
    url, endless = f"https://{there.address}/v1/fleet/push-object", b"x" * 2**16
    # who is cut off may not come to read why
    with httpx.Client(verify=verify, timeout=30.0) as client, suppress(httpx.TransportError):
        asked = client.post(url, content=repeat(endless))
        assert asked.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
    with (
        socket.create_connection(("127.0.0.1", there.port)) as plain,
        verify.wrap_socket(plain, server_hostname="127.0.0.1") as stranger,
        pytest.raises(OSError),  # a reset, in whatever words
    ):
        send_all(stranger, chain([b"POST /v1/fleet/activate-node HTTP/1.1\r\nx: "], repeat(endless)))


def send_all(stranger: socket.socket, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        stranger.sendall(piece)


@pytest.mark.parametrize("path", ["/v1/control/list-nodes", "/openapi.json", "/docs", "/v1/unknown"])
def test_control_asks_for_a_secret_and_the_rest_is_not_there(there: SuperLink, path: str) -> None:
    verify = ssl.create_default_context(cafile=there.folder / "ca" / "ca.crt")
    with httpx.Client(verify=verify, timeout=30.0) as client:
        asked = client.post(f"https://{there.address}{path}")
    assert (asked.status_code, asked.content) == (404, b"")


def test_what_carries_a_run_is_known_also_to_whom_nobody_has_told_it(there: SuperLink) -> None:
    with there.control() as control:
        one, other = control.start("one"), control.start("other")
        assert control.carrying("one") == [one]
        control.stop(one)
        assert (control.carrying("one"), control.carrying("other")) == ([], [other])
        control.stop(other)


def test_the_bundle_names_a_module_and_holds_no_code() -> None:
    folder = Path(__file__).resolve().parents[2] / "deploy" / "flower-app"
    assert [path.name for path in folder.iterdir()] == ["pyproject.toml"]
    text = (folder / "pyproject.toml").read_text()
    assert text == BUNDLE
    assert tomllib.loads(text)["tool"]["flwr"]["app"]["components"]["serverapp"].startswith(
        "hansa_server.flower_app."
    )
