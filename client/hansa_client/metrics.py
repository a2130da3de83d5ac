"""A node's numbers for a Prometheus of the member's own; see `[metrics]` of `node.toml`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

from hansa.ledger import SignedEntry
from hansa.ledger.standing import standing_of
from hansa.observing.scraped import WhenAsked, registry_of_process
from hansa_client.desk import Answer
from hansa_client.node_file import NodeHome
from hansa_client.node_ledger import ledger_to_read

_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)


class NodeMetrics:
    """See above.

    Args:
        home: of the node.
        connected: whether it has its place at the SuperLink.

    Leaks: to whoever reaches the address: when the member worked, for how long, and what of its budget is left.
        No number depends on the member's data, except as the time and the memory that work on them takes.
    """

    def __init__(self, home: NodeHome, connected: Callable[[], bool]) -> None:
        self.registry: CollectorRegistry = registry_of_process()
        self._home = home
        self._requests = Counter(
            "hansa_node_requests",
            "Requests that were answered, by phase and outcome.",
            ["phase", "outcome"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "hansa_node_request_seconds",
            "Seconds from a request to its answer.",
            ["phase"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._bytes = Counter(
            "hansa_node_bytes", "Bytes of wire messages.", ["direction"], registry=self.registry
        )
        self._round = Gauge(
            "hansa_node_round", "The last round that was asked about.", registry=self.registry
        )
        connection = Gauge(
            "hansa_node_connected", "1 while the node has its place at the SuperLink.", registry=self.registry
        )
        connection.set_function(lambda: float(connected()))
        self._known: tuple[int, list[Metric]] = (-1, [])
        if home.settings.role == "member":
            self.registry.register(WhenAsked(self._budget, "budget"))
        self.registry.register(WhenAsked(_gpu, "gpu"))

    def noted(self, answer: Answer) -> None:
        """Count an answer; see `hansa_client.desk.Desk`."""
        phase = answer.about.phase
        self._requests.labels(phase, answer.outcome).inc()
        self._seconds.labels(phase).observe(answer.seconds)
        self._bytes.labels("in").inc(answer.bytes_in)
        self._bytes.labels("out").inc(answer.reply.payload_bytes)
        if answer.about.round is not None:
            self._round.set(answer.about.round)

    def _budget(self) -> list[Metric]:
        """What the ledger says, read anew where it has grown."""
        if not self._home.ledger.exists():
            return []
        with ledger_to_read(self._home) as ledger:
            size = ledger.log.size
            if size == self._known[0]:
                return self._known[1]
            standing = standing_of(SignedEntry.parse(data).entry for data in ledger.log.entries())
        labels = ["dataset", "against"]
        limit = GaugeMetricFamily("hansa_node_budget_epsilon_limit", "ε that was granted.", labels=labels)
        left = GaugeMetricFamily("hansa_node_budget_epsilon_left", "ε that is left.", labels=labels)
        for dataset in standing.datasets:
            for one in dataset.limits:
                where = [dataset.granted.dataset_id, one.against]
                limit.add_metric(where, one.limit.epsilon)
                left.add_metric(where, one.remaining)
        self._known = size, [limit, left]
        return self._known[1]


def _gpu() -> Iterator[Metric]:
    """Memory of the device, where this process uses one."""
    torch: Any = sys.modules.get("torch")  # whoever has not loaded it uses no device
    if torch is None or not torch.cuda.is_initialized():
        return
    memory = GaugeMetricFamily(
        "hansa_node_gpu_memory_bytes", "Memory of a device.", labels=["device", "kind"]
    )
    for device in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(device)
        for kind, value in (
            ("used", total - free),
            ("total", total),
            ("own", torch.cuda.memory_allocated(device)),
        ):
            memory.add_metric([str(device), kind], value)
    yield memory
