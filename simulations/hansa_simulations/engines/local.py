"""The local engine: Flower's ServerApp and ClientApp around a Grid that is a function call."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flwr.app import ConfigRecord, Context, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from hansa.agreement import Agreement
from hansa.errors import WireError
from hansa.wire import Message
from hansa_client.flower_node import AnswersRequests, client_app
from hansa_server.flower_app import GridMembers, server_app
from hansa_simulations.engines.workers import Workers
from hansa_simulations.league import League


class LocalEngine:
    """One process, or one and `processes` workers that hold the members.

    Args:
        processes: members that train at the same time; 1 trains them in turn, in this process, on one shared
            model.
    """

    name = "local"

    def __init__(self, processes: int = 1) -> None:
        self._processes = processes

    def run(
        self, agreement: Agreement, league: League, run: str, coordinate: Callable[[GridMembers], None]
    ) -> None:
        names = [member.name for member in agreement.terms.members]
        if self._processes == 1:
            run_in_process(agreement, [league.node(name) for name in names], run, coordinate)
            return
        with Workers(league, names, min(self._processes, len(names))) as workers:
            run_in_process(
                agreement, [workers.node(name) for name in names], run, coordinate, self._processes
            )


def run_in_process(
    agreement: Agreement,
    nodes: list[AnswersRequests],
    run: str,
    coordinate: Callable[[GridMembers], None],
    threads: int = 1,
) -> None:
    """Run a coordinator against nodes of this process through a ServerApp and a ClientApp.

    Args:
        agreement: whose members the nodes are.
        nodes: one for each member.
        run: the run's name.
        coordinate: what the ServerApp does.
        threads: requests that are answered at the same time.
    """
    carried = _ByReference(4 * len(nodes) + 16)  # an exchange has a request and a reply for each
    clients = client_app(lambda context: nodes[int(context.node_id) - 1], carried.encode, carried.decode)
    _claim_task_identity()
    grid = _LocalGrid(clients, len(nodes), threads)
    server = server_app(
        lambda grid: coordinate(
            GridMembers(grid, agreement, run, encode=carried.encode, decode=carried.decode)
        )
    )
    server(grid, _context(node_id=0))


class _ByReference:
    """Wire messages kept aside, with their place in a Flower record: nothing is copied or serialised.

    One message may be read many times (a request goes to all members), so it stays until it is dropped: only the
    newest few are kept.
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._messages: dict[int, Message] = {}
        self._numbers = itertools.count()

    def encode(self, message: Message) -> RecordDict:
        number = next(self._numbers)
        self._messages[number] = message
        self._messages.pop(number - self._kept, None)
        return RecordDict({"wire": ConfigRecord({"number": number})})

    def decode(self, content: RecordDict) -> Message:
        number = content.config_records["wire"]["number"]
        message = self._messages.get(number) if isinstance(number, int) else None
        if message is None:
            raise WireError("a message is no longer kept")
        return message


class _LocalGrid(Grid):
    """A Flower Grid whose nodes are calls of one ClientApp."""

    def __init__(self, clients: ClientApp, nodes: int, threads: int) -> None:
        self._clients = clients
        self._contexts = {node: _context(node) for node in range(1, nodes + 1)}
        self._threads = threads
        self._replies: dict[str, FlowerMessage] = {}
        self._numbers = itertools.count(1)

    def set_run(self, run: Run) -> None:
        raise NotImplementedError("a local run is not registered with a SuperLink")

    @property
    def run(self) -> Run:
        return Run.create_empty(run_id=TaskIdentity.run_id)

    def create_message(self, *args: Any, **kwargs: Any) -> FlowerMessage:
        return FlowerMessage(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def push_messages(self, messages: Iterable[FlowerMessage]) -> Iterable[str]:
        sent = list(messages)
        for message in sent:
            message.metadata.__dict__["_message_id"] = str(next(self._numbers))
        if self._threads == 1:
            answers = [self._answer(message) for message in sent]
        else:
            with ThreadPoolExecutor(self._threads) as pool:
                answers = list(pool.map(self._answer, sent))
        for message, answer in zip(sent, answers, strict=True):
            self._replies[message.metadata.message_id] = answer
        return [message.metadata.message_id for message in sent]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[FlowerMessage]:
        return [self._replies.pop(i) for i in message_ids if i in self._replies]

    def send_and_receive(
        self,
        messages: Iterable[FlowerMessage],
        *,
        timeout: float | None = None,  # noqa: ARG002  # the port's
    ) -> Iterable[FlowerMessage]:
        return self.pull_messages(self.push_messages(messages))

    def _answer(self, message: FlowerMessage) -> FlowerMessage:
        node = message.metadata.dst_node_id
        reply = self._clients(message, self._contexts[node])
        reply.metadata.__dict__["_src_node_id"] = node
        return reply


def _context(node_id: int) -> Context:
    return Context(run_id=1, node_id=node_id, node_config={}, state=RecordDict(), run_config={})


def _claim_task_identity() -> None:
    """Outside Flower's own processes a message needs to be told whose task makes it."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
