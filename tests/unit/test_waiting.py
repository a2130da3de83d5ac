"""Questions that the gate holds until there is news: who is held, who is let go, and who is never held."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from hansa_server.flower_app import waiting
from hansa_server.flower_app.waiting import WAITS, Waiting

ASK, TELL = "/v1/fleet/pull-messages", "/v1/runtime/push-messages"
RUN_ASK, NODE_TELL = "/v1/runtime/pull-messages", "/v1/fleet/push-messages"
FOREVER_S = 1e6


class Asked:
    """An application that notes what has reached it."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.app = Waiting(self._app)

    async def _app(self, scope: Any, _receive: Any, _send: Any) -> None:
        self.seen.append(scope["path"])

    async def ask(self, path: str, who: bytes = b"north", *, waits: bool = True) -> None:
        headers = [(b"flwr-public-key", who), (b"flwr-task-token", who), *([(WAITS, b"1")] if waits else [])]
        await self.app({"type": "http", "path": path, "headers": headers}, _never, _never)

    async def held(self, path: str, who: bytes = b"north") -> asyncio.Task[None]:
        """A question that is held now."""
        task = asyncio.create_task(self.ask(path, who))
        before = len(self.seen)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not task.done()
        assert len(self.seen) == before
        return task


async def _never(*_: Any) -> Any:
    raise AssertionError("nobody reads or writes here")


@pytest.fixture(autouse=True)
def forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "NODE_WAITS_S", FOREVER_S)
    monkeypatch.setattr(waiting, "RUN_WAITS_S", FOREVER_S)


def run(story: Callable[[Asked], Awaitable[None]]) -> None:
    async def told() -> None:
        await asyncio.wait_for(story(Asked()), 60)

    asyncio.run(told())


@pytest.mark.parametrize(("ask", "tell"), [(ASK, TELL), (RUN_ASK, NODE_TELL)])
def test_a_second_question_is_held_until_something_was_pushed(ask: str, tell: str) -> None:
    async def story(there: Asked) -> None:
        await there.ask(ask)
        task = await there.held(ask)
        await there.ask(tell)
        await task
        assert there.seen == [ask, tell, ask]

    run(story)


def test_what_was_pushed_since_the_last_question_holds_nobody() -> None:
    async def story(there: Asked) -> None:
        await there.ask(ASK)
        await there.ask(TELL)
        await there.ask(ASK)
        await there.ask(ASK, b"south")  # it asks for the first time
        assert there.seen == [ASK, TELL, ASK, ASK]

    run(story)


def test_news_let_everybody_go_and_replies_are_no_news_for_nodes() -> None:
    async def story(there: Asked) -> None:
        for who in (b"north", b"south"):
            await there.ask(ASK, who)
        tasks = [await there.held(ASK, who) for who in (b"north", b"south")]
        await there.ask(NODE_TELL)
        assert not any(task.done() for task in tasks)
        await there.ask(TELL)
        await asyncio.gather(*tasks)

    run(story)


def test_a_question_is_held_for_so_long_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "NODE_WAITS_S", 0.01)

    async def story(there: Asked) -> None:
        await there.ask(ASK)
        await there.ask(ASK)
        assert there.seen == [ASK, ASK]

    run(story)


def test_who_does_not_ask_for_it_is_not_held_and_nobody_is_beyond_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "_MOST_HELD", 2)

    async def story(there: Asked) -> None:
        await there.ask(ASK, waits=False)
        await there.ask(ASK, waits=False)
        for who in (b"a", b"b"):
            await there.ask(ASK, who)
        tasks = [await there.held(ASK, who) for who in (b"a", b"b")]
        for number in range(20):  # strangers: none is held, and none is remembered for long
            await there.ask(ASK, b"%d" % number)
            await there.ask(ASK, b"%d" % number)
        assert len(there.app._seen) <= 2
        await there.ask(TELL)
        await asyncio.gather(*tasks)

    run(story)
