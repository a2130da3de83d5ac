"""Flower's SuperLink as the coordinator runs it: `python -m hansa_server.flower_app.superlink ARGUMENTS OF flower-superlink`.

Flower serves nodes, control and its own processes at one port, and lets whoever reaches it start runs, whose code it
then executes. Here a gate stands before it: from elsewhere only the nodes' part answers, control also asks for a secret
that only the coordinator's own commands can read, and what a run's process needs answers on this machine alone.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import sys
from importlib.metadata import version
from pathlib import Path

import uvicorn

from hansa.identity.keys import read_private
from hansa.wire import MAX_ARRAY_BYTES
from hansa_server.flower_app.asgi import App, Receive, Scope, Send
from hansa_server.flower_app.waiting import Waiting
from hansa_server.parent import follow, started_by

SECRET_FILE = "HANSA_CONTROL_SECRET_FILE"  # noqa: S105  # where the secret is
REPLY_BYTES = "HANSA_REPLY_BYTES"  # that replies of one node may take here
HEADER = b"x-hansa-control"
OBJECTS = "objects"  # the folder of what is on its way, beside Flower's database
_RELEASE, _JSON = b"flwr-package-version", (b"content-type", b"application/json")
_FLEET = re.compile(r"/v1/fleet/[a-z-]+")  # nothing that somebody could read as another path
_CONTROL, _RUNTIME, _HEALTH = "/v1/control/", "/v1/runtime/", "/health"
_GOES_WITHIN_S = 5.0


class Gate:
    """Lets a request pass, or answers 404 as if there were nothing.

    Args:
        app: behind it.
        secret: that control asks for.
        release: of Flower here, ``MAJOR.MINOR.PATCH``; nodes that say that they are of another minor release are refused, which
            Flower 1.41 does for its own processes and not for nodes. Empty: whoever comes is taken.
    """

    def __init__(self, app: App, secret: bytes, release: str = "") -> None:
        self._app, self._secret, self._release = app, secret, release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the application's start and end."""
        if scope["type"] == "http" and self._is_of_another_release(scope):
            await send({"type": "http.response.start", "status": 412, "headers": [_JSON]})
            await send({"type": "http.response.body", "body": self._refusal()})
        elif scope["type"] == "lifespan" or (scope["type"] == "http" and self._passes(scope)):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _is_of_another_release(self, scope: Scope) -> bool:
        said = dict(scope["headers"]).get(_RELEASE)
        if not self._release or said is None or not _FLEET.fullmatch(scope["path"]):
            return False
        return bool(said.split(b".")[:2] != self._release.encode().split(b".")[:2])

    def _refusal(self) -> bytes:
        """As Flower tells it, so that whoever asks knows what it means."""
        from flwr.supercore.error import ApiErrorCode, FlowerError

        told = f"this SuperLink is of Flower {self._release}"
        return json.dumps(FlowerError(ApiErrorCode.RUNTIME_VERSION_INCOMPATIBLE, told).to_json(told)).encode()

    def _passes(self, scope: Scope) -> bool:
        path = scope["path"]
        if _FLEET.fullmatch(path):
            return True
        if not _is_here(scope):
            return False
        if path.startswith(_CONTROL):
            shown = dict(scope["headers"]).get(HEADER, b"")
            return hmac.compare_digest(shown, self._secret)
        return bool(path.startswith(_RUNTIME) or path == _HEALTH)


def _is_here(scope: Scope) -> bool:
    """Whether the other end is this machine: the loopback, or the very address at which it was asked."""
    client, server = scope.get("client"), scope.get("server")
    if client is None:
        return False
    host = str(client[0])
    return host in {"127.0.0.1", "::1"} or (server is not None and host == server[0])


def main() -> None:
    """Run until SIGTERM, or until the process that started this one is gone."""
    from flwr.superlink.cli.flower_superlink import _parse_superlink_lifespan_config
    from flwr.superlink.main import create_app

    from hansa_server.flower_app.admitted import Admission
    from hansa_server.flower_app.announcing import refuse_bad_announcements
    from hansa_server.flower_app.bounded import Bounded
    from hansa_server.flower_app.carrying import Carrying
    from hansa_server.flower_app.connections import BoundedConnection
    from hansa_server.flower_app.objects import kept_in
    from hansa_server.flower_app.shorter import OneAtATime, shortened, spare_memory, spare_writes
    from hansa_server.flower_app.superexec import Lifespan

    spare_writes()
    spare_memory()
    refuse_bad_announcements()
    secret = read_private(Path(os.environ.pop(SECRET_FILE)))
    follow(started_by(), goes_within_s=_GOES_WITHIN_S)
    config = _parse_superlink_lifespan_config()
    node_bytes = int(os.environ.get(REPLY_BYTES, MAX_ARRAY_BYTES))
    objects = kept_in(Path(config.database).parent / OBJECTS, node_bytes)
    flower = create_app(config, Lifespan)
    state = Admission(flower)
    carried = Carrying(OneAtATime(shortened(flower)), state, objects)
    uvicorn.run(
        Gate(Bounded(Waiting(carried), state.node_of), secret, version("flwr")),
        http=BoundedConnection,
        ws="none",
        host=config.host,
        port=config.port,
        log_level="warning",
        access_log=False,  # a line for every poll of every node
        ssl_keyfile=config.ssl_keyfile,
        ssl_certfile=config.ssl_certfile,
        proxy_headers=False,  # nobody says for others where they are
        timeout_keep_alive=75,  # longer than any pause between two polls, so that none meets a closing connection
        timeout_graceful_shutdown=3,
        workers=1,
    )


if __name__ == "__main__":
    sys.argv[0] = "flower-superlink"
    main()
