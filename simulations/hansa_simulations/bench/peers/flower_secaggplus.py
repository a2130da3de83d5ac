"""Flower's own SecAgg+ in one process, timed by stage.

It drives the workflow and the client mod that Flower ships, through a grid of function calls.
"""

# ruff: noqa: ARG002, SLF001 - the grid sets what Flower's runtime would set
# mypy: ignore-errors

from __future__ import annotations

import argparse
import json
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitIns, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.compat.common import recorddict_compat
from flwr.server import LegacyContext, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.supercore.task_identity import TaskIdentity

FIRST_NODE = 101
EXAMPLES = 100


class Proxy:
    """What a strategy needs of a client: its id."""

    def __init__(self, node_id: int) -> None:
        self.node_id = node_id


class EveryNode(FedAvg):
    """Asks all nodes to fit."""

    def __init__(self, nodes: Sequence[int]) -> None:
        super().__init__()
        self.nodes = nodes

    def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> Any:
        return [(Proxy(node), FitIns(parameters, {})) for node in self.nodes]


class Available:
    """A client manager that knows how many there are."""

    def __init__(self, count: int) -> None:
        self.count = count

    def num_available(self) -> int:
        return self.count


class TimedGrid:
    """Hands messages to the client mod by function call and keeps the time."""

    def __init__(self, updates: Mapping[int, np.ndarray[Any, Any]]) -> None:
        self.updates = updates
        self.contexts = {node: new_context(node) for node in updates}
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.upload_bytes: dict[str, int] = defaultdict(int)

    def fit(self, message: Message, context: Context) -> Message:
        """A client's reply: its update."""
        result = FitRes(
            Status(Code.OK, ""), ndarrays_to_parameters([self.updates[context.node_id]]), EXAMPLES, {}
        )
        return Message(recorddict_compat.fitres_to_recorddict(result, keep_input=False), reply_to=message)

    def send_and_receive(self, messages: Iterable[Message], timeout: float | None = None) -> list[Message]:
        """Each message answered at once by the mod."""
        replies = []
        for message in list(messages):
            node = message.metadata.dst_node_id
            message.metadata._run_id, message.metadata._src_node_id, message.metadata._message_id = 1, 1, "m"
            stage = message.content.config_records[RECORD_KEY_CONFIGS][Key.STAGE]
            message.content = RecordDict(
                {
                    k: ConfigRecord(dict(v)) if isinstance(v, ConfigRecord) else v
                    for k, v in message.content.items()
                }
            )
            started = time.perf_counter()
            reply = secaggplus_mod(message, self.contexts[node], self.fit)
            self.seconds[stage].append(time.perf_counter() - started)
            for value in reply.content.config_records[RECORD_KEY_CONFIGS].values():
                if isinstance(value, list):
                    self.upload_bytes[stage] += sum(len(item) for item in value if isinstance(item, bytes))
            replies.append(reply)
        return replies


def new_context(node: int) -> Context:
    """An empty context of one node."""
    return Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={}, series_id=0)


def one_round(members: int, length: int) -> dict[str, Any]:
    """Sum once: seconds of every member by stage, of the server, upload in bytes for each member, and the error."""
    nodes = range(FIRST_NODE, FIRST_NODE + members)
    rng = np.random.default_rng(0)
    updates = {node: (rng.standard_normal(length) * 0.02).astype(np.float32) for node in nodes}
    grid = TimedGrid(updates)
    context = LegacyContext(new_context(1), ServerConfig(1), EveryNode(nodes), Available(members))
    context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({WorkflowKey.CURRENT_ROUND: 1})
    start = ndarrays_to_parameters([np.zeros(length, np.float32)])
    context.state.array_records[MAIN_PARAMS_RECORD] = recorddict_compat.parameters_to_arrayrecord(
        start, keep_input=True
    )

    started = time.perf_counter()
    threshold = max(2, int(0.67 * members))
    SecAggPlusWorkflow(1.0, threshold, max_weight=float(EXAMPLES))(grid, context)
    total = time.perf_counter() - started

    result = context.state.array_records[MAIN_PARAMS_RECORD]
    mean = parameters_to_ndarrays(recorddict_compat.arrayrecord_to_parameters(result, keep_input=True))[0]
    error = float(np.abs(mean - np.mean(list(updates.values()), axis=0)).max())
    if not error < 1e-3:
        raise SystemExit(f"the peer's sum is wrong by {error}")
    return {
        "member_s": {stage: grid.seconds[stage] for stage in Stage.all()},
        "server_s": total - sum(sum(spent) for spent in grid.seconds.values()),
        "upload_bytes": grid.upload_bytes[Stage.COLLECT_MASKED_VECTORS] / members,
        "max_error": error,
    }


def main() -> None:
    """Measure, and write ``{"member_s": {stage: […]}, "server_s": […], "upload_bytes": …, "max_error": …}``."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--members", "--floats", "--rounds"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    TaskIdentity._run_id = TaskIdentity._node_id = TaskIdentity._task_id = 1
    rounds = [one_round(asked.members, asked.floats) for _ in range(asked.rounds)]
    measured = {
        "member_s": {
            stage: [spent for one in rounds for spent in one["member_s"][stage]] for stage in Stage.all()
        },
        "server_s": [one["server_s"] for one in rounds],
        "upload_bytes": rounds[-1]["upload_bytes"],
        "max_error": max(one["max_error"] for one in rounds),
    }
    asked.out.write_text(json.dumps(measured))


if __name__ == "__main__":
    main()
