"""The SuperLink's control, for the coordinator's own commands: nodes that may take a place, and Flower runs.

Flower's command line does the same through its internal `ControlHttpClient`; this file uses that client directly, because
the gate before the SuperLink asks for a secret that Flower's command line cannot say.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.cli.build import build_fab_from_files
from flwr.common.constant import Status
from flwr.common.serde import fab_to_proto, user_config_from_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors.http.utils import add_headers
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata

from hansa.errors import EngineError, LinkError
from hansa.following.address import Address
from hansa.identity.keys import read_private
from hansa_server.flower_app.superlink import HEADER

BUNDLE = """\
# What Flower needs to start a run of Hansa's coordinator: the name of an installed module, and no code.
# `hansa run start` sends it by itself; members never ask for it.

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "hansa"
version = "1.0.0"
description = "Starts the installed coordinator."
license = { text = "Apache-2.0" }
dependencies = []

[tool.flwr.app]
publisher = "hansa"

[tool.flwr.app.components]
serverapp = "hansa_server.flower_app.serverapp:app"
clientapp = "hansa_server.flower_app.serverapp:app"

[tool.flwr.app.config]
run = ""
"""


def public_pem(key: ec.EllipticCurvePublicKey) -> bytes:
    """A node's Flower key as a SuperLink tells it."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


class Control:
    """A connection to the control of this machine's SuperLink.

    Args:
        port: of the SuperLink.
        authority: PEM, under which its certificate was issued.
        secret: the file that holds what the gate asks for.
        patience_s: how long an answer is waited for.

    Raises, in every call:
        LinkError: the SuperLink is not there, does not answer, or is not this coordinator's.
        EngineError: it refuses.
    """

    def __init__(self, port: int, authority: bytes, secret: Path, patience_s: float = 30.0) -> None:
        self._client = ControlHttpClient.from_server_address(
            Address("127.0.0.1", port).at(port),
            insecure=False,
            root_certificates=authority,
            interceptors=[_Admitted(read_private(secret), patience_s)],
        )

    def wait(self, until: float) -> None:
        """Wait for the SuperLink to answer, until a moment of `time.monotonic`."""
        while True:
            try:
                self._nodes()
            except (LinkError, EngineError):
                if time.monotonic() >= until:
                    raise
                time.sleep(0.1)
            else:
                return

    def admit(self, keys: Mapping[str, ec.EllipticCurvePublicKey]) -> None:
        """Register these nodes, by name, and nobody else: whoever is registered beyond them loses its place."""
        wanted = {public_pem(key): name for name, key in keys.items()}
        there = self._nodes()
        with _told():
            for key, node in there.items():
                if key not in wanted:
                    self._client.UnregisterNode(UnregisterNodeRequest(node_id=node))
            for key, name in wanted.items():
                if key not in there:
                    self._client.RegisterNode(RegisterNodeRequest(public_key=key, name=name))

    def online(self) -> Iterable[bytes]:
        """The keys of nodes that have a place now."""
        with _told():
            found = self._client.ListNodes(ListNodesRequest()).nodes_info
        return [bytes(info.public_key) for info in found if info.status == "online"]

    def start(self, run: str) -> str:
        """Start a Flower run that carries a run; its id."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of Flower about a package that it uses
            data, _ = build_fab_from_files({"pyproject.toml": BUNDLE.encode()})
        fab = Fab(hashlib.sha256(data).hexdigest(), data, {})
        request = StartRunRequest(
            fab=fab_to_proto(fab),
            override_config=user_config_to_proto({"run": run}),
            federation="",
            app_spec="",
        )
        with _told():
            answer = self._client.StartRun(request)
        if not answer.HasField("run_id"):
            raise EngineError("the SuperLink started no run", remedy="Its log says why.")
        return str(answer.run_id)

    def states(self) -> Mapping[str, str]:
        """The Flower runs and their states."""
        with _told():
            runs = self._client.ListRuns(ListRunsRequest()).run_dict
        return {str(number): run.status.status for number, run in runs.items()}

    def carrying(self, run: str) -> list[str]:
        """The Flower runs that carry a run and have not ended; also one whose start nobody was told of, since the answer was lost."""
        with _told():
            newest = self._client.ListRuns(ListRunsRequest()).run_dict  # twenty
        return [
            str(number)
            for number, one in newest.items()
            if one.status.status != Status.FINISHED
            and user_config_from_proto(one.override_config).get("run") == run
        ]

    def stop(self, flower_run: str) -> None:
        """End a Flower run."""
        with _told():
            self._client.StopRun(StopRunRequest(run_id=int(flower_run)))

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _nodes(self) -> Mapping[bytes, int]:
        with _told():
            found = self._client.ListNodes(ListNodesRequest()).nodes_info
        return {bytes(info.public_key): info.node_id for info in found}


class _Admitted:
    """Shows the gate its secret, says which Flower release this is, and how long an answer is waited for."""

    def __init__(self, secret: bytes, patience_s: float) -> None:
        self._timeout = httpx.Timeout(patience_s).as_dict()
        release = RuntimeVersionMetadata.from_local_component("flwr CLI").as_metadata()
        self._headers = {**dict(release), HEADER.decode(): secret.decode()}

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """See `ProtobufClientInterceptor`."""
        add_headers(context.request, self._headers)
        context.request.extensions["timeout"] = self._timeout
        return call_next(context)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as error:
        text = error.response.text[:200]
        raise EngineError(
            f"the SuperLink refuses with status {error.response.status_code}: {text}",
            remedy="Is it the SuperLink of this coordinator? See its log.",
        ) from None
    except httpx.HTTPError as error:
        raise LinkError(
            f"the SuperLink cannot be reached: {error}", remedy="Start it: hansa coordinator start --home DIR"
        ) from None
