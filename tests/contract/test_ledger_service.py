"""`hansa.v1.LedgerService`: a real server and a real client over mutual TLS on this machine."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from hansa.errors import PortError, UsageError
from hansa.following import LedgerServiceError, LogMirror, Patience, follow
from hansa.following.remote import Credentials, RemoteLog
from hansa.identity import COORDINATOR, Amendment, Authority, Signer
from hansa.ledger import AmendmentMade, Log, LogView, MemoryLogStore, NoteSigner, SignedNote, SqliteLogStore
from hansa.ledger.errors import CosignatureQuorumError, ForkError, LogDamagedError, LogVerificationError
from hansa.merkle import leaf_hash, tree_root, verify_consistency, verify_inclusion
from hansa.v1 import ledger_pb2 as v1
from hansa.v1.ledger_pb2_grpc import LedgerServiceStub
from hansa_server import ledger_gate, ledger_service
from hansa_server.admission import Admission, RosterInForce
from hansa_server.ledger_service import MAX_ENTRIES, SERVICE, ServiceIdentity, ledger_server
from hansa_server.served_logs import HeldLog, served_logs
from support.audits import (
    AGREEMENT,
    FEDERATION_SIGNER,
    KEYS,
    LOG_SIGNERS,
    MEMBERS,
    SIGNERS,
    at,
    changed,
    cosigned,
    rewrite_bundle,
    signed,
    story,
    write_log,
    write_store,
)
from support.services import AUDITOR, HOST, ORIGIN, READERS, Consortium, private, remote

ENTRIES = story().federation
END = len(ENTRIES)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    folder = tmp_path_factory.mktemp("consortium")
    return Consortium.make(folder)


@pytest.fixture(scope="module")
def credentials(consortium: Consortium) -> Credentials:
    return consortium.credentials(consortium.home(AUDITOR))


@pytest.fixture(scope="module")
def store(consortium: Consortium) -> Path:
    return write_store(ENTRIES, FEDERATION_SIGNER, consortium.folder / "log.sqlite", [20, END], MEMBERS)


@pytest.fixture(scope="module")
def address(consortium: Consortium, store: Path) -> Iterator[str]:
    own = consortium.folder / "own"
    write_log(story().own[MEMBERS[0]], LOG_SIGNERS[MEMBERS[0]], own)
    with consortium.serving_paths(store, own) as address:
        yield address


@pytest.fixture
def log(address: str, credentials: Credentials) -> Iterator[RemoteLog]:
    with remote(address, credentials) as made:
        yield made


@pytest.fixture
def channel(address: str, credentials: Credentials) -> Iterator[grpc.Channel]:
    with _channel(address, credentials) as made:
        yield made


def _channel(address: str, credentials: Credentials, *options: tuple[str, int]) -> Any:
    tls = grpc.ssl_channel_credentials(credentials.authority, credentials.key, credentials.certificate)
    return grpc.secure_channel(address, tls, options)


def long_log() -> HeldLog:
    """A log of a megabyte, more than a connection takes unread."""
    log = Log(MemoryLogStore(), FEDERATION_SIGNER)
    log.append([bytes(65_000)] * 16)
    log.checkpoint()
    return HeldLog(log, ORIGIN)


@contextmanager
def _unread(address: str, credentials: Credentials) -> Iterator[Callable[[], Any]]:
    """Asks for all entries of `long_log`; takes the answer when, and if, it is asked for."""
    question = v1.GetEntriesRequest(origin=ORIGIN, end=16).SerializeToString()
    own = (("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1))
    with _channel(address, credentials, *own) as channel:
        yield lambda: channel.unary_stream("/hansa.v1.LedgerService/GetEntries")(question)


def status_of(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()  # type: ignore[attr-defined]


# --- what is served --------------------------------------------------------------------------------------


class TestReading:
    def test_logs_by_name(self, log: RemoteLog) -> None:
        assert log.logs() == (ORIGIN, LOG_SIGNERS[MEMBERS[0]].key.name)

    def test_the_newest_checkpoint_with_its_cosignatures(self, log: RemoteLog) -> None:
        seen = KEYS.federation.verify(log.checkpoint())
        assert seen.checkpoint.size == END
        assert len(seen.cosigned) == 5
        again = log.cosigned(4)
        assert again is not None
        assert again.text == seen.note.text
        assert log.cosigned(6) is None

    def test_entries_byte_for_byte(self, log: RemoteLog) -> None:
        assert log.entries(0, END) == ENTRIES
        assert log.entries(7, 9) == ENTRIES[7:9]

    def test_a_tile_is_the_hashes_of_the_entries(self, log: RemoteLog) -> None:
        assert log.tile(0, 0, END) == b"".join(map(leaf_hash, ENTRIES))

    @pytest.mark.parametrize(("index", "size"), [(0, 1), (0, END), (END - 1, END), (3, 20)])
    def test_an_inclusion_proof_holds(self, log: RemoteLog, index: int, size: int) -> None:
        root = tree_root([leaf_hash(data) for data in ENTRIES[:size]])
        verify_inclusion(leaf_hash(ENTRIES[index]), index, size, log.inclusion(index, size), root)

    @pytest.mark.parametrize(("size1", "size2"), [(1, END), (20, END), (END, END), (8, 9)])
    def test_a_consistency_proof_holds(self, log: RemoteLog, size1: int, size2: int) -> None:
        roots = [tree_root([leaf_hash(data) for data in ENTRIES[:size]]) for size in (size1, size2)]
        verify_consistency(size1, size2, log.consistency(size1, size2), *roots)

    def test_a_log_of_a_folder_of_tiles(self, address: str, credentials: Credentials) -> None:
        with remote(address, credentials, LOG_SIGNERS[MEMBERS[0]].key.name) as own:
            assert own.entries(0, len(story().own[MEMBERS[0]])) == story().own[MEMBERS[0]]

    def test_a_log_may_be_left_unnamed_where_one_alone_is_served(
        self, consortium: Consortium, store: Path, credentials: Credentials
    ) -> None:
        with consortium.serving_paths(store) as alone, remote(alone, credentials, "") as log:
            assert log.entries(0, 1) == ENTRIES[:1]


class TestLimits:
    def test_an_answer_holds_no_more_than_it_may(
        self, consortium: Consortium, credentials: Credentials
    ) -> None:
        small = Log(MemoryLogStore(), FEDERATION_SIGNER)
        small.append(b"%d" % number for number in range(3 * MAX_ENTRIES))
        small.checkpoint()
        large = Log(MemoryLogStore(), LOG_SIGNERS[MEMBERS[1]])
        large.append(bytes([number]) * 65_000 for number in range(40))
        large.checkpoint()
        logs = [HeldLog(small, ORIGIN), HeldLog(large, large.key.name)]
        with consortium.serving(logs) as address:
            with remote(address, credentials) as log:
                assert len(log.entries(0, 3 * MAX_ENTRIES)) == MAX_ENTRIES
                news = list(log.follow(0, once=True))
                assert [len(one.entries) for one in news] == [0, MAX_ENTRIES, MAX_ENTRIES, MAX_ENTRIES]
            with remote(address, credentials, large.key.name) as log:
                entries = log.entries(0, 40)
                assert 1 <= len(entries) < 40
                assert sum(map(len, entries)) <= ledger_service.MAX_ENTRIES_BYTES
                assert sum(len(one.entries) for one in log.follow(0, once=True)) == 40

    @pytest.mark.parametrize(
        ("method", "request_", "status", "words"),
        [
            ("GetEntries", v1.GetEntriesRequest(origin=ORIGIN, start=5, end=5), "INVALID_ARGUMENT", "no entries were asked for"),
            ("GetEntries", v1.GetEntriesRequest(origin=ORIGIN, start=0, end=END + 1), "OUT_OF_RANGE", "the log is shorter"),
            ("GetEntries", v1.GetEntriesRequest(origin=ORIGIN, start=2**63, end=2**64 - 1), "OUT_OF_RANGE", "the log is shorter"),
            ("GetEntries", v1.GetEntriesRequest(origin="../../etc/passwd", end=1), "NOT_FOUND", "no such log"),
            ("GetEntries", v1.GetEntriesRequest(end=1), "NOT_FOUND", "no such log"),
            ("GetTile", v1.GetTileRequest(origin=ORIGIN, level=8, width=1), "INVALID_ARGUMENT", "no such tile"),
            ("GetTile", v1.GetTileRequest(origin=ORIGIN, width=0), "INVALID_ARGUMENT", "no such tile"),
            ("GetTile", v1.GetTileRequest(origin=ORIGIN, width=257), "INVALID_ARGUMENT", "no such tile"),
            ("GetTile", v1.GetTileRequest(origin=ORIGIN, width=256), "OUT_OF_RANGE", "the log is shorter"),
            ("GetTile", v1.GetTileRequest(origin=ORIGIN, level=7, index=2**64 - 1, width=256), "OUT_OF_RANGE", "the log is shorter"),
            ("GetInclusionProof", v1.GetInclusionProofRequest(origin=ORIGIN, index=9, size=9), "INVALID_ARGUMENT", "there is no such proof"),
            ("GetInclusionProof", v1.GetInclusionProofRequest(origin=ORIGIN, index=0, size=10**9), "OUT_OF_RANGE", "the log is shorter"),
            ("GetConsistencyProof", v1.GetConsistencyProofRequest(origin=ORIGIN, size1=0, size2=9), "INVALID_ARGUMENT", "there is no such proof"),
            ("GetConsistencyProof", v1.GetConsistencyProofRequest(origin=ORIGIN, size1=9, size2=8), "INVALID_ARGUMENT", "there is no such proof"),
            ("GetCheckpoint", v1.GetCheckpointRequest(origin=ORIGIN, cosignatures=100), "NOT_FOUND", "no such checkpoint"),
        ],
    )  # fmt: skip
    def test_a_question_that_has_no_answer(
        self, channel: grpc.Channel, method: str, request_: Any, status: str, words: str
    ) -> None:
        stub = LedgerServiceStub(channel)
        code, details = status_of(lambda: getattr(stub, method)(request_, timeout=20))
        assert (code.name, details) == (status, words)

    def test_a_question_that_is_too_large(self, channel: grpc.Channel) -> None:
        huge = v1.GetEntriesRequest(origin="x" * 100_000, end=1)
        code, _ = status_of(lambda: LedgerServiceStub(channel).GetEntries(huge, timeout=20))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED

    def test_more_followers_than_there_is_room_for(
        self, consortium: Consortium, store: Path, credentials: Credentials, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ledger_service, "FOLLOWERS", 2)
        with consortium.serving_paths(store) as address, _channel(address, credentials) as channel:
            stub = LedgerServiceStub(channel)
            calls = [stub.Follow(v1.FollowRequest(origin=ORIGIN)) for _ in range(2)]
            assert all(next(call).note for call in calls)
            code, details = status_of(lambda: next(stub.Follow(v1.FollowRequest(origin=ORIGIN))))
            assert (code.name, details) == ("RESOURCE_EXHAUSTED", "too many follow")
            calls[0].cancel()
            deadline = time.monotonic() + 20
            while True:
                call = stub.Follow(v1.FollowRequest(origin=ORIGIN))
                try:
                    assert next(call).note
                    break
                except grpc.RpcError:
                    assert time.monotonic() < deadline, "a follower that has left keeps its room"
                    time.sleep(0.1)
            call.cancel()

    @pytest.mark.parametrize("how", ["reflection", "follow", "watch"])
    def test_one_party_does_not_shut_out_the_others(
        self, consortium: Consortium, store: Path, credentials: Credentials, how: str
    ) -> None:
        greedy = consortium.credentials(consortium.home(SIGNERS[MEMBERS[0]]))
        done = threading.Event()

        def says_nothing() -> Iterator[Any]:
            done.wait()
            yield from ()

        with consortium.serving_paths(store, poll_s=0.05) as address, _channel(address, greedy) as channel:
            calls = [self._opened(how, channel, says_nothing) for _ in range(60)]
            try:
                refused = self._refused(calls, 60 - {"follow": 3}.get(how, 8))
                assert {code for code, _ in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
                with remote(address, credentials) as other:
                    assert other.entries(0, 1) == ENTRIES[:1]
                    listening = other.follow(END, once=False)
                    assert next(listening).start == END
                    listening.close()
            finally:
                done.set()
                for call in calls:
                    call.cancel()

    @staticmethod
    def _opened(how: str, channel: grpc.Channel, says_nothing: Any) -> Any:
        if how == "reflection":
            return reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(says_nothing())
        if how == "follow":
            return LedgerServiceStub(channel).Follow(v1.FollowRequest(origin=ORIGIN))
        return health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))

    @staticmethod
    def _refused(calls: list[Any], count: int) -> list[tuple[grpc.StatusCode, str]]:
        """How the calls that were refused ended, once there are so many of them."""
        deadline = time.monotonic() + 30
        while len(ended := [call for call in calls if call.done()]) < count:
            assert time.monotonic() < deadline, f"{len(ended)} of {len(calls)} were refused"
            time.sleep(0.05)
        return [(call.code(), call.details()) for call in ended]

    def test_a_share_that_was_given_back_can_be_taken_again(self, channel: grpc.Channel) -> None:
        watch = health_pb2_grpc.HealthStub(channel).Watch
        for _ in range(3 * ledger_gate.CALLS_EACH):
            call = watch(health_pb2.HealthCheckRequest(service=SERVICE))
            deadline = time.monotonic() + 20
            while True:
                try:
                    assert next(call).status == health_pb2.HealthCheckResponse.SERVING
                    break
                except grpc.RpcError:  # the last one's end is on its way
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
                    call = watch(health_pb2.HealthCheckRequest(service=SERVICE))
            call.cancel()

    def test_parties_that_watch_and_leave_do_not_stop_the_service(
        self, consortium: Consortium, store: Path, credentials: Credentials
    ) -> None:
        """An end that arrives while another's status is on its way must not wait for what waits for it."""

        def watch_and_leave(address: str) -> None:
            with _channel(address, credentials) as channel:
                watch = health_pb2_grpc.HealthStub(channel).Watch
                for _ in range(300):
                    call = watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=20)
                    try:
                        assert next(call).status == health_pb2.HealthCheckResponse.SERVING
                    except grpc.RpcError as error:
                        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:  # the last ends come yet
                            raise
                    call.cancel()

        with consortium.serving_paths(store) as address, ThreadPoolExecutor(2) as parties:
            ends = [parties.submit(watch_and_leave, address) for _ in range(2)]
            for end in ends:
                end.result(timeout=60)
            with _channel(address, credentials) as channel:
                health = health_pb2_grpc.HealthStub(channel)
                assert health.Check(health_pb2.HealthCheckRequest(), timeout=20).status

    def test_a_client_that_falls_silent_in_a_call_keeps_no_thread(
        self, consortium: Consortium, store: Path, credentials: Credentials, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ledger_gate, "TALK_S", 1.5)
        monkeypatch.setattr(ledger_gate, "CALLS_EACH", 2)
        done = threading.Event()

        def says_one_thing() -> Iterator[Any]:
            yield reflection_pb2.ServerReflectionRequest(list_services="")
            done.wait()

        with consortium.serving_paths(store) as address, _channel(address, credentials) as channel:
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            for _ in range(
                2 * ledger_gate.CALLS_EACH
            ):  # one after the other, none of them ended by the client
                call = stub.ServerReflectionInfo(says_one_thing())
                assert next(call).list_services_response.service
                code, _ = status_of(lambda call=call: next(call))
                assert code is grpc.StatusCode.CANCELLED
            done.set()

    @pytest.mark.parametrize("method", ["hansa.v1.LedgerService/GetEntries", "grpc.health.v1.Health/Watch"])
    def test_questions_that_never_come_shut_nobody_out(
        self, consortium: Consortium, store: Path, credentials: Credentials, method: str
    ) -> None:
        """Of who is admitted nowhere no call is kept, of a party as many as it may have, and not for long."""
        stranger = consortium.credentials(consortium.home(Signer.generate("stranger")))
        greedy = consortium.credentials(consortium.home(SIGNERS[MEMBERS[0]]))
        done = threading.Event()

        def says_nothing() -> Iterator[bytes]:
            done.wait()
            yield from ()

        with (
            consortium.serving_paths(store) as address,
            _channel(address, stranger) as one,
            _channel(address, greedy) as two,
        ):
            for channel, code, kept in (
                (one, grpc.StatusCode.PERMISSION_DENIED, 0),
                (two, grpc.StatusCode.RESOURCE_EXHAUSTED, ledger_gate.CALLS_EACH),
            ):
                calls = [channel.stream_stream(f"/{method}")(says_nothing()) for _ in range(60)]
                assert {code for code, _ in self._refused(calls, 60 - kept)} == {code}
            with remote(address, credentials) as other:
                assert other.entries(0, 1) == ENTRIES[:1]
            done.set()

    @pytest.mark.parametrize("says", [False, True])
    def test_a_question_that_is_not_asked_in_time(
        self,
        consortium: Consortium,
        store: Path,
        credentials: Credentials,
        monkeypatch: pytest.MonkeyPatch,
        says: bool,
    ) -> None:
        if not says:
            monkeypatch.setattr(ledger_gate, "TALK_S", 0.3)
        done = threading.Event()

        def says_nothing() -> Iterator[bytes]:
            if not says:
                done.wait()
            yield from ()

        with consortium.serving_paths(store) as address, _channel(address, credentials) as channel:
            get = channel.stream_unary("/hansa.v1.LedgerService/GetEntries")
            code, _ = status_of(lambda: get(says_nothing(), timeout=20))
            assert code is (grpc.StatusCode.INVALID_ARGUMENT if says else grpc.StatusCode.CANCELLED)
            done.set()

    def test_answers_that_nobody_takes_count(self, consortium: Consortium, credentials: Credentials) -> None:
        """An answer that is not read fills the service's memory until its call ends."""
        with consortium.serving([long_log()]) as address, _unread(address, credentials) as get:
            calls = [get() for _ in range(60)]
            refused = self._refused(calls, 60 - ledger_gate.CALLS_EACH)
            assert {code for code, _ in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}

    def test_an_answer_that_nobody_takes_is_not_kept(
        self, consortium: Consortium, credentials: Credentials, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ledger_gate, "CALLS_EACH", 1)
        monkeypatch.setattr(ledger_gate, "TALK_S", 0.5)
        with (
            consortium.serving([long_log()]) as address,
            _unread(address, credentials) as get,
            _unread(address, credentials) as another,  # a connection that the unread answer does not fill
        ):
            unread, deadline = get(), time.monotonic() + 60
            assert unread.initial_metadata() is not None  # it has been answered
            monkeypatch.undo()
            while True:
                try:
                    assert next(another())
                    break
                except grpc.RpcError:  # it is still kept
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
            code, _ = status_of(lambda: next(unread))
            assert code is grpc.StatusCode.CANCELLED

    def test_nothing_of_the_inside_is_told(
        self,
        consortium: Consortium,
        credentials: Credentials,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        class Broken(LogView):
            def entries(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
                raise ValueError("/srv/secret/path is on fire")

            @property
            def size(self) -> int:
                return 10

        with (
            caplog.at_level(logging.ERROR, "hansa_server"),
            consortium.serving([HeldLog(Broken(None), "hansa.example/broken")]) as address,  # type: ignore[arg-type]
            _channel(address, credentials) as channel,
        ):
            request = v1.GetEntriesRequest(end=1)
            code, details = status_of(lambda: LedgerServiceStub(channel).GetEntries(request, timeout=20))
        assert (code.name, details) == ("INTERNAL", "internal error")
        assert "on fire" in caplog.text  # the coordinator's own log has it

    @pytest.mark.parametrize(
        ("signer", "status"),
        [(FEDERATION_SIGNER, "PERMISSION_DENIED"), (LOG_SIGNERS[MEMBERS[3]], "INTERNAL")],
    )
    def test_a_damaged_log_is_not_served_on(
        self,
        consortium: Consortium,
        tmp_path: Path,
        credentials: Credentials,
        signer: NoteSigner,
        status: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Of the federation's nothing at all, since who may read stands in it."""
        path = write_store(ENTRIES, signer, tmp_path / "log.sqlite", [END])
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP TRIGGER entries_update")
            connection.execute("UPDATE entries SET data = x'00' WHERE idx = 3")
            connection.commit()
        with consortium.serving_paths(path) as address, _channel(address, credentials) as channel:
            stub = LedgerServiceStub(channel)
            code, _ = status_of(lambda: stub.GetEntries(v1.GetEntriesRequest(end=6), timeout=20))
        assert code.name == status
        assert "HANSA-748: entry 3 of the log has been changed" in caplog.text


# --- health and reflection -------------------------------------------------------------------------------


class TestTools:
    @pytest.mark.parametrize("service", ["", SERVICE])
    def test_health(self, channel: grpc.Channel, service: str) -> None:
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=service), timeout=20
        )
        assert answer.status == health_pb2.HealthCheckResponse.SERVING

    @pytest.mark.parametrize(
        ("service", "status"), [("", "SERVING"), (SERVICE, "SERVING"), ("another.Service", "SERVICE_UNKNOWN")]
    )
    def test_health_can_be_watched(self, channel: grpc.Channel, service: str, status: str) -> None:
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=service))
        told = next(watching).status
        assert health_pb2.HealthCheckResponse.ServingStatus.Name(told) == status
        assert not watching.done()  # until the client has heard enough
        watching.cancel()

    def test_reflection_tells_services_and_methods(self, channel: grpc.Channel) -> None:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
        ]
        services, file = list(stub.ServerReflectionInfo(iter(asked), timeout=20))
        names = {service.name for service in services.list_services_response.service}
        assert {SERVICE, "grpc.health.v1.Health"} <= names
        described = FileDescriptorProto.FromString(file.file_descriptor_response.file_descriptor_proto[0])
        assert described.package == "hansa.v1"
        (service,) = described.service
        assert {method.name for method in service.method} == {
            "ListLogs", "GetCheckpoint", "GetEntries", "GetTile", "GetInclusionProof", "GetConsistencyProof", "Follow",
        }  # fmt: skip
        assert not any(method.client_streaming for method in service.method)

    def test_generated_code_is_that_of_the_definition(self, tmp_path: Path) -> None:
        made = subprocess.run(
            [
                sys.executable, "-m", "grpc_tools.protoc", "-I", ".", f"--python_out={tmp_path}",
                f"--pyi_out={tmp_path}", f"--grpc_python_out={tmp_path}", "hansa/v1/ledger.proto",
            ],
            cwd=ROOT / "shared",
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        files = sorted((tmp_path / "hansa" / "v1").iterdir())
        assert [file.name for file in files] == ["ledger_pb2.py", "ledger_pb2.pyi", "ledger_pb2_grpc.py"]
        for file in files:
            assert file.read_text() == (ROOT / "shared" / "hansa" / "v1" / file.name).read_text(), (
                "run `make proto`"
            )


# --- who is let in ---------------------------------------------------------------------------------------


class TestAdmission:
    def refused(self, address: str, credentials: Credentials) -> None:
        """Refused by every service, with nothing said."""
        with _channel(address, credentials) as channel:
            calls: list[Any] = [
                lambda: LedgerServiceStub(channel).ListLogs(v1.ListLogsRequest(), timeout=20),
                lambda: next(LedgerServiceStub(channel).Follow(v1.FollowRequest(origin=ORIGIN), timeout=20)),
                lambda: health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(), timeout=20
                ),
                lambda: next(
                    health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=20)
                ),
                lambda: next(
                    reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
                        iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=20
                    )
                ),
            ]
            for call in calls:
                code, details = status_of(call)
                assert (code.name, details) == ("PERMISSION_DENIED", "not admitted")

    def not_connected(self, address: str, tls: grpc.ChannelCredentials) -> None:
        with grpc.secure_channel(address, tls) as channel:
            code, _ = status_of(lambda: LedgerServiceStub(channel).ListLogs(v1.ListLogsRequest(), timeout=20))
            assert code is grpc.StatusCode.UNAVAILABLE

    def test_a_member_is_let_in(self, consortium: Consortium, address: str) -> None:
        home = consortium.home(SIGNERS[MEMBERS[2]])
        with remote(address, consortium.credentials(home)) as log:
            assert log.entries(0, 1) == ENTRIES[:1]

    def test_without_a_certificate_there_is_no_connection(self, consortium: Consortium, address: str) -> None:
        self.not_connected(address, grpc.ssl_channel_credentials(consortium.ca.read_bytes()))

    def test_without_tls_there_is_no_connection(self, address: str) -> None:
        with grpc.insecure_channel(address) as channel:
            code, _ = status_of(lambda: LedgerServiceStub(channel).ListLogs(v1.ListLogsRequest(), timeout=20))
            assert code is grpc.StatusCode.UNAVAILABLE

    def test_a_certificate_of_another_authority_is_refused(
        self, consortium: Consortium, address: str
    ) -> None:
        other = Authority.create("League", datetime.now(UTC))
        shown = consortium.credentials(consortium.home(AUDITOR, authority=other))
        self.not_connected(
            address, grpc.ssl_channel_credentials(shown.authority, shown.key, shown.certificate)
        )
        with pytest.raises(LedgerServiceError, match="is refused"):
            RemoteLog(address, ORIGIN, shown, connect_s=2)

    def test_a_certificate_alone_admits_nobody(self, consortium: Consortium, address: str) -> None:
        # genuine, in the name of the auditor, for another key than the pinned one
        impostor = Signer.generate("inspector")
        self.refused(address, consortium.credentials(consortium.home(impostor)))

    def test_a_stranger_with_a_certificate_is_refused(self, consortium: Consortium, address: str) -> None:
        self.refused(address, consortium.credentials(consortium.home(Signer.generate("stranger"))))

    def test_the_coordinator_s_own_certificate_reads_nothing(
        self, consortium: Consortium, address: str
    ) -> None:
        self.refused(address, consortium.credentials(consortium.home(SIGNERS[COORDINATOR])))

    def test_another_s_name_in_a_certificate_is_not_enough(
        self, consortium: Consortium, address: str
    ) -> None:
        self.refused(address, consortium.credentials(consortium.home(SIGNERS[MEMBERS[0]], name=MEMBERS[1])))

    def test_a_service_under_another_name_is_not_believed(
        self, consortium: Consortium, store: Path, credentials: Credentials
    ) -> None:
        with consortium.serving_paths(store) as address:
            port = address.rpartition(":")[2]
            with pytest.raises(LedgerServiceError):
                RemoteLog(f"127.0.0.2:{port}", ORIGIN, credentials, connect_s=2)

    def test_a_service_of_another_authority_is_not_believed(
        self, tmp_path: Path, store: Path, consortium: Consortium
    ) -> None:
        other = Consortium.make(tmp_path / "other")
        with other.serving_paths(store) as address:
            ours = consortium.credentials(consortium.home(AUDITOR))
            with pytest.raises(LedgerServiceError):
                RemoteLog(address, ORIGIN, ours, connect_s=2)

    def test_who_is_revoked_is_out_even_while_it_listens(self, tmp_path: Path, store: Path) -> None:
        consortium = Consortium.make(tmp_path / "league")
        home = consortium.home(AUDITOR)
        credentials = consortium.credentials(home)
        with consortium.serving_paths(store, poll_s=0.05) as address, remote(address, credentials) as log:
            assert log.entries(0, 1)
            listening = log.follow(END, once=False)
            assert next(listening).start == END
            consortium.revoke(home)
            with pytest.raises(LedgerServiceError, match="does not admit this party"):
                next(listening)
            with pytest.raises(LedgerServiceError, match="does not admit this party"):
                log.entries(0, 1)

    def test_whose_key_an_amendment_revokes_is_out(self, tmp_path: Path) -> None:
        consortium = Consortium.make(tmp_path / "league")
        credentials = consortium.credentials(consortium.home(SIGNERS[MEMBERS[4]]))
        store = SqliteLogStore.create(tmp_path / "log.sqlite")
        log = Log(store, FEDERATION_SIGNER)
        log.append(ENTRIES)
        cosigned(log)
        change = Amendment(
            AGREEMENT, 1, READERS.roster.sha256, "revoke", MEMBERS[4], None, "its key was lost"
        )
        amended = AmendmentMade.of(change, {name: change.sign(SIGNERS[name]) for name in MEMBERS[:4]}, at(99))
        with closing(store), consortium.serving_paths(tmp_path / "log.sqlite") as address:
            with remote(address, credentials) as reader:
                assert reader.entries(0, 1)
                log.append([signed(amended)])
                with pytest.raises(LedgerServiceError, match="does not admit this party"):
                    reader.entries(0, 1)
            other = consortium.credentials(consortium.home(SIGNERS[MEMBERS[0]]))
            with remote(address, other) as reader:
                assert reader.entries(0, 1)

    def test_a_list_of_revoked_ones_that_is_gone_admits_nobody(self, tmp_path: Path, store: Path) -> None:
        consortium = Consortium.make(tmp_path / "league")
        credentials = consortium.credentials(consortium.home(AUDITOR))
        with consortium.serving_paths(store) as address:
            consortium.crl.unlink()
            self.refused(address, credentials)


# --- following -------------------------------------------------------------------------------------------


def once(address: str, credentials: Credentials, folder: Path) -> Any:
    with closing(LogMirror(folder, KEYS)) as mirror, remote(address, credentials) as source:
        return follow(source, mirror, once=True, tell=lambda _: None, clock=time.monotonic, sleep=time.sleep)


class TestFollowing:
    def test_once(self, address: str, credentials: Credentials, tmp_path: Path) -> None:
        standing = once(address, credentials, tmp_path / "mirror")
        assert (standing.size, standing.cosigned, len(standing.by)) == (END, END, 5)
        assert standing.root == tree_root([leaf_hash(data) for data in ENTRIES])

    def test_a_log_that_grows_is_followed_until_it_breaks(
        self, consortium: Consortium, credentials: Credentials, tmp_path: Path
    ) -> None:
        store = SqliteLogStore.create(tmp_path / "log.sqlite")
        log = Log(store, FEDERATION_SIGNER)
        log.append(ENTRIES[:10])
        cosigned(log)
        told: list[int] = []
        grew, ended = threading.Event(), threading.Event()
        caught: list[BaseException] = []

        def tell(standing: Any) -> None:
            told.append(standing.size)
            grew.set()

        def run(address: str) -> None:
            with (
                closing(LogMirror(tmp_path / "mirror", KEYS)) as mirror,
                remote(address, credentials) as source,
            ):
                try:
                    follow(source, mirror, once=False, tell=tell, clock=time.monotonic, sleep=time.sleep)
                except LogVerificationError as error:
                    caught.append(error)
                ended.set()

        with closing(store), consortium.serving_paths(tmp_path / "log.sqlite", poll_s=0.05) as address:
            thread = threading.Thread(target=run, args=(address,))
            thread.start()
            for end in (25, END):
                assert grew.wait(20)
                grew.clear()
                log.append(ENTRIES[log.size : end])
                cosigned(log)
            while END not in told:
                assert grew.wait(20)
                grew.clear()
            log.append([ENTRIES[3]])  # the coordinator copies a member's spend
            cosigned(log)
            assert ended.wait(20)
            thread.join(20)
        assert told[-1] == END
        assert sorted(set(told)) == [10, 25, END]
        assert f"entry {END}" in str(caught[0])
        assert "it is entry 3 again" in str(caught[0])

    def test_a_sign_of_life_comes_also_when_nothing_happens(
        self, consortium: Consortium, store: Path, credentials: Credentials
    ) -> None:
        with (
            consortium.serving_paths(store, poll_s=0.02, life_s=0.1) as address,
            remote(address, credentials) as log,
        ):
            pieces = log.follow(END, once=False)
            first, second = next(pieces), next(pieces)
            assert first == second
            pieces.close()

    def test_a_service_that_falls_silent_is_given_up(
        self, consortium: Consortium, store: Path, credentials: Credentials
    ) -> None:
        with (
            consortium.serving_paths(store, life_s=600.0) as address,
            remote(address, credentials, silence_s=0.5) as log,
        ):
            said = []
            with pytest.raises(LedgerServiceError, match=r"has said nothing for 0\.5 s"):
                said.extend(log.follow(END, once=False))
            assert len(said) <= 1  # the first piece, unless that came too late already

    def test_a_service_that_has_gone_away(
        self, consortium: Consortium, store: Path, credentials: Credentials, tmp_path: Path
    ) -> None:
        with consortium.serving_paths(store) as address:
            source = RemoteLog(address, ORIGIN, credentials)
        with (
            closing(source),
            closing(LogMirror(tmp_path / "mirror", KEYS)) as mirror,
            pytest.raises(LedgerServiceError, match="cannot be reached"),
        ):
            follow(
                source, mirror, once=False, tell=lambda _: None, clock=time.monotonic, sleep=time.sleep,
                patience=Patience(reconnect_s=5),
            )  # fmt: skip

    def test_a_log_that_has_signed_nothing(self, consortium: Consortium, credentials: Credentials) -> None:
        empty = Log(MemoryLogStore(), FEDERATION_SIGNER)
        with (
            consortium.serving([HeldLog(empty, ORIGIN)]) as address,
            remote(address, credentials) as log,
            pytest.raises(LedgerServiceError, match="does not serve"),
        ):
            list(log.follow(0, once=True))


class TestServersThatLie:
    """Each has the log's key and shows the auditor another log than before."""

    @pytest.fixture
    def mirror(self, address: str, credentials: Credentials, tmp_path: Path) -> Path:
        once(address, credentials, tmp_path / "mirror")
        return tmp_path / "mirror"

    def show(
        self, consortium: Consortium, credentials: Credentials, tmp_path: Path, mirror: Path, entries: Any
    ) -> Any:
        path = write_store(entries, FEDERATION_SIGNER, tmp_path / "lie.sqlite", [len(entries)], MEMBERS)
        with consortium.serving_paths(path) as address:
            return once(address, credentials, mirror)

    def test_cut_off(
        self, consortium: Consortium, credentials: Credentials, tmp_path: Path, mirror: Path
    ) -> None:
        with pytest.raises(LogVerificationError, match="cut off, or restored"):
            self.show(consortium, credentials, tmp_path, mirror, ENTRIES[:-3])

    def test_forked_at_the_same_length(
        self, consortium: Consortium, credentials: Credentials, tmp_path: Path, mirror: Path
    ) -> None:
        other = [*ENTRIES[:-1], changed(ENTRIES[-1], at="2026-03-01T13:33:00Z")]
        with pytest.raises(ForkError) as caught:
            self.show(consortium, credentials, tmp_path, mirror, other)
        one, two = (KEYS.federation.verify(note) for note in caught.value.notes)
        assert (one.checkpoint.size, two.checkpoint.size) == (END, END)
        assert one.checkpoint.root != two.checkpoint.root  # proof for anyone, under the log's own key

    def test_forked_and_longer(
        self, consortium: Consortium, credentials: Credentials, tmp_path: Path, mirror: Path
    ) -> None:
        place = story().find("federation", "release", round=4)
        other = [*ENTRIES[:place], *ENTRIES[place + 1 :], ENTRIES[place], changed(ENTRIES[-1], at=at(99))]
        with pytest.raises(LogVerificationError, match="another history, or a false proof"):
            self.show(consortium, credentials, tmp_path, mirror, other)
        # what was verified is still there, and still verifies
        with closing(LogMirror(mirror, KEYS)) as copy:
            assert copy.standing.size == END

    def test_nobody_cosigned(self, consortium: Consortium, credentials: Credentials, tmp_path: Path) -> None:
        path = write_store(ENTRIES, FEDERATION_SIGNER, tmp_path / "lie.sqlite", [END], MEMBERS[:3])
        with consortium.serving_paths(path) as address, pytest.raises(CosignatureQuorumError):
            once(address, credentials, tmp_path / "fresh")


class TestFoldersOfTiles:
    def test_one_whose_entries_are_not_its_checkpoint_s(self, tmp_path: Path) -> None:
        write_log(ENTRIES, FEDERATION_SIGNER, tmp_path / "tiles")
        rewrite_bundle(tmp_path / "tiles", [*ENTRIES[:-1], ENTRIES[0]])
        with pytest.raises(LogDamagedError, match="are not those of its checkpoint"):
            served_logs([tmp_path / "tiles"])

    def test_one_whose_checkpoint_another_has_signed(self, tmp_path: Path) -> None:
        note = write_log(ENTRIES, FEDERATION_SIGNER, tmp_path / "tiles")
        stranger = NoteSigner.generate("hansa.example/stranger")
        signed_by_another = SignedNote(note.text, (stranger.sign(note.text),))
        (tmp_path / "tiles" / "checkpoint").write_text(signed_by_another.encoded)
        with pytest.raises(LogDamagedError, match="is not signed by its log"):
            served_logs([tmp_path / "tiles"])

    def test_a_log_that_has_no_name_yet(self, tmp_path: Path) -> None:
        SqliteLogStore.create(tmp_path / "log.sqlite").close()
        with pytest.raises(UsageError, match="has signed no checkpoint yet"):
            served_logs([tmp_path / "log.sqlite"])


def test_keys_are_in_no_text(consortium: Consortium, credentials: Credentials) -> None:
    assert "PRIVATE" not in repr(credentials)
    assert "PRIVATE" not in repr(ledger_service.ServiceIdentity(b"PRIVATE", b""))


def test_a_place_where_nobody_can_listen(consortium: Consortium, store: Path) -> None:
    with consortium.serving_paths(store) as address, pytest.raises(PortError, match="cannot listen"):
        _listen_again(consortium, store, address)


def _listen_again(consortium: Consortium, store: Path, address: str) -> None:
    logs = served_logs([store])
    home = consortium.home(SIGNERS[COORDINATOR], HOST)
    admission = Admission(
        RosterInForce(READERS, logs), consortium.ca, consortium.crl, lambda: datetime.now(UTC)
    )
    identity = ServiceIdentity(private(SIGNERS[COORDINATOR]), (home / "coordinator.crt").read_bytes())
    ledger_server(logs, admission, identity, address)
